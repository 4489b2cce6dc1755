"""Patches around candidates, like those that classifiers were trained on: of the slice in which each is widest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lungjax.data import crop
from lungjax.prediction.candidates import Candidate

SIDE_PX = 71
STACK_PX = 96
STACK_MM = (-2.5, 0.0, 2.5)
"""Side of the patches of a stack, and where its planes lie, from the slice in which the candidate is widest: as far
apart as slices of LIDC-IDRI most often are, in 285 of its 1,018 scans."""


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


def cut_stacks(hu: np.ndarray, candidates: Sequence[Candidate], slice_mm: float) -> np.ndarray:
    """(n, 3, 96, 96) int16 HU: of each candidate the slice in which it is widest, between its neighbours 2.5 mm away.

    Where the scan ends, its last slice takes the place of the neighbour.

    Args:
      hu: (slices, rows, columns) int16.
      candidates: n of them.
      slice_mm: between slices; NaN where it is not known, for neighbouring slices whatever their distance.
    """
    steps = np.rint(np.array(STACK_MM) / slice_mm) if slice_mm > 0 else np.sign(STACK_MM)
    stacks = np.empty((len(candidates), len(STACK_MM), STACK_PX, STACK_PX), np.int16)
    for stack, candidate in zip(stacks, candidates, strict=True):
        at = corner(candidate.voxels, candidate.widest, STACK_PX)
        for plane, step in zip(stack, steps.astype(int).tolist(), strict=True):
            number = min(max(candidate.widest + step, 0), len(hu) - 1)
            plane[...] = crop.cut(hu[number], at, STACK_PX)
    return stacks


def corner(voxels: np.ndarray, widest: int, side_px: int = SIDE_PX) -> tuple[int, int]:
    """(row, column) of the first pixel of a candidate's patch, in the slice in which it is widest.

    Args:
      voxels: (n, 3) slice, row and column of each of its voxels.
      widest: the slice.
      side_px: of the patch.
    """
    pixels = voxels[voxels[:, 0] == widest, 1:]
    middle = (pixels.min(axis=0) + pixels.max(axis=0)) // 2
    row, column = (middle - side_px // 2).tolist()
    return row, column
