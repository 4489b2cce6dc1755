"""Sensitivity over false positives a scan (FROC), and its mean at LUNA16's seven rates (CPM).

Source: Setio et al., Medical Image Analysis 42, 2017; figures equal those of the challenge's own script.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lungjax.evaluation.detection.luna16_rules import Matches
from lungjax.evaluation.stats import bootstrap

RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""False positives a scan at which LUNA16 reads the sensitivity; CPM is the mean of the seven."""
CONVENTIONS = (
    "LUNA16: a candidate hits a finding when its distance from the centre is less than the radius (5 mm where the "
    "diameter is unknown). Of several candidates on one nodule the likeliest counts and the others count neither way; "
    "candidates on excluded findings are left out; the rest are false positives. A candidate within two nodules finds "
    "both. Of a scan's candidates at most 100 count. Sensitivity is interpolated linearly between thresholds, from "
    "(0, 0) on; cpm is its mean at the seven rates, all scans counted, those without a nodule too."
)


def curve(marks: Matches) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The FROC curve.

    Returns:
      false positives a scan, sensitivity and threshold, each float64 (points,), from (0, 0) at threshold infinity on,
      one point for each distinct probability. Sensitivity is NaN where there is no nodule.
    """
    order, ends = _thresholds(marks)
    hits, misses = (np.cumsum(side[order])[ends] for side in (marks.hit, ~marks.hit))
    nodules = marks.nodules.sum()
    sensitivity = np.concatenate([[0], hits]) / nodules if nodules else np.full(1 + len(hits), np.nan)
    levels = np.concatenate([[np.inf], marks.probability[order][ends]])
    return np.concatenate([[0], misses]) / len(marks.nodules), sensitivity, levels


def sensitivities(marks: Matches, weights: np.ndarray, rates: Sequence[float] = RATES) -> np.ndarray:
    """Sensitivity at the given rates when scan s counts `weights[..., s]` times.

    Args:
      marks: of all scans.
      weights: (resamples, scans) counts, as `bootstrap.draw` gives them.
      rates: false positives a scan.

    Returns:
      float64 (resamples, rates); NaN where a resample has no nodule.
    """
    order, ends = _thresholds(marks)
    scan, hit = marks.scan[order], marks.hit[order]
    allowed = np.multiply.outer(weights.sum(axis=1), rates)  # (resamples, rates) false positives
    found = np.zeros(allowed.shape)
    for row, weight in enumerate(weights.astype(np.float64)):
        each = weight[scan]
        hits = np.concatenate([[0], np.cumsum(each * hit)[ends]])
        misses = np.concatenate([[0], np.cumsum(each * ~hit)[ends]])
        found[row] = np.interp(allowed[row], misses, hits)
    nodules = (weights @ marks.nodules)[:, None].astype(np.float64)
    return np.divide(found, nodules, out=np.full(found.shape, np.nan), where=nodules > 0)


def froc_figures(marks: Matches, *, resamples: int = bootstrap.RESAMPLES, seed: int = 0) -> dict[str, Any]:
    """Every figure with its 95 % interval by bootstrap over scans, ready for JSON.

    Args:
      marks: from `detections.match`.
      resamples, seed: of the bootstrap.

    Returns:
      A dict of `sensitivity`: for each of `RATES`, as text, {"value", "low", "high"}; `cpm` likewise; counts
      `true_positives`, `false_positives`, `false_negatives`, `ignored`, `doubles`, `candidates`, `nodules`, `scans`;
      `interval`, `conventions`. An undefined figure is None.
    """
    scans = len(marks.nodules)
    value = _with_mean(sensitivities(marks, np.ones((1, scans), np.int64)))[0]
    resampled = _with_mean(sensitivities(marks, bootstrap.draw(scans, resamples=resamples, seed=seed)))
    low, high = bootstrap.percentiles(resampled) if scans > 1 else (np.full(len(value), np.nan),) * 2
    each = [
        {name: float(x) if np.isfinite(x) else None for name, x in zip(("value", "low", "high"), three, strict=True)}
        for three in zip(value, low, high, strict=True)
    ]
    hits = int(marks.hit.sum())
    said = f"95 % percentile bootstrap over scans, {resamples} resamples, seed {seed}"
    return {
        "sensitivity": {f"{rate:g}": one for rate, one in zip(RATES, each[:-1], strict=True)},
        "cpm": each[-1],
        "true_positives": hits,
        "false_positives": len(marks.hit) - hits,
        "false_negatives": int(marks.nodules.sum()) - hits,
        "ignored": marks.ignored,
        "doubles": marks.doubles,
        "candidates": marks.candidates,
        "nodules": int(marks.nodules.sum()),
        "scans": scans,
        "interval": said if scans > 1 else "none: one scan says nothing about the spread between scans",
        "conventions": CONVENTIONS,
    }


def _with_mean(at_rates: np.ndarray) -> np.ndarray:
    return np.concatenate([at_rates, at_rates.mean(axis=-1, keepdims=True)], axis=-1)


def _thresholds(marks: Matches) -> tuple[np.ndarray, np.ndarray]:
    """Matches from the likeliest down, and where in that order each distinct probability ends."""
    order = np.argsort(-marks.probability, kind="stable")
    ordered = marks.probability[order]
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True)[: len(ordered)])
    return order, ends
