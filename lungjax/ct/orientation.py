"""The axes of a volume: a scan is turned to the same ones before a network sees it, and its findings are turned back.

Only order and direction of axes change, so nothing is interpolated.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

AXIAL = (1, 1, 1)
"""Columns run to the patient's left, rows to the back, slices to the head, as in nearly every chest CT. -1 reverses."""

_NEAR_AXIS = math.cos(math.radians(10))


@dataclasses.dataclass(frozen=True, eq=False)
class Turn:
    """How the axes of a source become those of a scan.

    Attributes:
      order: the axes of the source's (slices, rows, columns) that become the scan's.
      reversed: which of these are then reversed.
      affine_lps: (4, 4) float64 of the source: from its (column, row, slice, 1) to mm, as in `lungjax.ct.scan.Scan`.
      affine_ras: the same towards the right, the front and the head where the source is NIfTI, with the very numbers of
        its header; else None.
    """

    order: tuple[int, int, int]
    reversed: tuple[bool, bool, bool]
    affine_lps: np.ndarray
    affine_ras: np.ndarray | None = None

    @property
    def is_identity(self) -> bool:
        """Whether both have the same axes."""
        return self.order == (0, 1, 2) and not any(self.reversed)

    def forth(self, voxels: np.ndarray) -> np.ndarray:
        """The scan's voxels from the source's, (slices, rows, columns) each."""
        return np.ascontiguousarray(voxels.transpose(self.order)[self._steps()])

    def back(self, voxels: np.ndarray) -> np.ndarray:
        """The source's voxels from the scan's."""
        return np.ascontiguousarray(voxels[self._steps()].transpose(np.argsort(self.order)))

    def _steps(self) -> tuple[slice, ...]:
        return tuple(slice(None, None, -1 if is_reversed else 1) for is_reversed in self.reversed)

    def affine_of_scan(self, shape: tuple[int, ...]) -> np.ndarray:
        """(4, 4) float64: `affine_lps` of the scan, from the source's `shape`, (slices, rows, columns)."""
        along = 2 - np.array(self.order)[::-1]  # Of the scan's columns, rows and slices, the source's index.
        steps, corner = self.affine_lps[:3, along], self.affine_lps[:3, 3].copy()
        for index, is_reversed in enumerate(self.reversed[::-1]):
            if is_reversed:
                corner += steps[:, index] * (shape[::-1][along[index]] - 1)
                steps[:, index] *= -1
        return np.vstack([np.column_stack([steps, corner]), (0, 0, 0, 1)])


def turn_to(
    affine_lps: np.ndarray, axes: tuple[int, int, int] = AXIAL, *, affine_ras: np.ndarray | None = None
) -> Turn | None:
    """How a volume becomes one whose columns, rows and slices run as `axes` says (see `AXIAL`).

    Returns:
      None where an axis is more than 10 degrees from the body's.
    """
    directions = affine_lps[:3, :3] / np.linalg.norm(affine_lps[:3, :3], axis=0)
    along = np.abs(directions).argmax(axis=1)  # For left, back and head, the index closest to that direction.
    cosines = directions[(0, 1, 2), along] * axes
    if np.abs(cosines).min() < _NEAR_AXIS or len(set(along.tolist())) < 3:
        return None
    columns, rows, slices = (2 - along).tolist()
    right, front, foot = (cosines < 0).tolist()
    return Turn((slices, rows, columns), (foot, front, right), affine_lps, affine_ras)
