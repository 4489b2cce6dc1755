"""Majority of the readers, Dice and its like, and what they are of empty masks: one definition for host and device.

Every function takes arrays of NumPy or of JAX, traced ones too, and computes with the library of its argument: on the
host in int64 and float64, on the device in int32 and float32. JAX is not imported here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from lungjax.ct.scan import READERS

if TYPE_CHECKING:
    import jax

Array = TypeVar("Array", np.ndarray, "jax.Array")

MAJORITY_READERS = 2
"""How many readers make a majority, also of four, as most of what is published on LIDC-IDRI has it; where only one
looked, that one."""
SCORES = ("dice", "iou", "precision", "recall", "accuracy")


def majority(bits: Array, *, readers: int = READERS) -> Array:
    """The pixels that at least two readers marked, or the one where only one looked.

    Args:
      bits: uint8 of any shape; bit r is set where the reader in slot r marked the pixel.
      readers: how many looked at each scan.

    Returns:
      bool of that shape.

    Raises:
      ValueError: `bits` is not uint8.
    """
    return majority_of_votes(_votes(bits), readers=readers)


def majority_of_votes(votes: Array, *, readers: int = READERS) -> Array:
    """`majority` where it is known how many readers marked each pixel: `votes`, integers of any shape."""
    return votes >= min(MAJORITY_READERS, readers)


def share_of_readers(bits: Array, *, readers: int = READERS) -> Array:
    """The share of the readers who marked each pixel, arguments as for `majority`; floats in [0, 1].

    A nodule may have more marks than there are readers, for a slot is no person: the share is 1 then.
    """
    library = _library(bits)
    return library.minimum(library.asarray(_votes(bits), dtype=float) / readers, 1.0)


def confusion(prediction: Array, target: Array) -> Array:
    """Pixels of each slice: true positive, false positive, false negative, true negative.

    Exact: int32 on the device holds the sum over 8,192 slices of 512 x 512; add up longer runs on the host.

    Args:
      prediction, target: bool (slices, rows, columns).

    Returns:
      int64, or int32 on the device, (slices, 4).

    Raises:
      ValueError: the shapes differ, or a mask is not bool (a probability wants a threshold first).
    """
    if prediction.shape != target.shape or prediction.ndim != 3:
        raise ValueError(f"two masks (slices, rows, columns) wanted, got {prediction.shape} and {target.shape}")
    if prediction.dtype != bool or target.dtype != bool:
        raise ValueError(f"masks must be bool, got {prediction.dtype} and {target.dtype}")
    library = _library(prediction)
    both, predicted, there = (
        library.count_nonzero(mask, axis=(1, 2)) for mask in (prediction & target, prediction, target)
    )
    pixels = prediction.shape[1] * prediction.shape[2]
    return library.stack([both, predicted - both, there - both, pixels - predicted - there + both], axis=-1)


def scores(counts: Array) -> dict[str, Array]:
    """Scores from confusion counts, of one slice or of any sum of slices.

    dice = 2 tp / (2 tp + fp + fn), iou = tp / (tp + fp + fn), precision = tp / (tp + fp),
    recall = tp / (tp + fn), accuracy = (tp + tn) / all. Where a denominator is 0: if both masks are empty
    they agree, and dice, iou, precision and recall are 1. Precision is 0 where nothing is predicted though
    something is there, recall is 0 where something is predicted though nothing is there. Accuracy of no
    pixels at all is 1. No score is ever NaN.

    Args:
      counts: (..., 4) as `confusion` gives them, or weighted sums of them.

    Returns:
      float64, or float32 on the device, (...) for each name in `SCORES`.
    """
    library = _library(counts)
    hit, false, missed, clear = library.moveaxis(library.asarray(counts, dtype=float), -1, 0)
    agree = library.where(hit + false + missed == 0, 1.0, 0.0)
    return {
        "dice": dice(hit, 2 * hit + false + missed),
        "iou": iou(hit, hit + false + missed),
        "precision": _fraction(hit, hit + false, agree),
        "recall": _fraction(hit, hit + missed, agree),
        "accuracy": _fraction(hit + clear, hit + false + missed + clear, 1.0),
    }


def dice(shared: Array, total: Array) -> Array:
    """2 shared / total; 1 where both masks are empty.

    Args:
      shared: pixels that are in both masks, arrays of any shape.
      total: the pixels of one and the pixels of the other, added.
    """
    return _fraction(2 * shared, total, 1.0)


def iou(shared: Array, union: Array) -> Array:
    """shared / union; 1 where both masks are empty.

    Args:
      shared: pixels that are in both masks, arrays of any shape.
      union: pixels that are in one at least.
    """
    return _fraction(shared, union, 1.0)


def binned_auc(negatives: Array, positives: Array) -> Array:
    """Area under the ROC curve of a score in bins: how often a positive has the higher one, ties half.

    Args:
      negatives, positives: (bins,) how many there are of each kind in bins of rising score; may be weights.

    Returns:
      A scalar in [0, 1]; 0.5 where one kind is missing.
    """
    lower = negatives.cumsum() - negatives / 2  # Of each bin the negatives below it, and half of its own.
    return _fraction((positives * lower).sum(), positives.sum() * negatives.sum(), 0.5)


def _fraction(part: Any, whole: Any, otherwise: Any) -> Any:
    """`otherwise` where the whole is 0."""
    library = _library(whole)
    some = whole != 0
    return library.where(some, part / library.where(some, whole, 1), otherwise)


def _votes(bits: Array) -> Array:
    if bits.dtype != np.uint8:
        raise ValueError(f"reader masks must be uint8 bits, got {bits.dtype}")
    return _library(bits).bitwise_count(bits)


def _library(array: Any) -> Any:
    """`numpy` or `jax.numpy`, as the array itself says it (Python array API standard)."""
    return array.__array_namespace__()
