"""A score made a probability that means what it says: fitted on validation nodules, applied to others.

Source: Platt, Probabilistic outputs for support vector machines (1999). The slope is the inverse of a temperature (Guo
et al., ICML 2017); the offset, which a temperature alone lacks, takes up that malignant nodules are rarer, or readers'
shares lower, than the score says. It keeps the order of the nodules, as isotonic regression on few nodules does not.

Validation patients are few, so the line starts from the score as it is and moves as far as they give reason to: by a
normal prior on the logarithm of the slope and on the offset, in place of the targets that Platt rounds.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import scipy.optimize
import scipy.special

from lungjax.evaluate import classification

PRIOR = 0.3
"""Standard deviation of the logarithm of the slope, and of the offset. Of 0.15, 0.3, 0.5 and Platt's way the one of the
least cross entropy in the cross-validation of `configs/diagnose.py`."""


@dataclasses.dataclass(frozen=True)
class Platt:
    """Probability of a logit: sigmoid(slope * logit + offset)."""

    slope: float = 1.0
    offset: float = 0.0

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        """Probabilities of logits, float64 of their shape."""
        return scipy.special.expit(self.slope * np.asarray(logits, np.float64) + self.offset)


def fit(logits: np.ndarray, labels: np.ndarray) -> Platt:
    """The slope, above 0, and offset that are likeliest after these nodules.

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

    def unlikely(line: np.ndarray) -> tuple[float, np.ndarray]:
        """The negative logarithm of how likely a line is, by log slope and offset, and its gradient."""
        slope = np.exp(line[0])
        scaled = slope * logits + line[1]
        off = scipy.special.expit(scaled) - labels
        entropy = np.sum(np.logaddexp(0, scaled) - scaled * labels)
        prior = line / PRIOR**2
        return float(entropy + 0.5 * line @ prior), np.array([slope * (off @ logits), off.sum()]) + prior

    found: Any = scipy.optimize.minimize(unlikely, [0.0, 0.0], jac=True, method="L-BFGS-B")
    return Platt(float(np.exp(found.x[0])), float(found.x[1]))


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
