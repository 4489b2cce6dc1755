"""The last stage of a training: scores made probabilities, on the validation patients."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from lungjax import metrics
from lungjax.data import loader
from lungjax.errors import InputError
from lungjax.evaluation.stats import calibration
from lungjax.tasks.task import Config, Task
from lungjax.train import checkpoint
from lungjax.train import workdir as folder

CALIBRATION_FILE = "calibration.json"


def fit(workdir: Path, task: Task, slices: Any, rows: np.ndarray, config: Config, *, write: bool) -> str:
    """Calibrates a run's best checkpoint.

    Args:
      workdir: of the finished run.
      task: its task; the share of readers of one that has it, else the logit that `predict` begins with.
      slices, rows: the validation slices, nodules, or bags.
      config: of the run.
      write: whether this process writes `calibration.json`.

    Returns:
      A sentence on what was found.
    """
    variables, step = checkpoint.load(workdir)
    fitted = _shares if task.share is not None else _line
    known, said = fitted(task, variables, slices, rows, config.data.batch_size)
    if write:
        text = json.dumps({**known, "step": step}, indent=1, sort_keys=True) + "\n"
        folder.write_text(workdir / CALIBRATION_FILE, text)
    return said


def shares_of(known: Mapping[str, Any]) -> calibration.Shares | None:
    """That of a segmenter's calibration; None where there is none."""
    return calibration.Shares(tuple(known["predicted"]), tuple(known["share"])) if "share" in known else None


def _line(task: Task, variables: Any, slices: Any, rows: np.ndarray, batch_size: int) -> tuple[dict[str, Any], str]:
    labels, logits = scored(task.predict, variables, slices, rows, batch_size)
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
    return {**dataclasses.asdict(line), "fitted_on": int(known.sum())}, said


def _shares(task: Task, variables: Any, slices: Any, rows: np.ndarray, batch_size: int) -> tuple[dict[str, Any], str]:
    assert task.share is not None
    share, readers = _forward(task.share), slices.dataset.readers
    sums = np.zeros((3, calibration.KNOTS))
    for batch in loader.eval_batches(slices, rows, batch_size=batch_size):
        real = batch["weight"] > 0
        marked = metrics.share_of_readers(batch["readers"][real], readers=readers)
        sums += calibration.share_sums(np.asarray(share(variables, dict(batch)))[real], marked)
    found = calibration.fit_shares(sums)
    said = (
        f"calibrated on {len(rows)} validation slices: where all readers were predicted, {found.share[-1]:.2f} of them"
    )
    return {**dataclasses.asdict(found), "fitted_on": len(rows)}, said


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
    forward = _forward(predict)
    found, labels = [], []
    for batch in loader.eval_batches(slices, rows, batch_size=batch_size):
        real = batch["weight"] > 0
        found.append(np.asarray(forward(variables, dict(batch)))[real])
        labels.append(batch["label"][real])
    return np.concatenate(found), np.concatenate(labels)


def _forward(function: Any) -> Any:
    """(params, model_state, batch) -> jitted (variables, batch)."""
    return jax.jit(lambda variables, batch: function(variables["params"], variables["model_state"], batch))
