"""A score made a probability that means what it says: fitted on validation patients, applied to others.

Of nodules and patients, which are few, a line. Source: Platt, Probabilistic outputs for support vector machines (1999).
The slope is the inverse of a temperature (Guo et al., ICML 2017); the offset, which a temperature alone lacks, takes up
that malignant nodules are rarer than the score says. It keeps the order of the nodules. It starts from the score as it
is and moves as far as the nodules give reason to: by a normal prior on the logarithm of the slope and on the offset, in
place of the targets that Platt rounds.

Of pixels, which are many, whatever rises: isotonic regression (Zadrozny and Elkan, KDD 2002) of the share of readers
who marked a pixel on the share that was predicted.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import scipy.optimize
import scipy.special

from lungjax.evaluation.classification import binary_scores

PRIOR = 0.3
"""Standard deviation of the logarithm of the slope, and of the offset: the slope stays within a factor of two or so,
unless some hundred nodules speak for another."""
KNOTS = 16
"""Of the shares: bins of the logit, between `-_LOGIT` and `_LOGIT`."""
_LOGIT = 10.0


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


@dataclasses.dataclass(frozen=True)
class Shares:
    """The share of readers who mark a pixel, by the predicted one: straight lines between knots, both rising."""

    predicted: tuple[float, ...]
    share: tuple[float, ...]

    def __call__(self, predicted: np.ndarray) -> np.ndarray:
        """Shares of predicted ones, float64 of their shape."""
        return np.interp(predicted, self.predicted, self.share)


def share_sums(predicted: np.ndarray, share: np.ndarray) -> np.ndarray:
    """What of pixels may be added up for `fit_shares`.

    Args:
      predicted, share: of readers who would mark, and who marked, each pixel, of one shape, in [0, 1].

    Returns:
      float64 (3, KNOTS): in bins of the predicted one's logit the number of pixels, and the sums of both shares.
    """
    flat = np.asarray(predicted, np.float64).ravel()
    with np.errstate(divide="ignore"):
        logits = scipy.special.logit(flat)
    place = np.clip((logits / _LOGIT + 1) / 2 * KNOTS, 0, KNOTS - 1).astype(np.int64)
    weights = (None, flat, np.asarray(share, np.float64).ravel())
    return np.stack([np.bincount(place, one, KNOTS) for one in weights]).astype(np.float64)


def fit_shares(sums: np.ndarray) -> Shares:
    """The rising line that is nearest to the mean share of readers in each bin, by their pixels.

    Args:
      sums: of all pixels, from `share_sums`; of one at least.
    """
    number, likely, share = sums[:, sums[0] > 0]
    fitted: Any = scipy.optimize.isotonic_regression(share / number, weights=number)
    predicted, risen = likely / number, fitted.x
    ends = [0.0, *predicted, 1.0], [risen[0], *risen, risen[-1]]
    return Shares(*(tuple(map(float, end)) for end in ends))


def curve(labels: np.ndarray, probability: np.ndarray) -> list[dict[str, Any]]:
    """The reliability curve, ready for JSON: of each bin with nodules its ends, number, mean probability and share.

    Args:
      labels: (n,) bool.
      probability: (n,) in [0, 1].
    """
    bins = binary_scores.BINS
    sums = binary_scores.bin_sums(np.asarray(labels), np.asarray(probability, np.float64), np.ones((1, len(labels))))
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
