"""Reads the weights of a folder of the format orbax with Orbax alone."""

import sys
from pathlib import Path

sys.modules["lungjax"] = None  # pyright: ignore[reportArgumentType]  # It cannot be imported.

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

folder, _, output_file = map(Path, sys.argv[1:])
weights = ocp.load(str((folder / "checkpoint").absolute()))
flat = {"/".join(str(key.key) for key in path): np.asarray(leaf) for path, leaf in jax.tree.leaves_with_path(weights)}
np.savez(output_file, **flat)  # pyright: ignore[reportArgumentType]
