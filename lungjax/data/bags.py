"""Bags of all nodules of a patient, for multiple-instance learning of the patient's label."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lungjax import paths, tables
from lungjax.data import candidates, mixture, splits
from lungjax.data.context import Context
from lungjax.data.loader import Slices
from lungjax.data.mixture import Mixture
from lungjax.data.nodules import Patches
from lungjax.data.shards import Dataset
from lungjax.data.splits import Split
from lungjax.errors import InputError

CODES = {"0": np.nan, "1": 0.0, "2": 1.0, "3": 1.0}
"""Labels by the codes of a diagnosis in TCIA's table: unknown, benign, primary lung cancer, metastasis."""


class Bags(Patches):
    """Reads patients as batches of bags of patches; `rows` are indices into `patients`.

    Args:
      dataset: a data set of patches of one nodule each.
      nodules: patches per bag; smaller bags are padded. From larger ones the first in the index are taken; in training
        the start is random.
      labels: a CSV with `patient_id,label`, with labels as in `CODES`. If "", the labels come from the readers: a
        patient with a nodule whose median malignancy is above 3 is positive, a patient whose nodules are all below 3 is
        negative, and others have no label.

    Raises:
      InputError: as for `Patches`, or the CSV cannot be read.
    """

    def __init__(self, dataset: Dataset, *, nodules: int, labels: str = ""):
        super().__init__(dataset)
        self._nodules = nodules
        ids = dataset.index["patient_id"].to_numpy()
        self.patients = np.unique(ids)
        self.members = [np.flatnonzero(ids == patient) for patient in self.patients]
        if labels:
            csv_labels = read_labels(paths.local(labels))
            patient_labels = [csv_labels.get(patient, np.nan) for patient in self.patients]
        else:
            patient_labels = [_label_from_nodules(self.label[rows]) for rows in self.members]
        self.patient_label = np.array(patient_labels, np.float32)

    def rows(self, *, split: Split | None, slices: str, share: float = 1.0, seed: int = 0) -> np.ndarray:
        """(n,): the patients of a split who have a label; or a `share` of them, see `splits.sample_patients`.

        Raises:
          InputError: there is no such patient.
        """
        del slices  # A bag has all patches of a patient.
        index = self.dataset.index
        patient_split = index["split"].to_numpy()[[rows[0] for rows in self.members]]
        chosen = np.flatnonzero(~np.isnan(self.patient_label) & ((patient_split == split) if split else True))
        if share < 1:
            sample = splits.sample_patients(self.patients[chosen], share, seed=seed)
            chosen = chosen[np.isin(self.patients[chosen], sorted(sample))]
        if not len(chosen):
            raise InputError(f"{self.dataset.path}: no patient of split {split} has a label; prepare more patients.")
        return chosen

    def index_rows(self, rows: np.ndarray) -> np.ndarray:
        """The index rows of all patches of the patients `rows`."""
        return np.concatenate([self.members[row] for row in rows])

    def labels(self, rows: np.ndarray) -> np.ndarray:
        """float32 (b,): the labels of the patients `rows`."""
        return self.patient_label[rows]

    def batch(self, rows: np.ndarray, uniform: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """A `lungjax.data.loader.Batch` whose arrays have an axis of nodules after that of the bags.

        `label`, `weight` and `row`, the row of the first patch, have one value per bag. `nodule_label` has one per
        nodule, and `inside` (b, n) is 1 for the bag's nodules and 0 for padding.
        """
        padded = self._padded(rows, uniform)
        return self._bags(rows, padded, super().batch(padded.ravel()))

    def plan(self, rows: np.ndarray, uniform: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """The `lungjax.data.loader.Plan` of that batch; `place` has an axis of nodules, too."""
        padded = self._padded(rows, uniform)
        return self._bags(rows, padded, super().plan(padded.ravel()))

    def _padded(self, rows: np.ndarray, uniform: np.ndarray | None) -> np.ndarray:
        """(b, n): the patches of each bag, repeated to fill it."""
        chosen = []
        for place, row in enumerate(rows):
            members = self.members[row]
            if uniform is not None and len(members) > self._nodules:
                members = np.roll(members, int(uniform[place, 0] * len(members)))
            chosen.append(members[: self._nodules])
        return np.array([np.resize(members, self._nodules) for members in chosen])

    def _bags(self, rows: np.ndarray, padded: np.ndarray, patches: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The batch of patches as bags."""
        bags = {name: values.reshape(*padded.shape, *values.shape[1:]) for name, values in patches.items()}
        lengths = np.array([len(self.members[row]) for row in rows])
        return {
            **bags,
            "nodule_label": bags["label"],
            "inside": (np.arange(self._nodules) < lengths[:, None]).astype(np.float32),
            "label": self.patient_label[rows],
            "weight": np.ones(len(rows), np.float32),
            "row": padded[:, 0].astype(np.int32),
        }


def make_reader(dataset: Dataset, data: Any, *, task: str) -> Slices:
    """The object that reads the batches of a task.

    Args:
      dataset: the data set with the slices.
      data: `config.data`; `crop_px` and `crop_at` place crops, `nodules` and `labels` define bags.
      task: `config.task`.

    Raises:
      InputError: as for `Slices`, `Patches` and `Bags`.
    """
    if task == "classify":
        return Patches(dataset)
    if task == "sift":
        return candidates.Stacks(dataset)
    if task == "diagnose":
        return Bags(dataset, nodules=data.nodules, labels=data.labels)
    context = Context.of({"data": data})
    return Slices(dataset, crop_px=data.crop_px, crop_at=data.crop_at, marks=task != "pretrain", context=context)


def make_mixture(data: Any, *, task: str) -> Mixture | None:
    """The reader of `config.data.parts`, which training then draws from; None where there are no parts.

    Raises:
      InputError: as for `lungjax.data.mixture.open_parts`, or the task takes no parts.
    """
    if not data.get("parts"):
        return None
    if task == "sift":
        return mixture.open_parts(data.parts, lambda dataset, part: candidates.Stacks(dataset))
    if task != "segment":
        raise InputError(f"config.data.parts: the task {task} draws from one data set; name it by config.data.path.")
    context = Context.of({"data": data})
    return mixture.open_parts(
        data.parts, lambda dataset, part: Slices(dataset, crop_px=data.crop_px, crop_at=part.crop_at, context=context)
    )


def read_labels(path: Path) -> dict[str, float]:
    """The label of each patient, 1, 0 or NaN, from a table with the columns `patient_id` and `label`.

    Raises:
      InputError: it cannot be read, lacks a column, a label is not in `CODES`, or a patient has two labels.
    """
    labels: dict[str, str] = {}
    for line, row in tables.read(path, ("patient_id", "label")):
        patient, label = row["patient_id"], row["label"]
        if label not in CODES:
            raise InputError(f"{path}, line {line}: the label {label!r} is none of {', '.join(CODES)}; correct it.")
        if labels.setdefault(patient, label) != label:
            raise InputError(f"{path}, line {line}: {patient} has the label {label}, and {labels[patient]} above.")
    return {patient: CODES[label] for patient, label in labels.items()}


def _label_from_nodules(label: np.ndarray) -> float:
    """A patient's label from the labels of the nodules: 1 if any is malignant, 0 if all are benign, else NaN."""
    return 1.0 if (label == 1).any() else 0.0 if (label == 0).all() else np.nan
