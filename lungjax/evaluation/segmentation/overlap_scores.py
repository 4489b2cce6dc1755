"""How well masks agree: Dice, IoU, precision, recall, accuracy, and what they are of empty masks."""

from __future__ import annotations

import numpy as np

SCORES = ("dice", "iou", "precision", "recall", "accuracy")
SLOTS = 4
CONVENTIONS = (
    "The model is scored against the majority: pixels marked by at least 2 readers. A reader is scored "
    "against the pixels marked by at least 2 of the other readers; a slot is an order within a nodule, "
    "not a person, and the readers' value is the mean over slots. pooled: pixels counted over all slices, "
    "then scored; pooled_own: over those slices alone where the reference of that rater is not empty, so "
    "what is marked where no two readers agree does not count. per_slice: each slice scored, then averaged "
    "over the slices where the majority of all readers is not empty, the same slices for model and readers; "
    "dice_all averages over every slice, dice_own over the slices where the reference of that reader is not "
    "empty (for the model the same as dice). Mind that where only two readers marked, each of them meets an "
    "empty reference and scores 0 in dice: dice_own is the fairer figure of a reader. Two empty masks agree: "
    "dice, iou, precision and recall are 1; where just one is empty they are 0. null: undefined."
)


CONVENTIONS_OF_ONE = (
    "The data have the mask of one reader, or one consensus, and the model is scored against that; readers is null, "
    "for there is no other to compare it with. pooled: pixels counted over all slices, then scored; pooled_own: over "
    "the slices where the mask is not empty. per_slice: each slice scored, then averaged over the slices where the "
    "mask is not empty; dice_all averages over every slice, dice_own is the same as dice. Two empty masks agree: dice, "
    "iou, precision and recall are 1; where just one is empty they are 0. null: undefined."
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


def _ratio(part: np.ndarray, whole: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    otherwise = np.broadcast_to(otherwise, part.shape).copy()
    return np.divide(part, whole, out=otherwise, where=whole != 0)


def _bits(readers: np.ndarray) -> np.ndarray:
    readers = np.asarray(readers)
    if readers.dtype != np.uint8:
        raise ValueError(f"reader masks must be uint8 bits, got {readers.dtype}")
    return readers
