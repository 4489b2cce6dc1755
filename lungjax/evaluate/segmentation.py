"""How well masks agree: Dice, IoU, precision, recall, accuracy; pooled, per slice, beside the readers'."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from lungjax.evaluate import bootstrap

SCORES = ("dice", "iou", "precision", "recall", "accuracy")
SLOTS = 4
CONVENTIONS = (
    "The model is scored against the majority: pixels marked by at least 2 readers. A reader is scored "
    "against the pixels marked by at least 2 of the other readers; a slot is an order within a nodule, "
    "not a person, and the readers' value is the mean over slots. pooled: pixels counted over all slices, "
    "then scored. per_slice: each slice scored, then averaged over the slices where the majority of all "
    "readers is not empty, the same slices for model and readers; dice_all averages over every slice, "
    "dice_own over the slices where the reference of that reader is not empty (for the model the same as "
    "dice). Mind that where only two readers marked, each of them meets an empty reference and scores 0 "
    "in dice: dice_own is the fairer figure of a reader. Two empty masks agree: dice, iou, precision and "
    "recall are 1; where just one is empty they are 0. null: undefined."
)
CONVENTIONS_OF_ONE = (
    "The data have the mask of one reader, or one consensus, and the model is scored against that; readers is null, "
    "for there is no other to compare it with. pooled: pixels counted over all slices, then scored. per_slice: each "
    "slice scored, then averaged over the slices where the mask is not empty; dice_all averages over every slice, "
    "dice_own is the same as dice. Two empty masks agree: dice, iou, precision and recall are 1; where just one is "
    "empty they are 0. null: undefined."
)


def majority(bits: np.ndarray, *, readers: int = SLOTS) -> np.ndarray:
    """The pixels that at least two readers marked, or the one where only one looked.

    Args:
      bits: uint8 (slices, rows, columns), bit r set where the reader in slot r marked the pixel.
      readers: how many looked at each scan.

    Returns:
      bool (slices, rows, columns).

    Raises:
      ValueError: `bits` is not uint8.
    """
    return np.bitwise_count(_bits(bits)) >= min(2, readers)


def counts(prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Pixels of each slice: true positive, false positive, false negative, true negative.

    Args:
      prediction, target: bool (slices, rows, columns).

    Returns:
      int64 (slices, 4).

    Raises:
      ValueError: the shapes differ, or a mask is not bool (a probability wants a threshold first).
    """
    prediction, target = np.asarray(prediction), np.asarray(target)
    if prediction.shape != target.shape or prediction.ndim != 3:
        raise ValueError(f"two masks (slices, rows, columns) wanted, got {prediction.shape} and {target.shape}")
    if prediction.dtype != bool or target.dtype != bool:
        raise ValueError(f"masks must be bool, got {prediction.dtype} and {target.dtype}")
    pixels = prediction.shape[1] * prediction.shape[2]
    both = np.count_nonzero(prediction & target, axis=(1, 2))
    predicted = np.count_nonzero(prediction, axis=(1, 2))
    there = np.count_nonzero(target, axis=(1, 2))
    columns = (both, predicted - both, there - both, pixels - predicted - there + both)
    return np.stack(columns, axis=-1).astype(np.int64)


