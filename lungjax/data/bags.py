"""The nodules of a patient, together: what a patient's answer is learnt from."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np

from lungjax.data import splits
from lungjax.data.loader import Slices
from lungjax.data.nodules import Patches
from lungjax.data.shards import Dataset
from lungjax.data.splits import Split
from lungjax.errors import InputError

CODES = {"0": np.nan, "1": 0.0, "2": 1.0, "3": 1.0}
"""Of a diagnosis, as in TCIA's sheet: unknown, benign, primary lung cancer, metastasis."""


class Bags(Patches):
    """Reads patients as batches of bags of patches; `rows` are numbers of `patients`.

    Args:
      dataset: of patches of one nodule each.
      nodules: patches of a bag; a smaller one is filled up, of a larger one those first in the index are taken, in
        training others every time.
      labels: a CSV with `patient_id,label`, labels as `CODES`; "" takes the readers' word: a patient with a nodule
        whose median of malignancy is above 3 is positive, one whose nodules are all below is negative, others neither.

    Raises:
      InputError: as `Patches`, or the CSV cannot be read.
    """

    def __init__(self, dataset: Dataset, *, nodules: int, labels: str = ""):
        super().__init__(dataset)
        self._nodules = nodules
        ids = dataset.index["patient_id"].to_numpy()
        self.patients = np.unique(ids)
        self.members = [np.flatnonzero(ids == patient) for patient in self.patients]
        if labels:
            known = read_labels(Path(labels))
            found = [known.get(patient, np.nan) for patient in self.patients]
        else:
            found = [_of_readers(self.label[rows]) for rows in self.members]
        self.answer = np.array(found, np.float32)

    def rows(self, *, split: Split | None, slices: str, share: float = 1.0, seed: int = 0) -> np.ndarray:
        """(n,) the patients of a split who are positive or negative; a `share` of them as `splits.some_of` takes it.

        Raises:
          InputError: there is none.
        """
        del slices  # All patches of a patient.
        index = self.dataset.index
        of = index["split"].to_numpy()[[rows[0] for rows in self.members]]
        chosen = np.flatnonzero(~np.isnan(self.answer) & ((of == split) if split else True))
        if share < 1:
            some = splits.some_of(self.patients[chosen], share, seed=seed)
            chosen = chosen[np.isin(self.patients[chosen], sorted(some))]
        if not len(chosen):
            raise InputError(f"{self.dataset.path}: no patient of split {split} has a label; prepare more patients.")
        return chosen

    def index_rows(self, rows: np.ndarray) -> np.ndarray:
        """Of all patches of the patients `rows`."""
        return np.concatenate([self.members[row] for row in rows])

    def batch(self, rows: np.ndarray, uniform: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """`lungjax.data.loader.Batch` with an axis of nodules after that of the bags, and of each bag its own.

        `label`, `weight` and `row`, which is that of its first patch, are of the bag; `nodule_label` is each nodule's,
        and `inside` (b, n) is 1 for its nodules and 0 for what fills it up.
        """
        chosen = []
        for place, row in enumerate(rows):
            members = self.members[row]
            if uniform is not None and len(members) > self._nodules:
                members = np.roll(members, int(uniform[place, 0] * len(members)))
            chosen.append(members[: self._nodules])
        filled = np.array([np.resize(members, self._nodules) for members in chosen])
        found = super().batch(filled.ravel())
        bags = {name: part.reshape(*filled.shape, *part.shape[1:]) for name, part in found.items()}
        return {
            **bags,
            "nodule_label": bags["label"],
            "inside": np.array([np.arange(self._nodules) < len(members) for members in chosen], np.float32),
            "label": self.answer[rows],
            "weight": np.ones(len(rows), np.float32),
            "row": filled[:, 0].astype(np.int32),
        }


def reader(dataset: Dataset, data: Any, *, task: str) -> Slices:
    """What reads the batches of a task.

    Args:
      dataset: where the slices lie.
      data: `config.data`, of which `crop_px` and `crop_at` place crops, and `nodules` and `labels` make bags.
      task: `config.task`.

    Raises:
      InputError: as `Slices`, `Patches` and `Bags`.
    """
    if task == "classify":
        return Patches(dataset)
    if task == "diagnose":
        return Bags(dataset, nodules=data.nodules, labels=data.labels)
    return Slices(dataset, crop_px=data.crop_px, crop_at=data.crop_at)


def read_labels(path: Path) -> dict[str, float]:
    """1, 0 or NaN of each patient of a CSV with `patient_id,label`.

    Raises:
      InputError: it cannot be read, or a label is none of `CODES`.
    """
    try:
        with path.open(newline="") as stream:
            lines = list(csv.DictReader(stream))
        return {line["patient_id"]: CODES[line["label"].strip()] for line in lines}
    except (OSError, ValueError, KeyError, AttributeError, csv.Error) as error:
        raise InputError(
            f"{path} is no CSV of patient_id,label with labels {', '.join(CODES)} ({error!r}); mend config.data.labels."
        ) from error


def _of_readers(label: np.ndarray) -> float:
    """Of a patient's nodules: 1 if any is malignant, 0 if all are benign."""
    return 1.0 if (label == 1).any() else 0.0 if (label == 0).all() else np.nan
