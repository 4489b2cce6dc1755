"""Figures with intervals by patient, and the pictures of them; only `run_*.py` run a network."""
