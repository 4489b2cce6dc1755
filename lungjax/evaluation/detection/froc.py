"""Sensitivity over false positives a scan (FROC), and its mean at LUNA16's seven rates (CPM).

Source: Setio et al., Medical Image Analysis 42, 2017. Figures equal those of the challenge's own script.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lungjax.evaluation.detection.luna16_rules import Matches
from lungjax.evaluation.stats import bootstrap

RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""False positives a scan at which LUNA16 reads the sensitivity; CPM is the mean of the seven sensitivities."""
CONVENTIONS = (
    "LUNA16: a candidate hits a nodule when its distance from the nodule's centre is less than the radius (5 mm where "
    "the diameter is unknown). Of several candidates on one nodule, the one of highest probability counts as a true "
    "positive and the others are ignored; candidates on excluded nodules are ignored too; all others are false "
    "positives. A candidate within two nodules hits both. At most 100 candidates of a scan count. Sensitivity is "
    "interpolated linearly between thresholds, starting from (0, 0); cpm is its mean at the seven rates. All scans "
    "count, including those without a nodule."
)


def froc_curve(matches: Matches) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The FROC curve.

    Returns:
      False positives a scan, sensitivity and threshold, each float64 (points,): first (0, 0) at threshold infinity,
      then a point for each distinct probability. Sensitivity is NaN where there is no nodule.
    """
    order, ends = _thresholds(matches)
    hits, misses = (np.cumsum(side[order])[ends] for side in (matches.hit, ~matches.hit))
    nodules = matches.nodules.sum()
    sensitivity = np.concatenate([[0], hits]) / nodules if nodules else np.full(1 + len(hits), np.nan)
    levels = np.concatenate([[np.inf], matches.probability[order][ends]])
    return np.concatenate([[0], misses]) / len(matches.nodules), sensitivity, levels


def sensitivities(matches: Matches, weights: np.ndarray, rates: Sequence[float] = RATES) -> np.ndarray:
    """Sensitivity at the given rates when scan s counts `weights[..., s]` times.

    Args:
      matches: the matches of all scans.
      weights: (resamples, scans) counts, from `bootstrap.resample_weights`.
      rates: false positives a scan.

    Returns:
      float64 (resamples, rates); NaN where a resample has no nodule.
    """
    order, ends = _thresholds(matches)
    scan, hit = matches.scan[order], matches.hit[order]
    allowed = np.multiply.outer(weights.sum(axis=1), rates)  # (resamples, rates) false positives
    hits_at = np.zeros(allowed.shape)
    for row, weight in enumerate(weights.astype(np.float64)):
        each = weight[scan]
        hits = np.concatenate([[0], np.cumsum(each * hit)[ends]])
        misses = np.concatenate([[0], np.cumsum(each * ~hit)[ends]])
        hits_at[row] = np.interp(allowed[row], misses, hits)
    nodules = (weights @ matches.nodules)[:, None].astype(np.float64)
    return np.divide(hits_at, nodules, out=np.full(hits_at.shape, np.nan), where=nodules > 0)


def froc_figures(matches: Matches, *, resamples: int = bootstrap.RESAMPLES, seed: int = 0) -> dict[str, Any]:
    """Every figure with its 95 % interval by bootstrap over scans, ready for JSON.

    Args:
      matches: from `luna16_rules.match`.
      resamples, seed: of the bootstrap.

    Returns:
      A dict: `sensitivity`, for each of `RATES` as text {"value", "low", "high"}; `cpm` likewise; the counts
      `true_positives`, `false_positives`, `false_negatives`, `ignored`, `doubles`, `candidates`, `nodules`, `scans`;
      `interval`, `conventions`. An undefined figure is None.
    """
    scans = len(matches.nodules)
    value = _with_mean(sensitivities(matches, np.ones((1, scans), np.int64)))[0]
    resampled = _with_mean(sensitivities(matches, bootstrap.resample_weights(scans, resamples=resamples, seed=seed)))
    low, high = bootstrap.percentiles(resampled) if scans > 1 else (np.full(len(value), np.nan),) * 2
    each = [
        {name: float(x) if np.isfinite(x) else None for name, x in zip(("value", "low", "high"), three, strict=True)}
        for three in zip(value, low, high, strict=True)
    ]
    hits = int(matches.hit.sum())
    interval = f"95 % percentile bootstrap over scans, {resamples} resamples, seed {seed}"
    return {
        "sensitivity": {f"{rate:g}": figure for rate, figure in zip(RATES, each[:-1], strict=True)},
        "cpm": each[-1],
        "true_positives": hits,
        "false_positives": len(matches.hit) - hits,
        "false_negatives": int(matches.nodules.sum()) - hits,
        "ignored": matches.ignored,
        "doubles": matches.doubles,
        "candidates": matches.candidates,
        "nodules": int(matches.nodules.sum()),
        "scans": scans,
        "interval": interval if scans > 1 else "none: one scan says nothing about the spread between scans",
        "conventions": CONVENTIONS,
    }


def _with_mean(at_rates: np.ndarray) -> np.ndarray:
    return np.concatenate([at_rates, at_rates.mean(axis=-1, keepdims=True)], axis=-1)


def _thresholds(matches: Matches) -> tuple[np.ndarray, np.ndarray]:
    """The order of the matches by falling probability, and where in that order each distinct probability ends."""
    order = np.argsort(-matches.probability, kind="stable")
    ordered = matches.probability[order]
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True)[: len(ordered)])
    return order, ends
