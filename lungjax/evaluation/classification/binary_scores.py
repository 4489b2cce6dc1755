"""How well a score separates two classes of nodules or patients, and how well its probability is calibrated.

Every figure takes weights of the nodules: a resample is a row of weights, and 1,000 resamples are a few sorted sums.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lungjax.evaluation.stats import bootstrap, figures

BINS = 10
"""The number of bins, all of equal width, for ECE and the reliability curve; the last one includes 1."""
SPECIFICITIES = (0.80, 0.90)
RANKING = ("roc_auc", "pr_auc", *(f"sensitivity_at_specificity_{level:.2f}" for level in SPECIFICITIES))
"""Figures of any score, whatever its unit."""
CALIBRATION = ("brier", "ece")
NAMES = (*RANKING, *CALIBRATION)
CONVENTIONS = (
    "roc_auc: the share of pairs of a positive and a negative in which the positive scores higher; ties count half. "
    "pr_auc: average precision, without interpolation. sensitivity_at_specificity_S: the highest sensitivity of a "
    "threshold whose specificity is at least S. brier: mean squared difference of probability and label. ece: mean "
    f"over {BINS} bins of equal width, weighted by their nodules, of |mean probability - share of positives| (Guo et "
    "al. 2017). difference: the first minus the second, both on the same resamples. null: undefined."
)


def ranking(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """The figures of `RANKING`.

    Args:
      labels: (n,) bool.
      scores: (n,) floats, higher for positives.
      weights: (resamples, n), not negative; None for one row of ones.

    Returns:
      float64 (resamples, len(RANKING)); NaN where a resample has no positive or no negative.

    Raises:
      ValueError: labels are not bool, lengths differ, or a score is NaN.
    """
    labels, scores, weights = _checked(labels, scores, weights)
    order = np.argsort(-scores, kind="stable")
    ends = _ends(scores[order])
    hit, false = (_cumulated(weights[:, order] * side[order], ends) for side in (labels, ~labels))
    positives, negatives = hit[:, -1:], false[:, -1:]
    with np.errstate(invalid="ignore", divide="ignore"):
        steps = np.diff(false, axis=1)
        pairs = (steps * (hit[:, 1:] + hit[:, :-1]) / 2).sum(axis=1) / (positives * negatives)[:, 0]
        precision = np.where(hit + false > 0, hit / (hit + false), 0.0)
        average = (np.diff(hit, axis=1) * precision[:, 1:]).sum(axis=1) / positives[:, 0]
        average = np.where(negatives[:, 0] > 0, average, np.nan)
        sensitivity, specificity = hit / positives, 1 - false / negatives
    at = [_best_where(sensitivity, specificity >= level - 1e-12) for level in SPECIFICITIES]
    return np.stack([pairs, average, *at], axis=-1)


def calibration(labels: np.ndarray, probability: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Brier score and ECE; arguments as for `ranking`. float64 (resamples, 2), NaN where all weights are 0.

    Raises:
      ValueError: as `ranking`, or a probability lies outside [0, 1].
    """
    labels, probability, weights = _checked(labels, probability, weights)
    total = weights.sum(axis=1)
    _, likely, share = bin_sums(labels, probability, weights)
    sums = np.stack([weights @ (probability - labels) ** 2, np.abs(likely - share).sum(axis=1)], axis=-1)
    return np.divide(sums, total[:, None], out=np.full(sums.shape, np.nan), where=total[:, None] > 0)


