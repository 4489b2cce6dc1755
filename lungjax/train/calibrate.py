"""The last stage of a training: scores are calibrated to probabilities on the validation patients."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lungjax import json_files, metrics
from lungjax.errors import InputError
from lungjax.evaluation.stats import calibration
from lungjax.tasks.task import Config, Task
from lungjax.train import model_checks
from lungjax.train import workdir as folder

CALIBRATION_FILE = "calibration.json"
PEAK_PX = 5
"""Of a slice's highest predicted shares, the one that stands for it: the very highest may be a single pixel's."""


def fit_calibration(
    workdir: Path,
    task: Task,
    slices: Any,
    rows: np.ndarray,
    config: Config,
    *,
    train_rows: np.ndarray,
    write: bool,
) -> str:
    """Calibrates a run's best checkpoint.

    Args:
      workdir: the finished run's folder.
      task: the run's task; its prediction `task.calibrated` is calibrated.
      slices, rows: the validation slices, nodules or bags.
      config: the run's configuration.
      train_rows: what it was trained on. Of these and `rows`, a classifier's calibration keeps the share of positives
        as `prevalence`, and how many have a label as `prevalence_of`: its probabilities hold for that share.
      write: whether this process writes `calibration.json`.

    Returns:
      A sentence that describes the result.
    """
    from lungjax.train import checkpoint  # Here, for Orbax takes long to import, and who predicts does without.

    variables, step = checkpoint.load_best(workdir)
    calibrated, summary = fit(task, variables, slices, rows, config.data.batch_size)
    if task.name in ("classify", "diagnose"):  # How many candidates are nodules depends on the detector alone.
        calibrated |= prevalence(slices.labels(np.concatenate([train_rows, rows])))
    if write:
        folder.write_json(workdir / CALIBRATION_FILE, {**calibrated, "step": step})
    return summary


def shares_of(known: Mapping[str, Any]) -> calibration.Shares | None:
    """A segmenter's calibration of the share of readers; None where it has none."""
    return calibration.Shares(tuple(known["predicted"]), tuple(known["share"])) if "share" in known else None


def marking_of(known: Mapping[str, Any]) -> calibration.Shares | None:
    """Of a segmenter the share of readers who mark anything in a slice, by `slice_peak`; None where it has none."""
    return calibration.Shares(tuple(known["peak"]), tuple(known["marking"])) if "marking" in known else None


def slice_peak(share: jax.Array) -> jax.Array:
    """The `PEAK_PX`-th highest predicted share of each slice: (slices, rows, columns) -> (slices, 1, 1)."""
    flat = share.reshape(share.shape[0], -1)
    return jax.lax.top_k(flat, min(PEAK_PX, flat.shape[1]))[0][:, -1, None, None]


def drawn_share(share: jax.Array, shares: calibration.Shares | None, marking: calibration.Shares | None) -> jax.Array:
    """By which masks are drawn, each that of one reader: the pixels above a number drawn from between 0 and 1.

    Whether a reader marks anything at all is asked of the slice's peak: pixel by pixel, the highest share is that of
    readers who agree on a pixel, fewer than those who mark one.

    Args:
      share: float32 (slices, rows, columns), as predicted.
      shares, marking: its calibration; without `marking` it is the calibrated share.
    """
    calibrated = calibrated_share(share, shares)
    if marking is None:
        return calibrated
    peak = slice_peak(share)
    highest = jnp.maximum(calibrated_share(peak, shares), 1e-6)
    return calibrated_share(peak, marking) * jnp.minimum(calibrated / highest, 1)


def calibrated_share(share: jax.Array, knots: calibration.Shares | None) -> jax.Array:
    """Predicted shares, float32 of any shape, calibrated; as they are where there is no calibration."""
    if knots is None:
        return share
    return jnp.interp(share, jnp.array(knots.predicted, jnp.float32), jnp.array(knots.share, jnp.float32))


def prevalence(labels: np.ndarray) -> dict[str, Any]:
    """`prevalence`, the share of positives among labels 1 and 0, NaN where there is none, and how many there are."""
    known = labels[~np.isnan(labels)]
    return {"prevalence": float((known > 0.5).mean()), "prevalence_of": len(known)}


