"""Calibration, which turns a score into a probability: fitted on validation patients, applied to others.

For nodules and patients, of which there are few, a slope and an offset of the logit. Source: Platt, Probabilistic
outputs for support vector machines (1999). The slope is the inverse of a temperature (Guo et al., ICML 2017); the
offset, which a temperature alone lacks, corrects for malignant nodules being rarer than the score implies. The order of
the nodules stays the same. A normal prior on the logarithm of the slope and on the offset, instead of Platt's smoothed
targets, keeps the result near the uncalibrated score unless the nodules give evidence for more.

For pixels, of which there are many, any rising function: isotonic regression (Zadrozny and Elkan, KDD 2002) of the
share of readers who marked a pixel on the predicted share. For slices, logistic regression of the share of readers who
marked anything on what is predicted of the slice.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import scipy.optimize
import scipy.special

from lungjax.evaluation.classification import binary_scores

PRIOR = 0.3
"""Standard deviation of the logarithm of the slope, and of the offset: the slope stays within a factor of about two
unless a few hundred nodules are evidence for another."""
KNOTS = 16
"""The number of bins of the predicted share's logit, between `-_LOGIT` and `_LOGIT`."""
_LOGIT = 10.0


@dataclasses.dataclass(frozen=True)
class Platt:
    """Probability of a logit: sigmoid(slope * logit + offset)."""

    slope: float = 1.0
    offset: float = 0.0

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        """Probabilities for logits: float64, of the same shape."""
        return scipy.special.expit(self.slope * np.asarray(logits, np.float64) + self.offset)


def fit_platt(logits: np.ndarray, labels: np.ndarray) -> Platt:
    """The slope, above 0, and offset of the greatest posterior probability given these nodules.

    Args:
      logits: (n,) finite floats.
      labels: (n,) bool, some True and some False.

    Raises:
      ValueError: lengths differ, or all labels are equal.
    """
    logits, labels = np.asarray(logits, np.float64), np.asarray(labels)
    if labels.dtype != bool or labels.ndim != 1 or logits.shape != labels.shape:
        raise ValueError(
            f"expected logits (n,) and bool labels (n,), got {logits.shape}, {labels.dtype} {labels.shape}"
        )
    if labels.all() or not labels.any():
        raise ValueError("calibration needs nodules of both labels")

    def negative_log_posterior(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        """Of (log slope, offset), and its gradient."""
        slope = np.exp(parameters[0])
        scaled = slope * logits + parameters[1]
        errors = scipy.special.expit(scaled) - labels
        entropy = np.sum(np.logaddexp(0, scaled) - scaled * labels)
        prior = parameters / PRIOR**2
        gradient = np.array([slope * (errors @ logits), errors.sum()]) + prior
        return float(entropy + 0.5 * parameters @ prior), gradient

    fitted: Any = scipy.optimize.minimize(negative_log_posterior, [0.0, 0.0], jac=True, method="L-BFGS-B")
    return Platt(float(np.exp(fitted.x[0])), float(fitted.x[1]))


@dataclasses.dataclass(frozen=True)
class Shares:
    """The share of readers who mark a pixel, as a rising function of the predicted share: linear between knots."""

    predicted: tuple[float, ...]
    share: tuple[float, ...]

    def __call__(self, predicted: np.ndarray) -> np.ndarray:
        """Calibrated shares for predicted shares: float64, of the same shape."""
        return np.interp(predicted, self.predicted, self.share)


def share_sums(predicted: np.ndarray, share: np.ndarray) -> np.ndarray:
    """The sums over pixels from which `fit_shares` fits; they can be added.

    Args:
      predicted, share: the predicted and the true share of readers who mark each pixel, of the same shape, in [0, 1].

    Returns:
      float64 (3, KNOTS): in bins of the predicted share's logit, the number of pixels and the sums of both shares.
    """
    flat = np.asarray(predicted, np.float64).ravel()
    with np.errstate(divide="ignore"):
        logits = scipy.special.logit(flat)
    place = np.clip((logits / _LOGIT + 1) / 2 * KNOTS, 0, KNOTS - 1).astype(np.int64)
    weights = (None, flat, np.asarray(share, np.float64).ravel())
    return np.stack([np.bincount(place, weight, KNOTS) for weight in weights]).astype(np.float64)


def fit_shares(sums: np.ndarray) -> Shares:
    """The rising function nearest to the mean share of readers in each bin, weighted by the bins' pixels.

    Args:
      sums: from `share_sums`, of at least one pixel.
    """
    number, likely, share = sums[:, sums[0] > 0]
    fitted: Any = scipy.optimize.isotonic_regression(share / number, weights=number)
    predicted, risen = likely / number, fitted.x
    ends = [0.0, *predicted, 1.0], [risen[0], *risen, risen[-1]]
    return Shares(*(tuple(map(float, end)) for end in ends))


def fit_logistic(features: np.ndarray, share: np.ndarray) -> tuple[float, ...]:
    """Logistic regression: weights w for which sigmoid(w[0] + features @ w[1:]) predicts a share.

    A standard normal prior on the weights of the standardised features.

    Args:
      features: (n, k) finite floats.
      share: (n,) floats in [0, 1].

    Returns:
      1 + k floats; the weight of a feature that is the same in all rows is 0.
    """
    features, share = np.asarray(features, np.float64), np.asarray(share, np.float64)
    mean, spread = features.mean(axis=0), features.std(axis=0)
    spread[spread == 0] = np.inf
    inputs = np.column_stack([np.ones(len(features)), (features - mean) / spread])

    def negative_log_posterior(weights: np.ndarray) -> tuple[float, np.ndarray]:
        logits = inputs @ weights
        entropy = np.sum(np.logaddexp(0, logits) - share * logits)
        gradient = inputs.T @ (scipy.special.expit(logits) - share) + weights
        return float(entropy + 0.5 * weights @ weights), gradient

    start = np.zeros(inputs.shape[1])
    fitted: Any = scipy.optimize.minimize(negative_log_posterior, start, jac=True, method="L-BFGS-B")
    weights = fitted.x[1:] / spread
    return (float(fitted.x[0] - weights @ mean), *map(float, weights))


def reliability_curve(labels: np.ndarray, probability: np.ndarray) -> list[dict[str, Any]]:
    """For each bin with nodules, ready for JSON: its limits, its number of nodules, their mean probability, and the
    share of positives.

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