def scores(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Scores from counts, of one slice or of any sum of slices.

    dice = 2 tp / (2 tp + fp + fn), iou = tp / (tp + fp + fn), precision = tp / (tp + fp),
    recall = tp / (tp + fn), accuracy = (tp + tn) / all. Where a denominator is 0: if both masks are empty
    they agree, and dice, iou, precision and recall are 1. Precision is 0 where nothing is predicted though
    something is there, recall is 0 where something is predicted though nothing is there. Accuracy of no
    pixels at all is 1.

    Args:
      counts: (..., 4) as `counts` gives them, or weighted sums of them.

    Returns:
      float64 (...) for each name in `SCORES`.
    """
    hit, false, missed, clear = np.moveaxis(np.asarray(counts, np.float64), -1, 0)
    agree = (hit + false + missed == 0).astype(np.float64)
    return {
        "dice": _ratio(2 * hit, 2 * hit + false + missed, agree),
        "iou": _ratio(hit, hit + false + missed, agree),
        "precision": _ratio(hit, hit + false, agree),
        "recall": _ratio(hit, hit + missed, agree),
        "accuracy": _ratio(hit + clear, hit + false + missed + clear, np.ones_like(hit)),
    }


def reader_counts(readers: np.ndarray, slots: int = SLOTS) -> np.ndarray:
    """Each reader against the majority of the others: pixels marked by at least two of them.

    Args:
      readers: uint8 (slices, rows, columns) as for `majority`; a bit beyond `slots` counts among the others.
      slots: how many readers to score, from bit 0 on.

    Returns:
      int64 (slots, slices, 4), columns as in `counts`.
    """
    readers = _bits(readers)
    bits = [np.uint8(1 << slot) for slot in range(slots)]
    return np.stack([counts(readers & bit != 0, majority(readers & ~bit)) for bit in bits])


def report(
    *,
    model_counts: np.ndarray,
    reader_counts: np.ndarray | None,
    patients: Sequence[str],
    resamples: int = bootstrap.RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Every figure with its 95 % interval, ready for JSON; what the figures mean is in its `conventions`.

    Args:
      model_counts: (slices, 4), the model against the majority of all readers.
      reader_counts: (slots, slices, 4), of the same slices; None where only one reader looked.
      patients: (slices,) patient ids.
      resamples, seed: of the bootstrap; model and readers are resampled with the same patients.

    Returns:
      A dict of `pooled`: each of `SCORES` as {"value", "low", "high"}; `per_slice`: the same and `dice_all`,
      `dice_own`; `readers`: both once more, each figure with "each", one value a slot, or None; `patients`,
      `slices`, `slices_marked`, `interval`, `conventions`. An undefined figure is None, never NaN.

    Raises:
      ValueError: there is no slice or no reader, or shapes disagree; both shapes are named.
    """
    model_counts, slices = np.asarray(model_counts), len(patients)
    if slices == 0 or model_counts.shape != (slices, 4):
        raise ValueError(f"model counts (slices, 4) wanted, got {model_counts.shape} for {slices} patient ids")
    alone = reader_counts is None
    reader_counts = np.zeros((0, slices, 4), np.int64) if reader_counts is None else np.asarray(reader_counts)
    if reader_counts.ndim != 3 or (len(reader_counts) == 0) != alone or reader_counts.shape[1:] != (slices, 4):
        raise ValueError(f"reader counts (slots, {slices}, 4) wanted, got {reader_counts.shape}")
    table, marked = _summable(model_counts, reader_counts)
    sums = bootstrap.patient_sums(table, patients)  # (patients, 1 + slots, columns)
    low, high = bootstrap.interval(sums, _model_and_readers, resamples=resamples, seed=seed)  # (1 or 2, figures)
    each = _figures(sums.sum(axis=0))  # (1 + slots, figures)
    value = _model_and_readers(sums.sum(axis=0))
    model, *others = (_named(*rows) for rows in zip(value, low, high, strict=True))
    readers = None if alone else others[0]
    if readers is not None:
        for place, (kind, score) in enumerate(_NAMES):
            readers[kind][score]["each"] = [_number(x) for x in each[1:, place]]
    drawn = f"95 % percentile bootstrap over patients, {resamples} resamples, seed {seed}"
    return {
        **model,
        "readers": readers,
        "patients": len(sums),
        "slices": slices,
        "slices_marked": int(np.count_nonzero(marked)),
        "interval": drawn if len(sums) > 1 else "none: one patient says nothing about the spread between patients",
        "conventions": CONVENTIONS_OF_ONE if alone else CONVENTIONS,
    }


# Figures in the order of their last axis.
_NAMES = [("pooled", s) for s in SCORES] + [("per_slice", s) for s in (*SCORES, "dice_all", "dice_own")]


def _summable(model_counts: np.ndarray, reader_counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What of a slice may be added up: (slices, 1 + slots, 18), the model first; and which slices are marked.

    Columns: 4 counts, then the 7 scores of a per-slice mean, 0 where the slice is not part of it, then 7 ones
    and zeros that say whether it is.
    """
    raters = np.concatenate([model_counts[None], reader_counts])  # (1 + slots, slices, 4)
    referenced = raters[..., 0] + raters[..., 2] > 0  # (1 + slots, slices): the rater's own reference
    marked = np.broadcast_to(referenced[0], referenced.shape)  # the majority of all readers
    score = scores(raters)
    values = np.stack([score[s] for s in SCORES] + [score["dice"], score["dice"]], axis=-1)
    part = np.stack([marked] * len(SCORES) + [np.ones_like(marked), referenced], axis=-1)
    return np.concatenate([raters, values * part, part], axis=-1).swapaxes(0, 1), marked[0]


def _figures(sums: np.ndarray) -> np.ndarray:
    """Sums (..., raters, 18) to figures (..., raters, 12) in the order of `_NAMES`."""
    score = scores(sums[..., :4])
    pooled = np.stack([score[s] for s in SCORES], axis=-1)
    per_slice = _ratio(sums[..., 4:11], sums[..., 11:], np.full((*sums.shape[:-1], 7), np.nan))
    return np.concatenate([pooled, per_slice], axis=-1)


def _model_and_readers(sums: np.ndarray) -> np.ndarray:
    """Sums (..., 1 + slots, 18) to figures (..., 2, 12): the model's, and the mean of the readers', if any."""
    figures = _figures(sums)
    if figures.shape[-2] == 1:
        return figures
    return np.stack([figures[..., 0, :], figures[..., 1:, :].mean(axis=-2)], axis=-2)


def _named(value: np.ndarray, low: np.ndarray, high: np.ndarray) -> dict[str, dict[str, dict[str, Any]]]:
    named: dict[str, dict[str, dict[str, Any]]] = {"pooled": {}, "per_slice": {}}
    for (kind, score), *figures in zip(_NAMES, value, low, high, strict=True):
        named[kind][score] = dict(zip(("value", "low", "high"), map(_number, figures), strict=True))
    return named


def _number(x: float) -> float | None:
    return float(x) if math.isfinite(x) else None  # JSON knows no NaN


def _ratio(part: np.ndarray, whole: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    otherwise = np.broadcast_to(otherwise, part.shape).copy()
    return np.divide(part, whole, out=otherwise, where=whole != 0)


def _bits(readers: np.ndarray) -> np.ndarray:
    readers = np.asarray(readers)
    if readers.dtype != np.uint8:
        raise ValueError(f"reader masks must be uint8 bits, got {readers.dtype}")
    return readers
