"""A score made a probability that means what it says: fitted on validation nodules, applied to others.

Source: Platt, Probabilistic outputs for support vector machines (1999). The slope is the inverse of a temperature (Guo
et al., ICML 2017); the offset, which a temperature alone lacks, takes up that malignant nodules are rarer, or readers'
shares lower, than the score says. It keeps the order of the nodules, as isotonic regression on few nodules does not.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import scipy.optimize
import scipy.special

from lungjax.evaluate import classification


@dataclasses.dataclass(frozen=True)
class Platt:
    """Probability of a logit: sigmoid(slope * logit + offset)."""

    slope: float = 1.0
    offset: float = 0.0

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        """Probabilities of logits, float64 of their shape."""
        return scipy.special.expit(self.slope * np.asarray(logits, np.float64) + self.offset)


def fit(logits: np.ndarray, labels: np.ndarray) -> Platt:
    """The slope, not below 0, and offset that make the cross entropy least.

    Labels are taken for (positives + 1) / (positives + 2) and 1 / (negatives + 2), as Platt does: so a few nodules that
    happen to be told apart without fault make no certainty.

    Args:
      logits: (n,) finite floats.
      labels: (n,) bool, both kinds.

    Raises:
      ValueError: lengths differ, or all nodules are of one kind.
    """
    logits, labels = np.asarray(logits, np.float64), np.asarray(labels)
    if labels.dtype != bool or labels.ndim != 1 or logits.shape != labels.shape:
        raise ValueError(f"logits (n,) and bool labels (n,) wanted, got {logits.shape}, {labels.dtype} {labels.shape}")
    if labels.all() or not labels.any():
        raise ValueError("nodules of both kinds are needed to calibrate on")
    positives, negatives = labels.sum(), (~labels).sum()
    targets = np.where(labels, (positives + 1) / (positives + 2), 1 / (negatives + 2))

    def cross_entropy(line: np.ndarray) -> tuple[float, np.ndarray]:
        scaled = line[0] * logits + line[1]
        off = (scipy.special.expit(scaled) - targets) / len(targets)
        return float(np.mean(np.logaddexp(0, scaled) - scaled * targets)), np.array([off @ logits, off.sum()])

    bounds = [(0.0, None), (None, None)]
    found: Any = scipy.optimize.minimize(cross_entropy, [1.0, 0.0], jac=True, method="L-BFGS-B", bounds=bounds)
    return Platt(float(found.x[0]), float(found.x[1]))


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
