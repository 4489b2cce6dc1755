"""Patches of one nodule each, with what the readers said of it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lungjax.ct.scan import RATING_NAMES, READERS
from lungjax.data.loader import Slices, select_rows
from lungjax.data.shards import Dataset
from lungjax.errors import InputError

INDETERMINATE = 3.0
"""A nodule whose median rating of malignancy is this is neither malignant nor benign."""


def label_of(malignancy: np.ndarray) -> np.ndarray:
    """Median ratings of malignancy, NaN where there is none -> float32: 1 above 3, 0 below, NaN neither."""
    either = np.isfinite(malignancy) & (malignancy != INDETERMINATE)
    return np.where(either, malignancy > INDETERMINATE, np.nan).astype(np.float32)


class Patches(Slices):
    """Reads rows of a data set of patches as batches, with spacing and ratings; whole patches.

    Args:
      dataset: every slice of it is the patch of one nodule, as the format `nodule-patches` makes them.

    Raises:
      InputError: its slices are no patches of one nodule each, or it lost HU.
    """

    def __init__(self, dataset: Dataset):
        super().__init__(dataset, crop_px=0, crop_at="nodule")
        index = dataset.index
        if dataset.intensity != "hu" or dataset.manifest["source"]["format"] != "nodule-patches":
            raise InputError(
                f"{dataset.path}: nodules are graded on patches of one nodule each in HU; prepare a file of them "
                "(--format nodule-patches)."
            )
        self.spacing_mm = index["column_spacing_mm"].to_numpy(np.float32)
        self.label = label_of(index["malignancy_median"].to_numpy())
        self.ratings = _ratings(dataset)

    def batch(self, rows: np.ndarray, uniform: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """The batch of `rows` (b,)."""
        return {
            **super().batch(rows, uniform),
            "spacing_mm": self.spacing_mm[rows],
            "label": self.label[rows],
            "ratings": self.ratings[rows],
        }


def rows_for(dataset: Dataset, patients: Mapping[str, str], split: str) -> np.ndarray:
    """(n,) rows of rated nodules of the patients of a split; `all` takes everyone.

    Args:
      dataset: of patches.
      patients: of a model's training, and the split of each; who is not among them was never seen: `test`.
      split: `train`, `val`, `test` or `all`.

    Raises:
      InputError: there is none.
    """
    rows = select_rows(dataset, split=None, slices="rated")
    of = dataset.index["patient_id"].iloc[rows].map(lambda patient: patients.get(patient, "test")).to_numpy()
    rows = rows if split == "all" else rows[of == split]
    if not len(rows):
        raise InputError(f"{dataset.path}: no rated nodule of split {split}; the model was trained on all others.")
    return rows


def diameters_mm(patches: Patches, rows: np.ndarray) -> np.ndarray:
    """(n,) diameter of the circle of the mean area that the readers marked; NaN where no outline is known."""
    _, readers = patches.dataset.pixels(rows)
    found = []
    for bits, mm in zip(readers, patches.spacing_mm[rows], strict=True):
        slots = int(np.bitwise_or.reduce(bits, axis=None)).bit_count()
        area_mm2 = np.bitwise_count(bits).sum() * float(mm) ** 2 / slots if slots else np.nan
        found.append(2 * np.sqrt(area_mm2 / np.pi))
    return np.array(found)


def _ratings(dataset: Dataset) -> np.ndarray:
    """int32 (slices, READERS, 9), of every slice of a data set of patches."""
    ratings = np.zeros((len(dataset), READERS, len(RATING_NAMES)), np.int32)
    for row, nodules in enumerate(dataset.nodules(range(len(dataset)))):
        for nodule in nodules:
            for place, reading in enumerate(nodule["readings"][:READERS]):
                ratings[row, place] = reading["ratings"]
    return ratings
