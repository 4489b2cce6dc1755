"""How readers' ratings of a nodule are spread, from the ordinal outputs of a nodule classifier."""

from __future__ import annotations

import numpy as np
from scipy.optimize import isotonic_regression

from lungjax.tasks.classify import HIGHEST, STEPS

VALUES = np.arange(1, max(HIGHEST) + 1)
"""The ratings that a reader can give; most names end at 5, internal structure at 4, calcification at 6."""


def probabilities(above: np.ndarray) -> np.ndarray:
    """The probability that a reader gives each rating.

    The network's steps are free of each other, so its chance of being above 3 may exceed that of being above 2. The
    nearest sequence that never rises is taken instead (isotonic regression, Barlow et al. 1972), which has the same
    sum: the expected rating stays what the network says.

    Args:
      above: (n, STEPS) the chance of being above each value of `lungjax.tasks.classify.STEPS`.

    Returns:
      (n, 9, 6) float64, in the order of `lungjax.ct.scan.RATING_NAMES` and of `VALUES`; 0 above the highest rating of
      a name, and of sum 1 along the last axis.
    """
    above = np.asarray(above, np.float64)
    probabilities = np.zeros((len(above), len(HIGHEST), len(VALUES)))
    for place, highest in enumerate(HIGHEST):
        columns = [number for number, (name, _) in enumerate(STEPS) if name == place]
        for row, chances in enumerate(above[:, columns]):
            falling = isotonic_regression(chances, increasing=False).x
            probabilities[row, place, :highest] = -np.diff(np.concatenate([[1.0], falling, [0.0]]))
    return np.maximum(probabilities, 0.0)


def standard_deviation(probabilities: np.ndarray) -> np.ndarray:
    """(..., 6) probabilities of the ratings `VALUES` -> (...) the standard deviation of a reader's rating."""
    mean = probabilities @ VALUES
    return np.sqrt(np.maximum(probabilities @ VALUES**2 - mean**2, 0.0))
