"""A probability made to say what it means: fitted on validation nodules, applied to others.

Sources: Guo et al., On calibration of modern neural networks (ICML 2017), temperature; Zadrozny and Elkan, Transforming
classifier scores into accurate multiclass probability estimates (KDD 2002), isotonic regression.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import scipy.optimize
import scipy.special

from lungjax.evaluate import classification

_LOG_RANGE = (-4.0, 4.0)
"""Natural logarithm of the temperatures looked at: beyond, all probabilities are 0 and 1, or all are 1/2."""


@dataclasses.dataclass(frozen=True)
class Temperature:
    """Logits are divided by it: the order of the nodules stays, and 1/2 stays 1/2."""

    temperature: float

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        """Probabilities of logits (n,), float64."""
        return scipy.special.expit(np.asarray(logits, np.float64) / self.temperature)


@dataclasses.dataclass(frozen=True, eq=False)
class Isotonic:
    """A rising function of the logit, linear between its knots and constant beyond.

    Attributes:
      logits, probability: (knots,) float64, both ascending.
    """

    logits: np.ndarray
    probability: np.ndarray

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        """Probabilities of logits (n,), float64. Nodules that it maps to one probability are no longer told apart."""
        return np.interp(np.asarray(logits, np.float64), self.logits, self.probability)


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> Temperature:
    """The temperature that makes the cross entropy least.

    Args:
      logits: (n,) finite floats.
      labels: (n,) bool, both kinds.

    Raises:
      ValueError: lengths differ, or all nodules are of one kind.
    """
    logits, labels = _checked(logits, labels)

    def cross_entropy(log_temperature: float) -> float:
        scaled = logits * np.exp(-log_temperature)
        return float(np.mean(np.logaddexp(0, scaled) - scaled * labels))

    found: Any = scipy.optimize.minimize_scalar(cross_entropy, bounds=_LOG_RANGE, method="bounded")
    return Temperature(float(np.exp(found.x)))


def fit_isotonic(logits: np.ndarray, labels: np.ndarray) -> Isotonic:
    """The rising function with the least squared error; arguments and errors as for `fit_temperature`."""
    logits, labels = _checked(logits, labels)
    knots, place, number = np.unique(logits, return_inverse=True, return_counts=True)
    share = np.bincount(place, labels) / number
    fitted = scipy.optimize.isotonic_regression(share, weights=number)
    return Isotonic(knots, np.clip(fitted.x, 0.0, 1.0))


def curve(labels: np.ndarray, probability: np.ndarray) -> list[dict[str, Any]]:
    """The reliability curve, ready for JSON: of each bin with nodules its ends, number, mean probability and share.

    Args:
      labels: (n,) bool.
      probability: (n,) in [0, 1].
    """
    bins = classification.BINS
    sums = classification.bin_sums(np.asarray(labels), np.asarray(probability, np.float64), np.ones((1, len(labels))))
    return [
        {
            "low": place / bins,
            "high": (place + 1) / bins,
            "nodules": int(number),
            "probability": float(likely / number),
            "share": float(share / number),
        }
        for place, (number, likely, share) in enumerate(zip(*sums[:, 0], strict=True))
        if number
    ]


def _checked(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    logits, labels = np.asarray(logits, np.float64), np.asarray(labels)
    if labels.dtype != bool or labels.ndim != 1 or logits.shape != labels.shape:
        raise ValueError(f"logits (n,) and bool labels (n,) wanted, got {logits.shape}, {labels.dtype} {labels.shape}")
    if labels.all() or not labels.any():
        raise ValueError("nodules of both kinds are needed to calibrate on")
    return logits, labels
