"""Probes of an encoder's frozen features during pretraining: what they reveal about nodules."""

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
"""The greatest number of train slices that a probe is trained on, and of val slices that it is scored on."""
LEAST = 20
"""The smallest number of slices of each class, of train and of val; with fewer, the figure would be chance."""


class Probe:
    """ROC AUC on the val patients of classifiers trained on the features of the train patients.

    Questions, each probed where train and val have at least `LEAST` slices of both kinds:
      nodule: whether any reader marked something. Where nearly every slice is of a nodule, `majority` instead: whether
        two or more readers marked the same pixel (or the only reader, where there is one).
      malignancy: whether the highest median rating is 4 or 5 rather than 1 or 2; others are left out.

    Args:
      task: a task with `features`.
      devices: the mesh.
      slices: the reader of slices.
      train_rows, val_rows: of these, `MOST` are used, spread evenly.
      batch_size: of all processes together.
      deterministic: see `lungjax.train.compiler.step_options`.

    Attributes:
      not_probed: a sentence that says which questions are not probed and why; empty where all are.
      val_rows: those that are used.
      val_features: float32 (val_rows, channels), of the state that was scored last; None before.
    """

    def __init__(
        self,
        task: Task,
        devices: Mesh,
        slices: loader.Slices,
        train_rows: np.ndarray,
        val_rows: np.ndarray,
        batch_size: int,
        *,
        deterministic: bool = False,
    ):
        self._devices = devices
        self._slices = slices
        self._batch_size = batch_size
        self._step = step.make_features_step(task, devices, deterministic=deterministic)
        self._rows = [_spread(rows) for rows in (train_rows, val_rows)]
        self.val_rows = self._rows[1]
        self.val_features: np.ndarray | None = None
        index = slices.dataset.index
        self._targets, self.not_probed = _questions([index.iloc[rows] for rows in self._rows])

    @property
    def map_features(self) -> np.ndarray | None:
        """`val_features`, if they are of several slices and all of them numbers."""
        features = self.val_features
        return features if features is not None and len(features) > 1 and np.isfinite(features).all() else None

    def scores(self, state: TrainState) -> dict[str, float]:
        """`knn_auc_QUESTION` and `linear_auc_QUESTION`."""
        self.val_features = val = self._features(state, self.val_rows)
        if not self._targets:
            return {}
        train = self._features(state, self._rows[0])
        scores = {}
        for name, (train_targets, val_targets) in self._targets.items():
            (train_features, train_labels), (val_features, val_labels) = (
                (features[targets >= 0], targets[targets >= 0] > 0)
                for features, targets in ((train, train_targets), (val, val_targets))
            )
            for kind, probe in (("knn", probes.knn), ("linear", probes.linear)):
                score = probe(train_features, train_labels, val_features)
                scores[f"{kind}_auc_{name}"] = probes.auc(score, val_labels)
        return scores

    def _features(self, state: TrainState, rows: np.ndarray) -> np.ndarray:
        batches = loader.eval_batches(
            self._slices,
            rows,
            batch_size=self._batch_size,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        parts = [jax.device_get(self._step(state, mesh.to_devices(batch, self._devices))) for batch in batches]
        return np.concatenate(parts)[: len(rows)]  # Only the last batch is padded with copies.


def _spread(rows: np.ndarray) -> np.ndarray:
    return rows if len(rows) <= MOST else rows[np.linspace(0, len(rows) - 1, MOST).round().astype(int)]


def _questions(sides: list[pd.DataFrame]) -> tuple[dict[str, list[np.ndarray]], str]:
    """By question, the targets (slices,) of train and val: 1 yes, 0 no, -1 left out; and what is not probed."""
    chosen: dict[str, list[np.ndarray]] = {}
    missing = []
    for names in (("nodule", "majority"), ("malignancy",)):
        targets = {name: [_targets(side, name) for side in sides] for name in names}
        enough = [name for name in names if all(_enough(side) for side in targets[name])]
        if enough:
            chosen[enough[0]] = targets[enough[0]]
        else:
            missing.append(" or ".join(names))
    not_probed = f"not probed: {', '.join(missing)}; fewer than {LEAST} slices of either kind" if missing else ""
    return chosen, not_probed


def _targets(side: Any, question: str) -> np.ndarray:
    if question == "malignancy":
        rating = side["malignancy_median"].to_numpy()
        return np.where(rating >= 3.5, 1, np.where(rating <= 2.5, 0, -1))  # NaN, which means not rated, is neither.
    column = {"nodule": "readers_marked", "majority": "majority_px"}[question]
    return (side[column].to_numpy() > 0).astype(int)


def _enough(targets: np.ndarray) -> bool:
    return all(int(np.count_nonzero(targets == answer)) >= LEAST for answer in (0, 1))
