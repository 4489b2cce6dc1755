"""Linen modules: shapes and dtypes only, no configuration, no I/O."""
