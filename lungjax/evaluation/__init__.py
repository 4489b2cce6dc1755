"""Figures with intervals by patient, and their charts; only the `run_*.py` modules run a network."""
