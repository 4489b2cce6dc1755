"""How well one reader's rating of malignancy predicts the other readers': the comparison for a nodule classifier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lungjax.evaluation.classification import binary_scores

NAME = "one reader"
_NEITHER = 3
"""A median rating that is neither malignant nor benign."""
WHAT = (
    "each rating of malignancy, and the model's score of its nodule, against whether the median of the other readers' "
    "ratings is above or below 3; nodules that one reader rated and medians of 3 are left out. A reader gives one of "
    "five values, and ties count half"
)


def readings(malignancy: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every reading that can be compared with the other readings of its nodule.

    Args:
      malignancy: (nodules, readers) ratings from 1, 0 where a reader gave none.

    Returns:
      (n,) int, the nodule of each reading; (n,) int, its rating; (n,) bool, whether the median of the others is above
      3.
    """
    comparable = []
    for nodule, each in enumerate(malignancy):
        given = each[each > 0]
        for reader, rating in enumerate(given):
            others = np.delete(given, reader)
            if len(others) and (median := np.median(others)) != _NEITHER:
                comparable.append((nodule, int(rating), median > _NEITHER))
    nodules, ratings, above = zip(*comparable, strict=True) if comparable else ((), (), ())
    return np.array(nodules, np.int64), np.array(ratings, np.int64), np.array(above, bool)


def reader_figures(malignancy: np.ndarray, probability: np.ndarray, patients: Sequence[str]) -> dict[str, Any] | None:
    """The model compared with one reader; None where no reading can be compared.

    Args:
      malignancy: as for `readings`.
      probability: (nodules,), the model's.
      patients: (nodules,), patient IDs.

    Returns:
      What `binary_scores.classification_figures` returns, for `readings` instead of nodules, compared with `NAME`, and
      without the calibration figures, because the model was calibrated for other labels. `rated` is the number of their
      nodules, `what` an explanation.
    """
    nodules, ratings, labels = readings(malignancy)
    if not len(nodules):
        return None
    people = np.asarray(patients, dtype=str)[nodules].tolist()
    others = {NAME: ratings.astype(np.float64)}
    figures = binary_scores.classification_figures(
        labels=labels, probability=probability[nodules], patients=people, others=others
    )
    for name in binary_scores.CALIBRATION:
        del figures[name]
    return {**figures, "readings": figures.pop("nodules"), "rated": len(np.unique(nodules)), "what": WHAT}
