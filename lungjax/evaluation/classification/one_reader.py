"""How well one reader's rating of malignancy tells what the other readers say: what a grader is to be held against."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lungjax.evaluation.classification import binary_scores

NAME = "one reader"
_NEITHER = 3
"""Median of ratings that is neither malignant nor benign."""
WHAT = (
    "each rating of malignancy, and the model's score of its nodule, against the median of the other readers' ratings, "
    "above 3 or below; nodules of one reader and medians of 3 are left out. A reader says one of five values, and ties "
    "count half"
)


def readings(malignancy: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every reading that can be held against the others of its nodule.

    Args:
      malignancy: (nodules, readers) ratings from 1, 0 where a reader gave none.

    Returns:
      (n,) int the nodule of each, (n,) int its rating, (n,) bool whether the median of the others is above 3.
    """
    found = []
    for nodule, each in enumerate(malignancy):
        given = each[each > 0]
        for reader, rating in enumerate(given):
            others = np.delete(given, reader)
            if len(others) and (median := np.median(others)) != _NEITHER:
                found.append((nodule, int(rating), median > _NEITHER))
    nodules, ratings, above = zip(*found, strict=True) if found else ((), (), ())
    return np.array(nodules, np.int64), np.array(ratings, np.int64), np.array(above, bool)


def reader_figures(malignancy: np.ndarray, probability: np.ndarray, patients: Sequence[str]) -> dict[str, Any] | None:
    """The model beside one reader; None where no nodule has two ratings.

    Args:
      malignancy: as for `readings`.
      probability: (nodules,) the model's.
      patients: (nodules,) patient ids.

    Returns:
      As `classification.report`, of readings instead of nodules and without calibration, which is for other labels;
      compared with `NAME`; `rated` is how many nodules they are of, `what` a sentence.
    """
    nodules, ratings, labels = readings(malignancy)
    if not len(nodules):
        return None
    people = np.asarray(patients, dtype=str)[nodules].tolist()
    others = {NAME: ratings.astype(np.float64)}
    found = binary_scores.classification_figures(
        labels=labels, probability=probability[nodules], patients=people, others=others
    )
    for name in binary_scores.CALIBRATION:
        del found[name]
    return {**found, "readings": found.pop("nodules"), "rated": len(np.unique(nodules)), "what": WHAT}
