"""The outside world to `Scan`: DICOM, readers' contours, other formats. NumPy only, never JAX."""