def bin_sums(labels: np.ndarray, probability: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(3, resamples, BINS): the weight in each bin of probability, and its weighted sums of probability and labels."""
    if not ((probability >= 0) & (probability <= 1)).all():
        raise ValueError("probabilities must lie in [0, 1]")
    place = np.minimum((probability * BINS).astype(np.int64), BINS - 1)
    member = np.eye(BINS)[place]  # (n, BINS)
    return np.stack([weights @ (member * value[:, None]) for value in (np.ones(len(labels)), probability, labels)])


def classification_figures(
    *,
    labels: np.ndarray,
    probability: np.ndarray,
    patients: Sequence[str],
    others: Mapping[str, np.ndarray] | None = None,
    resamples: int = bootstrap.RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Every figure with its 95 % interval by bootstrap over patients, ready for JSON.

    Args:
      labels: (n,) bool.
      probability: (n,) in [0, 1], the model's.
      patients: (n,) patient IDs.
      others: by name, scores (n,) of the same nodules to compare with, in any unit.
      resamples, seed: of the bootstrap; all scores are resampled with the same patients.

    Returns:
      A dict: each of `NAMES` as {"value", "low", "high"}; `others`, for each name the figures of `RANKING`, and under
      "difference" the model's minus these; `nodules`, `positives`, `patients`, `interval`, `conventions`. An
      undefined figure is None, never NaN.

    Raises:
      ValueError: shapes disagree, there is no nodule, or a probability lies outside [0, 1].
    """
    labels, probability, ones = _checked(labels, probability, None)
    if len(patients) != len(labels):
        raise ValueError(f"{len(labels)} labels but {len(patients)} patient IDs")
    people, person = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    weights = np.concatenate([ones, bootstrap.resample_weights(len(people), resamples=resamples, seed=seed)[:, person]])
    ours = ranking(labels, probability, weights)
    several = len(people) > 1
    compared = {}
    for name, scores in (others or {}).items():
        theirs = ranking(labels, scores, weights)
        compared[name] = _named(RANKING, theirs, several)
        compared[name]["difference"] = _named(RANKING, ours - theirs, several)
    interval = f"95 % percentile bootstrap over patients, {resamples} resamples, seed {seed}"
    return {
        **_named(NAMES, np.concatenate([ours, calibration(labels, probability, weights)], axis=1), several),
        "others": compared,
        "nodules": len(labels),
        "positives": int(labels.sum()),
        "patients": len(people),
        "interval": interval if several else "none: one patient says nothing about the spread between patients",
        "conventions": CONVENTIONS,
    }


def roc(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False positive rate and sensitivity, each (thresholds + 1,), from (0, 0) to (1, 1); arguments as `ranking`."""
    labels, scores, _ = _checked(labels, scores, None)
    order = np.argsort(-scores, kind="stable")
    false, hit = (_cumulated(side[order][None], _ends(scores[order]))[0] for side in (~labels, labels))
    return false / false[-1], hit / hit[-1]


def _checked(
    labels: np.ndarray, scores: np.ndarray, weights: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    labels, scores = np.asarray(labels), np.asarray(scores, np.float64)
    if labels.dtype != bool or labels.ndim != 1 or not len(labels) or scores.shape != labels.shape:
        raise ValueError(
            f"expected bool labels (n,) and scores (n,), got {labels.dtype} {labels.shape}, {scores.shape}"
        )
    if np.isnan(scores).any():
        raise ValueError("a score is NaN")
    weights = np.ones((1, len(labels))) if weights is None else np.asarray(weights, np.float64)
    if weights.ndim != 2 or weights.shape[1] != len(labels):
        raise ValueError(f"expected weights (resamples, {len(labels)}), got {weights.shape}")
    return labels, scores, weights


def _ends(ordered: np.ndarray) -> np.ndarray:
    """Where each run of equal scores ends."""
    return np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))


def _cumulated(weights: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """(resamples, thresholds + 1): weight above each threshold, from none to all."""
    return np.pad(np.cumsum(weights, axis=1, dtype=np.float64)[:, ends], [(0, 0), (1, 0)])


def _best_where(values: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    best = np.where(allowed, values, -np.inf).max(axis=1)
    return np.where(np.isfinite(best), best, np.nan)


def _named(names: Sequence[str], values: np.ndarray, several: bool) -> dict[str, Any]:
    """Figures by name; the first row of `values` is the value, the others are resamples."""
    nothing = np.full(len(names), np.nan)
    low, high = bootstrap.percentiles(values[1:]) if several else (nothing, nothing)
    ends = zip(names, values[0], low, high, strict=True)
    return {
        name: dict(zip(("value", "low", "high"), map(figures.finite_or_none, three), strict=True))
        for name, *three in ends
    }
