"""The majority of readers, Dice and related scores, also of empty masks: one definition for host and device.

Every function takes NumPy or JAX arrays, including traced ones, and computes with the library of its argument: in int64
and float64 on the host, in int32 and float32 on the device. JAX is not imported here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from lungjax.ct.scan import READERS

if TYPE_CHECKING:
    import jax

Array = TypeVar("Array", np.ndarray, "jax.Array")

MAJORITY_READERS = 2
"""The number of readers that make a majority, also out of four, as in most publications on LIDC-IDRI. A single
reader is the majority."""
SCORES = ("dice", "iou", "precision", "recall", "accuracy")


def majority(bits: Array, *, readers: int = READERS) -> Array:
    """The pixels that at least two readers marked, or the only reader where there is one.

    Args:
      bits: uint8 of any shape; bit r is set where the reader in slot r marked the pixel.
      readers: the number of readers of each scan.

    Returns:
      bool, of the same shape.

    Raises:
      ValueError: `bits` is not uint8.
    """
    return majority_of_votes(_votes(bits), readers=readers)


def majority_of_votes(votes: Array, *, readers: int = READERS) -> Array:
    """`majority` from `votes`, the number of readers who marked each pixel: integers of any shape."""
    return votes >= min(MAJORITY_READERS, readers)


def share_of_readers(bits: Array, *, readers: int = READERS) -> Array:
    """The share of the readers who marked each pixel, floats in [0, 1]; arguments as for `majority`.

    A nodule may have more marks than there are readers, because a slot is not a person: the share is then 1.
    """
    library = _library(bits)
    return library.minimum(library.asarray(_votes(bits), dtype=float) / readers, 1.0)


def confusion(prediction: Array, target: Array) -> Array:
    """The pixels of each slice that are true positive, false positive, false negative, true negative.

    On the device, int32 holds the sum over 8,192 slices of 512 x 512; add up more slices on the host.

    Args:
      prediction, target: bool (slices, rows, columns).

    Returns:
      int64, or int32 on the device, (slices, 4).

    Raises:
      ValueError: the shapes differ, or a mask is not bool (apply a threshold to a probability first).
    """
    if prediction.shape != target.shape or prediction.ndim != 3:
        raise ValueError(f"expected two masks (slices, rows, columns), got {prediction.shape} and {target.shape}")
    if prediction.dtype != bool or target.dtype != bool:
        raise ValueError(f"masks must be bool, got {prediction.dtype} and {target.dtype}")
    library = _library(prediction)
    both, predicted, marked = (
        library.count_nonzero(mask, axis=(1, 2)) for mask in (prediction & target, prediction, target)
    )
    pixels = prediction.shape[1] * prediction.shape[2]
    return library.stack([both, predicted - both, marked - both, pixels - predicted - marked + both], axis=-1)


def scores(counts: Array) -> dict[str, Array]:
    """Scores from confusion counts, of one slice or of the sum over slices.

    dice = 2 tp / (2 tp + fp + fn), iou = tp / (tp + fp + fn), precision = tp / (tp + fp),
    recall = tp / (tp + fn), accuracy = (tp + tn) / all. Where a denominator is 0: two empty masks agree, so dice, iou,
    precision and recall are 1. Precision is 0 where the prediction is empty and the reference is not, recall is 0 where
    the reference is empty and the prediction is not. Accuracy without any pixel is 1. No score is ever NaN.

    Args:
      counts: (..., 4), from `confusion`, or weighted sums of these.

    Returns:
      By each name in `SCORES`: float64, or float32 on the device, (...).
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
      total: the number of pixels in one mask plus that in the other.
    """
    return _fraction(2 * shared, total, 1.0)


def iou(shared: Array, union: Array) -> Array:
    """shared / union; 1 where both masks are empty.

    Args:
      shared: pixels that are in both masks, arrays of any shape.
      union: pixels that are in at least one mask.
    """
    return _fraction(shared, union, 1.0)


def binned_auc(negatives: Array, positives: Array) -> Array:
    """Area under the ROC curve of a binned score: how often a positive scores higher than a negative; ties count half.

    Args:
      negatives, positives: (bins,), the number or weight of each class in bins of rising score.

    Returns:
      A scalar in [0, 1]; 0.5 where a class is missing.
    """
    lower = negatives.cumsum() - negatives / 2  # For each bin, the negatives below it and half of its own.
    return _fraction((positives * lower).sum(), positives.sum() * negatives.sum(), 0.5)


def _fraction(part: Any, whole: Any, otherwise: Any) -> Any:
    """part / whole, and `otherwise` where the whole is 0."""
    library = _library(whole)
    nonzero = whole != 0
    return library.where(nonzero, part / library.where(nonzero, whole, 1), otherwise)


def _votes(bits: Array) -> Array:
    if bits.dtype != np.uint8:
        raise ValueError(f"reader masks must be uint8 bits, got {bits.dtype}")
    return _library(bits).bitwise_count(bits)


def _library(array: Any) -> Any:
    """`numpy` or `jax.numpy`, by the Python array API standard."""
    return array.__array_namespace__()
