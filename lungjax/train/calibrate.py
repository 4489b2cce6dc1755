"""The last stage of a grader's training: its scores made probabilities, on the validation patients."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from lungjax.data import loader
from lungjax.evaluate import calibration
from lungjax.lidc.scan import InputError
from lungjax.tasks.task import Config
from lungjax.train import checkpoint

CALIBRATION_FILE = "calibration.json"


def fit(workdir: Path, predict: Any, slices: Any, rows: np.ndarray, config: Config) -> str:
    """Fits Platt's line to a run's best checkpoint and writes `calibration.json`.

    Args:
      workdir: of the finished run.
      predict: the task's.
      slices, rows: the validation nodules, or bags.
      config: of the run.

    Returns:
      A sentence on what was found.
    """
    variables, step = checkpoint.load(workdir)
    labels, logits = scored(predict, variables, slices, rows, config.data.batch_size)
    known = ~np.isnan(labels)
    positive = labels[known] > 0.5
    if positive.all() or not positive.any():
        line = calibration.Platt()
        said = "no calibration: the validation patients are all of one kind"
    else:
        line = calibration.fit(logits[known], positive)
        said = (
            f"calibrated on {known.sum()} of the validation patients: slope {line.slope:.3g}, offset {line.offset:.3g}"
        )
    found = {**dataclasses.asdict(line), "step": step, "fitted_on": int(known.sum())}
    temporary = workdir / (CALIBRATION_FILE + ".tmp")
    temporary.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    temporary.replace(workdir / CALIBRATION_FILE)
    return said


def read(workdir: Path, step: int) -> dict[str, Any]:
    """What `fit` found of the checkpoint of this step; empty where it did not."""
    path = workdir / CALIBRATION_FILE
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text())
        return found if found["step"] == step else {}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is damaged ({error!r}); start the run's command again, which fits it anew."
        ) from error


def scored(
    predict: Any, variables: Any, slices: Any, rows: np.ndarray, batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Labels (rows,), 1 or 0, NaN where a nodule is neither, and logits (rows,)."""
    predicted, labels = predictions(predict, variables, slices, rows, batch_size)
    return labels, predicted[:, 0]


def predictions(
    predict: Any, variables: Any, slices: Any, rows: np.ndarray, batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """What a task's `predict` says of every row, (rows, outputs), and the labels (rows,)."""
    forward = jax.jit(lambda variables, batch: predict(variables["params"], variables["model_state"], batch))
    found, labels = [], []
    for batch in loader.eval_batches(slices, rows, batch_size=batch_size):
        real = batch["weight"] > 0
        found.append(np.asarray(forward(variables, dict(batch)))[real])
        labels.append(batch["label"][real])
    return np.concatenate(found), np.concatenate(labels)
