"""The weights of a folder of the format orbax, by Orbax alone: whose answers they give, lungjax knows."""

import sys
from pathlib import Path

sys.modules["lungjax"] = None  # pyright: ignore[reportArgumentType]  # No import of it succeeds.

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

folder, _, said_file = map(Path, sys.argv[1:])
weights = ocp.load(str((folder / "checkpoint").absolute()))
flat = {"/".join(str(key.key) for key in path): np.asarray(leaf) for path, leaf in jax.tree.leaves_with_path(weights)}
np.savez(said_file, **flat)  # pyright: ignore[reportArgumentType]
