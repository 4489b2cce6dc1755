"""Reads any CT (DICOM, NIfTI, MetaImage) into one `Scan`: HU, geometry, orientation. NumPy only, never JAX."""
