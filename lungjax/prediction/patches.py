"""Patches around findings, as graders were trained on: of the slice in which one is widest, around its middle."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lungjax.data import crop
from lungjax.prediction.candidates import Candidate

SIDE_PX = 71


def cut(hu: np.ndarray, found: Sequence[Candidate]) -> np.ndarray:
    """(n, 71, 71) int16 HU, one of each finding, on the scan's own grid; beyond its slice, the slice's lowest value.

    Args:
      hu: (slices, rows, columns) int16.
      found: n findings.
    """
    patches = np.empty((len(found), SIDE_PX, SIDE_PX), np.int16)
    for patch, one in zip(patches, found, strict=True):
        patch[...] = crop.cut(hu[one.widest], corner(one.voxels, one.widest), SIDE_PX)
    return patches


def corner(voxels: np.ndarray, widest: int) -> tuple[int, int]:
    """(row, column) of the first pixel of the patch of a finding, in the slice in which it is widest.

    Args:
      voxels: (n, 3) slice, row and column of each of its voxels.
      widest: the slice.
    """
    pixels = voxels[voxels[:, 0] == widest, 1:]
    middle = (pixels.min(axis=0) + pixels.max(axis=0)) // 2
    row, column = (middle - SIDE_PX // 2).tolist()
    return row, column
