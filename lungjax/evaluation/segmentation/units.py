"""The units of a report, slices or nodules: what is stored of each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lungjax.evaluation.segmentation import overlap_matrix, surface


class Units:
    """What is stored of slices, or of nodules, in the order in which they were added.

    Args:
      readers: the number of readers of each scan.

    Attributes:
      patients: the patient of each unit.
    """

    def __init__(self, readers: int):
        self.patients: list[str] = []
        self._masks = len(overlap_matrix.masks(np.zeros((1, 1), bool), np.zeros((1, 1), np.uint8), readers=readers))
        self._pairs = overlap_matrix.pairs_of(readers).all
        self._overlaps: list[np.ndarray] = []
        self._pixels: list[int] = []
        self._surfaces: list[np.ndarray] = []

    def add(self, patient: str, *, overlaps: np.ndarray, pixels: int, surfaces: np.ndarray) -> None:
        """Adds a unit; for the arguments see the properties."""
        self.patients.append(patient)
        self._overlaps.append(overlaps)
        self._pixels.append(pixels)
        self._surfaces.append(surfaces)

    def __len__(self) -> int:
        return len(self.patients)

    @property
    def overlaps(self) -> np.ndarray:
        """int64 (units, masks, masks)."""
        return np.array(self._overlaps, np.int64).reshape(-1, self._masks, self._masks)

    @property
    def pixels(self) -> np.ndarray:
        """int64 (units,)."""
        return np.array(self._pixels, np.int64)

    def counts(self, pairs: Sequence[overlap_matrix.Pair]) -> np.ndarray:
        """int64 (pairs, units, 4), as `overlap_matrix.counts`."""
        return overlap_matrix.counts(self.overlaps, pairs, self.pixels)

    def surfaces(self, pairs: Sequence[overlap_matrix.Pair]) -> np.ndarray:
        """float64 (pairs, units, len(surface.NAMES)), as `surface.compare_pairs`."""
        values = np.array(self._surfaces).reshape(-1, len(self._pairs), len(surface.NAMES))
        return values[:, [self._pairs.index(pair) for pair in pairs]].swapaxes(0, 1)
