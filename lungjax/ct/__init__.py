"""Any CT to one `Scan`: HU, geometry, orientation; DICOM, NIfTI, MetaImage. NumPy only, never JAX."""
