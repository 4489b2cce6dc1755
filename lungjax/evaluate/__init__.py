"""NumPy in, figures out: scores with intervals by patient, and the pictures of them."""
