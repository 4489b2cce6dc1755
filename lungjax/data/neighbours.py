"""Neighbouring slices: the second view of a pair may show one of them."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lungjax.data.shards import Dataset

_ROUNDING_MM = 1e-3


class Neighbours:
    """Picks, for each row, a neighbouring row of the same series.

    Args:
      dataset: an opened data set.
      rows: (n,) index rows; neighbours are picked only from these.
      within_mm: largest distance between the positions of neighbours; in a series without positions, only adjacent
        slices are neighbours.
    """

    def __init__(self, dataset: Dataset, rows: np.ndarray, *, within_mm: float):
        index = dataset.index.iloc[rows]
        series = pd.factorize(index["series_uid"])[0]
        z_mm = index["z_mm"].to_numpy(np.float64)
        unknown = np.isin(series, series[np.isnan(z_mm)])
        position = np.where(unknown, index["slice_index"].to_numpy(np.float64), z_mm)
        reach = np.where(unknown, 1.0, within_mm) + _ROUNDING_MM
        order = np.lexsort((position, series))
        self._rows = rows[order]
        self._place = np.full(len(dataset), -1)
        self._place[self._rows] = np.arange(len(rows))
        self._low, self._high = (np.zeros(len(rows), np.int64) for _ in range(2))
        begins = np.flatnonzero(np.diff(series[order], prepend=-1))
        for start, stop in zip(begins, [*begins[1:], len(rows)], strict=True):
            positions, reaches = position[order[start:stop]], reach[order[start:stop]]
            self._low[start:stop] = start + np.searchsorted(positions, positions - reaches)
            self._high[start:stop] = start + np.searchsorted(positions, positions + reaches, side="right")

    def pick(self, rows: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """One neighbour of each row, chosen by `uniform` (b,) in [0, 1); the row itself if it has no neighbour."""
        place = self._place[rows]
        low, others = self._low[place], self._high[place] - self._low[place] - 1
        chosen = low + (uniform * others).astype(np.int64)
        return self._rows[np.where(others > 0, chosen + (chosen >= place), place)]