def probability(logits: np.ndarray, known: Mapping[str, Any]) -> np.ndarray:
    """Logits -> float64 probabilities, by a classifier's calibration; uncalibrated where it has none."""
    return calibration.Platt(known.get("slope", 1.0), known.get("offset", 0.0))(logits)


def fit(task: Task, variables: Any, slices: Any, rows: np.ndarray, batch_size: int) -> tuple[dict[str, Any], str]:
    """A network's calibration on the rows given, as `calibration.json` has it, and a sentence that describes it."""
    fit_one = _fit_shares if task.calibrated == "share" else _fit_platt
    return fit_one(task, variables, slices, rows, batch_size)


def _fit_platt(
    task: Task, variables: Any, slices: Any, rows: np.ndarray, batch_size: int
) -> tuple[dict[str, Any], str]:
    predicted, labels = predictions(task, variables, slices, rows, batch_size)
    logits, known = predicted["logit"], ~np.isnan(labels)
    positive = labels[known] > 0.5
    if positive.all() or not positive.any():
        line = calibration.Platt()
        summary = "not calibrated: the labels of the validation patients are all equal"
    else:
        line = calibration.fit_platt(logits[known], positive)
        summary = (
            f"calibrated on {known.sum()} of the validation patients: slope {line.slope:.3g}, offset {line.offset:.3g}"
        )
    return {**dataclasses.asdict(line), "fitted_on": int(known.sum())}, summary


def _fit_shares(
    task: Task, variables: Any, slices: Any, rows: np.ndarray, batch_size: int
) -> tuple[dict[str, Any], str]:
    from lungjax.data import loader  # Here, for Grain takes long to import, and who predicts does without.

    forward, readers = _forward(task, ("share",)), slices.dataset.readers
    of_pixels, of_slices = np.zeros((2, 3, calibration.KNOTS))
    for batch in loader.eval_batches(slices, rows, batch_size=batch_size):
        real = batch["weight"] > 0
        marked = metrics.share_of_readers(batch["readers"][real], readers=readers)
        predicted = forward(variables, dict(batch))["share"]
        of_pixels += calibration.share_sums(np.asarray(predicted)[real], marked)
        peaks, bits = np.asarray(slice_peak(predicted)).ravel()[real], np.bitwise_or.reduce(batch["readers"], (1, 2))
        of_slices += calibration.share_sums(peaks, metrics.share_of_readers(bits[real], readers=readers))
    fitted, marking = calibration.fit_shares(of_pixels), calibration.fit_shares(of_slices)
    summary = (
        f"calibrated on {len(rows)} validation slices: a predicted share of 1 becomes a share of {fitted.share[-1]:.2f}"
    )
    known = {**dataclasses.asdict(fitted), "peak": marking.predicted, "marking": marking.share}
    return {**known, "fitted_on": len(rows)}, summary


def read_calibration(workdir: Path, step: int) -> dict[str, Any]:
    """The calibration that `fit_calibration` stored for the checkpoint of this step; empty where there is none."""
    path = workdir / CALIBRATION_FILE
    if not path.is_file():
        return {}
    try:
        stored = json_files.unsealed(json_files.read(path))
        model_checks.check_calibration(stored)
        return stored if stored["step"] == step else {}
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{path} is damaged ({error!r}); run the training command again, which fits the calibration again."
        ) from error


def predictions(
    task: Task, variables: Any, slices: Any, rows: np.ndarray, batch_size: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """A task's predictions for every row, by name, each (rows, ...); and the labels (rows,): 1 or 0, NaN where a nodule
    is neither.
    """
    from lungjax.data import loader  # As above.

    forward = _forward(task)
    parts, labels = [], []
    for batch in loader.eval_batches(slices, rows, batch_size=batch_size):
        real = batch["weight"] > 0
        parts.append({name: np.asarray(part)[real] for name, part in forward(variables, dict(batch)).items()})
        labels.append(batch["label"][real])
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, np.concatenate(labels)


@functools.lru_cache(maxsize=1)
def _forward(task: Task, names: tuple[str, ...] | None = None) -> Callable[..., dict[str, jax.Array]]:
    """A jitted function (variables, batch) -> the task's predictions, all or those named; runs of a task share it."""

    def forward(variables: Any, batch: Any) -> dict[str, jax.Array]:
        predicted = task.predict(variables["params"], variables["model_state"], batch)
        return {name: predicted[name] for name in names or predicted}

    return jax.jit(forward)
