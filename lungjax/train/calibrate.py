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
ABOVE = (0.1, 0.5, 0.9)
"""Shares above which a slice's pixels are counted."""


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


def slice_peak(share: jax.Array) -> jax.Array:
    """The `PEAK_PX`-th highest predicted share of each slice: (slices, rows, columns) -> (slices,)."""
    flat = share.reshape(share.shape[0], -1)
    return jax.lax.top_k(flat, min(PEAK_PX, flat.shape[1]))[0][:, -1]


def slice_features(share: jax.Array) -> jax.Array:
    """What tells how many readers mark anything: a slice's peak, as a logit, and log(1 + pixels above) each of `ABOVE`.

    (slices, rows, columns) -> float32 (slices, 1 + len(ABOVE)).
    """
    peak = jnp.clip(slice_peak(share), 1e-7, 1 - 1e-7)
    areas = [jnp.log1p(jnp.sum(share > above, axis=(1, 2)).astype(jnp.float32)) for above in ABOVE]
    return jnp.stack([jnp.log(peak) - jnp.log1p(-peak), *areas], axis=-1)


def drawn_share(share: jax.Array, known: Mapping[str, Any]) -> jax.Array:
    """By which masks are drawn, each that of one reader: the pixels above a number drawn from between 0 and 1.

    The share of readers who mark anything in a slice, times that of those among them who mark a pixel, which is 1 at
    the slice's peak. The share of all readers by itself says neither: at the peak it is that of readers who agree on a
    pixel, fewer than those who mark one.

    Args:
      share: float32 (slices, rows, columns), as predicted.
      known: the network's calibration; without `marking_weights` it is the calibrated share.
    """
    if "marking_weights" not in known:
        return calibrated_share(share, shares_of(known))
    outline = calibration.Shares(tuple(known["outline_predicted"]), tuple(known["outline"]))
    weights = jnp.array(known["marking_weights"], jnp.float32)
    marking = jax.nn.sigmoid(weights[0] + slice_features(share) @ weights[1:])[:, None, None]
    highest = jnp.maximum(calibrated_share(slice_peak(share), outline), 1e-6)[:, None, None]
    return marking * jnp.minimum(calibrated_share(share, outline) / highest, 1)


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
    of_pixels, of_outlines = np.zeros((2, 3, calibration.KNOTS))  # Of all readers; of those who mark anything.
    features, marking = [], []
    for batch in loader.eval_batches(slices, rows, batch_size=batch_size):
        real = batch["weight"] > 0
        marked = metrics.share_of_readers(batch["readers"][real], readers=readers)
        predicted = forward(variables, dict(batch))["share"]
        share = np.asarray(predicted)[real]
        of_pixels += calibration.share_sums(share, marked)
        bits = np.bitwise_or.reduce(batch["readers"][real], (1, 2))
        features.append(np.asarray(slice_features(predicted))[real])
        marking.append(metrics.share_of_readers(bits, readers=readers))
        for number in range(1, readers + 1):
            some = np.rint(marking[-1] * readers) == number
            of_outlines += number * calibration.share_sums(share[some], marked[some] * readers / number)
    fitted = calibration.fit_shares(of_pixels)
    summary = (
        f"calibrated on {len(rows)} validation slices: a predicted share of 1 becomes a share of {fitted.share[-1]:.2f}"
    )
    known: dict[str, Any] = {**dataclasses.asdict(fitted), "fitted_on": len(rows)}
    if of_outlines[0].any():
        outline = calibration.fit_shares(of_outlines)
        weights = calibration.fit_logistic(np.concatenate(features), np.concatenate(marking))
        known |= {"outline_predicted": outline.predicted, "outline": outline.share, "marking_weights": weights}
    return known, summary


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
