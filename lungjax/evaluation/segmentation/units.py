"""Slices, or nodules, one after the other: what is kept of each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lungjax.evaluation.segmentation import overlap_matrix, surface


class Units:
    """What is kept of slices, or of nodules, one after the other.

    Attributes:
      patients: whose each is.
    """

    def __init__(self, readers: int):
        self.patients: list[str] = []
        self._masks = len(overlap_matrix.masks(np.zeros((1, 1), bool), np.zeros((1, 1), np.uint8), readers=readers))
        self._pairs = overlap_matrix.pairs_of(readers).all
        self._overlaps: list[np.ndarray] = []
        self._pixels: list[int] = []
        self._surfaces: list[np.ndarray] = []

    def add(self, patient: str, *, overlaps: np.ndarray, pixels: int, surfaces: np.ndarray) -> None:
        """One more, see the properties."""
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
        """int64 (pairs, units, 4), as of `overlap.counts`."""
        return overlap_matrix.counts(self.overlaps, pairs, self.pixels)

    def surfaces(self, pairs: Sequence[overlap_matrix.Pair]) -> np.ndarray:
        """float64 (pairs, units, len(surface.NAMES)), as of `surface.compare_pairs`."""
        found = np.array(self._surfaces).reshape(-1, len(self._pairs), len(surface.NAMES))
        return found[:, [self._pairs.index(pair) for pair in pairs]].swapaxes(0, 1)
