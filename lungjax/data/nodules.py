"""Patches of one nodule each, with the readers' ratings."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lungjax.ct.scan import RATING_NAMES, READERS
from lungjax.data.loader import Slices, select_rows
from lungjax.data.shards import Dataset
from lungjax.errors import InputError

INDETERMINATE = 3.0
"""A nodule with this median rating of malignancy is neither malignant nor benign."""


def label_of(malignancy: np.ndarray) -> np.ndarray:
    """float32 labels from median ratings of malignancy (NaN where there is none): 1 above 3, 0 below, NaN neither."""
    has_label = np.isfinite(malignancy) & (malignancy != INDETERMINATE)
    return np.where(has_label, malignancy > INDETERMINATE, np.nan).astype(np.float32)


class Patches(Slices):
    """Reads rows of a data set of patches as batches of whole patches, with spacing and ratings.

    Args:
      dataset: a data set in which every slice is the patch of one nodule, from the format `nodule-patches`.

    Raises:
      InputError: its slices are not patches of one nodule each, or its HU are lost.
    """

    def __init__(self, dataset: Dataset):
        super().__init__(dataset, crop_px=0, crop_at="nodule")
        index = dataset.index
        if dataset.intensity != "hu" or dataset.manifest["source"]["format"] != "nodule-patches":
            raise InputError(
                f"{dataset.path}: the nodule classifier needs patches of one nodule each in HU; prepare a file of such "
                "patches (--format nodule-patches)."
            )
        self.spacing_mm = index["column_spacing_mm"].to_numpy(np.float32)
        self.label = label_of(index["malignancy_median"].to_numpy())
        self.ratings = _ratings(dataset)

    def labels(self, rows: np.ndarray) -> np.ndarray:
        """float32 (b,): what a calibration on `rows` is of; NaN where there is no label."""
        return self.label[rows]

    def described(self, rows: np.ndarray, corners: np.ndarray) -> dict[str, np.ndarray]:
        """What a batch of `rows` (b,) holds but for pixels."""
        return {
            **super().described(rows, corners),
            "spacing_mm": self.spacing_mm[rows],
            "label": self.label[rows],
            "ratings": self.ratings[rows],
        }


def rows_for(dataset: Dataset, patients: Mapping[str, str], split: str) -> np.ndarray:
    """(n,): rows of rated nodules of the patients of a split; `all` takes all patients.

    Args:
      dataset: a data set of patches.
      patients: the patients of a model's training with the split of each; all others count as `test`.
      split: `train`, `val`, `test` or `all`.

    Raises:
      InputError: there is no such nodule.
    """
    rows = select_rows(dataset, split=None, slices="rated")
    row_split = dataset.index["patient_id"].iloc[rows].map(lambda patient: patients.get(patient, "test")).to_numpy()
    rows = rows if split == "all" else rows[row_split == split]
    if not len(rows):
        raise InputError(f"{dataset.path}: no rated nodule of split {split}; the model was trained on all others.")
    return rows


def diameters_mm(patches: Patches, rows: np.ndarray) -> np.ndarray:
    """(n,): diameter of a circle with the mean area that the readers marked; NaN where there is no outline."""
    _, readers = patches.dataset.pixels(rows)
    diameters = []
    for bits, mm in zip(readers, patches.spacing_mm[rows], strict=True):
        slots = int(np.bitwise_or.reduce(bits, axis=None)).bit_count()
        area_mm2 = np.bitwise_count(bits).sum() * float(mm) ** 2 / slots if slots else np.nan
        diameters.append(2 * np.sqrt(area_mm2 / np.pi))
    return np.array(diameters)


def _ratings(dataset: Dataset) -> np.ndarray:
    """int32 (slices, READERS, 9): the ratings of every slice of a data set of patches."""
    ratings = np.zeros((len(dataset), READERS, len(RATING_NAMES)), np.int32)
    for row, nodules in enumerate(dataset.nodules(range(len(dataset)))):
        for nodule in nodules:
            for place, reading in enumerate(nodule["readings"][:READERS]):
                ratings[row, place] = reading["ratings"]
    return ratings
