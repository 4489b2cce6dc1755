"""What an encoder's features know of nodules, while it is pretrained: probes of frozen features."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pandas as pd
from jax.sharding import Mesh

from lungjax.data import loader
from lungjax.evaluation.classification import probes
from lungjax.tasks.task import Task
from lungjax.train import mesh, step
from lungjax.train.state import TrainState

MOST = 2_000
"""Slices of the train patients that a probe learns from, and of the val patients that it is scored on, at most."""
LEAST = 20
"""Of each class, on either side; with fewer the figure would be chance."""


class Probe:
    """AUC on val patients of classifiers that learnt from the features of train patients.

    Questions, each asked where both sides have `LEAST` slices of either answer:
      nodule: whether any reader marked something. Where nearly every slice is of a nodule, `majority` instead: whether
        two or more marked the same pixel (the one reader, where one looked).
      malignancy: whether the highest median rating is 4 or 5 rather than 1 or 2; those between are left out.

    Args:
      task: one that has `features`.
      devices: the mesh.
      slices: reads the rows.
      train_rows, val_rows: of these, `MOST` are taken, spread evenly.
      batch_size: global.

    Attributes:
      said: a sentence on what is not asked and why; empty where all is.
    """

    def __init__(
        self,
        task: Task,
        devices: Mesh,
        slices: loader.Slices,
        train_rows: np.ndarray,
        val_rows: np.ndarray,
        batch_size: int,
    ):
        self._devices = devices
        self._slices = slices
        self._batch_size = batch_size
        self._step = step.make_features_step(task, devices)
        self._rows = [_spread(rows) for rows in (train_rows, val_rows)]
        index = slices.dataset.index
        self._asked, self.said = _questions([index.iloc[rows] for rows in self._rows])

    def scores(self, state: TrainState) -> dict[str, float]:
        """`knn_auc_QUESTION` and `linear_auc_QUESTION`."""
        if not self._asked:
            return {}
        train, val = (self._features(state, rows) for rows in self._rows)
        found = {}
        for name, (learnt, scored) in self._asked.items():
            (of_train, known), (of_val, truth) = (
                (features[answer >= 0], answer[answer >= 0] > 0)
                for features, answer in ((train, learnt), (val, scored))
            )
            for kind, probe in (("knn", probes.knn), ("linear", probes.linear)):
                found[f"{kind}_auc_{name}"] = probes.auc(probe(of_train, known, of_val), truth)
        return found

    def _features(self, state: TrainState, rows: np.ndarray) -> np.ndarray:
        batches = loader.eval_batches(
            self._slices,
            rows,
            batch_size=self._batch_size,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        parts = [jax.device_get(self._step(state, mesh.to_devices(batch, self._devices))) for batch in batches]
        return np.concatenate(parts)[: len(rows)]  # Copies fill the last batch alone.


def _spread(rows: np.ndarray) -> np.ndarray:
    return rows if len(rows) <= MOST else rows[np.linspace(0, len(rows) - 1, MOST).round().astype(int)]


def _questions(sides: list[pd.DataFrame]) -> tuple[dict[str, list[np.ndarray]], str]:
    """Of each question the answers (slices,) on either side: 1 yes, 0 no, -1 left out; and what is not asked."""
    asked: dict[str, list[np.ndarray]] = {}
    missing = []
    for names in (("nodule", "majority"), ("malignancy",)):
        answers = {name: [_answers(side, name) for side in sides] for name in names}
        enough = [name for name in names if all(_enough(one) for one in answers[name])]
        if enough:
            asked[enough[0]] = answers[enough[0]]
        else:
            missing.append(" or ".join(names))
    said = f"not probed: {', '.join(missing)}; too few slices of one answer (less than {LEAST})" if missing else ""
    return asked, said


def _answers(side: Any, question: str) -> np.ndarray:
    if question == "malignancy":
        rating = side["malignancy_median"].to_numpy()
        return np.where(rating >= 3.5, 1, np.where(rating <= 2.5, 0, -1))  # NaN, not rated, is neither.
    column = {"nodule": "readers_marked", "majority": "majority_px"}[question]
    return (side[column].to_numpy() > 0).astype(int)


def _enough(answers: np.ndarray) -> bool:
    return all(int(np.count_nonzero(answers == one)) >= LEAST for one in (0, 1))
