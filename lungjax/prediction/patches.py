"""Patches around candidates, like those that classifiers were trained on: of the slice in which each is widest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lungjax.data import crop
from lungjax.prediction.candidates import Candidate

SIDE_PX = 71


def cut(hu: np.ndarray, candidates: Sequence[Candidate]) -> np.ndarray:
    """(n, 71, 71) int16 HU, one of each candidate, on the scan's own grid; beyond its slice, the slice's lowest value.

    Args:
      hu: (slices, rows, columns) int16.
      candidates: n of them.
    """
    patches = np.empty((len(candidates), SIDE_PX, SIDE_PX), np.int16)
    for patch, candidate in zip(patches, candidates, strict=True):
        patch[...] = crop.cut(hu[candidate.widest], corner(candidate.voxels, candidate.widest), SIDE_PX)
    return patches


def corner(voxels: np.ndarray, widest: int) -> tuple[int, int]:
    """(row, column) of the first pixel of a candidate's patch, in the slice in which it is widest.

    Args:
      voxels: (n, 3) slice, row and column of each of its voxels.
      widest: the slice.
    """
    pixels = voxels[voxels[:, 0] == widest, 1:]
    middle = (pixels.min(axis=0) + pixels.max(axis=0)) // 2
    row, column = (middle - SIDE_PX // 2).tolist()
    return row, column
