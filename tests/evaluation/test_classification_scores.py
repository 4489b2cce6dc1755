"""Figures of a score by counting pairs and thresholds, and intervals by drawing patients one by one."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lungjax.evaluation.classification import binary_scores
from lungjax.evaluation.stats import bootstrap


def _by_hand(labels: np.ndarray, scores: np.ndarray) -> list[float]:
    """The figures of `RANKING` from their definitions: over pairs, and over thresholds."""
    positive, negative = scores[labels], scores[~labels]
    pairs = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
    points = [((positive >= t).mean(), (negative >= t).mean(), labels[scores >= t].mean()) for t in np.unique(scores)]
    points.sort()
    average, before = 0.0, 0.0
    for sensitivity, _, precision in points:
        average, before = average + (sensitivity - before) * precision, sensitivity
    at = [max([s for s, false, _ in points if 1 - false >= level - 1e-9], default=0.0) for level in (0.8, 0.9)]
    return [float(np.mean(pairs)), average, *at]


def test_four_nodules_by_hand():
    labels, scores = np.array([True, True, False, False]), np.array([0.9, 0.4, 0.6, 0.1])
    # Three of the four pairs are in order. Precision is 1 at the first positive and 2/3 at the second.
    np.testing.assert_allclose(binary_scores.ranking(labels, scores), [[3 / 4, (1 + 2 / 3) / 2, 1 / 2, 1 / 2]])
    brier = (0.01 + 0.36 + 0.36 + 0.01) / 4
    ece = (0.1 + 0.6 + 0.6 + 0.1) / 4  # Each has a bin of its own.
    np.testing.assert_allclose(binary_scores.calibration(labels, scores), [[brier, ece]])


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.booleans(), st.integers(-3, 3)), min_size=2, max_size=40))
def test_ranking_is_what_its_definitions_say(nodules: list[tuple[bool, int]]):
    labels, scores = (np.array(one) for one in zip(*nodules, strict=True))
    found = binary_scores.ranking(labels, scores)
    if labels.all() or not labels.any():
        assert np.isnan(found[:, :2]).all()
    else:
        np.testing.assert_allclose(found[0], _by_hand(labels, scores), atol=1e-12)


def test_weights_are_nodules_counted_several_times():
    rng = np.random.default_rng(0)
    labels, scores = rng.random(60) < 0.4, rng.integers(0, 15, 60) / 15
    weights = rng.integers(0, 4, (8, 60))
    ranked = binary_scores.ranking(labels, scores, weights)
    calibrated = binary_scores.calibration(labels, scores, weights)
    for row, weight in enumerate(weights):
        again = np.repeat(np.arange(60), weight)
        np.testing.assert_allclose(ranked[row], _by_hand(labels[again], scores[again]))
        likely, truth = scores[again], labels[again]
        bins = [(likely >= low) & (likely < low + 0.1 + (low > 0.85)) for low in np.arange(10) / 10]
        gaps = [one.mean() * abs(likely[one].mean() - truth[one].mean()) for one in bins if one.any()]
        np.testing.assert_allclose(calibrated[row], np.array([np.mean((likely - truth) ** 2), np.sum(gaps)]))


def test_intervals_draw_patients_and_differences_are_paired():
    rng = np.random.default_rng(1)
    patients = np.repeat([f"P{n}" for n in range(30)], rng.integers(1, 6, 30))
    labels = rng.random(len(patients)) < 0.4
    first, second = (np.clip(0.5 + 0.2 * labels + rng.normal(0, 0.2, len(labels)), 0, 1) for _ in range(2))
    report = binary_scores.classification_figures(
        labels=labels, probability=first, patients=patients.tolist(), others={"second": second}, resamples=200, seed=5
    )
    people = sorted({*patients})
    drawn = []
    for weight in bootstrap.resample_weights(len(people), resamples=200, seed=5):
        again = np.concatenate([np.flatnonzero(patients == p).repeat(w) for p, w in zip(people, weight, strict=True)])
        ours, theirs = (_by_hand(labels[again], scores[again])[0] for scores in (first, second))
        drawn.append((ours, theirs, ours - theirs))
    other = report["others"]["second"]
    for place, figure in enumerate((report["roc_auc"], other["roc_auc"], other["difference"]["roc_auc"])):
        np.testing.assert_allclose(
            [figure["low"], figure["high"]], np.percentile(np.array(drawn)[:, place], [2.5, 97.5])
        )
    assert other["difference"]["roc_auc"]["value"] == report["roc_auc"]["value"] - other["roc_auc"]["value"]
    assert (report["nodules"], report["positives"], report["patients"]) == (len(labels), labels.sum(), 30)
    json.dumps(report, allow_nan=False)


def test_a_score_against_itself_differs_by_nothing():
    labels, scores = np.array([True, False, True, False, True]), np.array([0.9, 0.2, 0.6, 0.7, 0.1])
    other = binary_scores.classification_figures(
        labels=labels, probability=scores, patients=list("abcde"), others={"itself": 100 * scores}
    )["others"]["itself"]["difference"]
    assert {one[key] for one in other.values() for key in ("value", "low", "high")} == {0.0}


def test_one_kind_or_one_patient_has_no_figure_or_interval():
    report = binary_scores.classification_figures(
        labels=np.ones(3, bool), probability=np.full(3, 0.5), patients=["a", "b", "c"]
    )
    assert report["roc_auc"] == {"value": None, "low": None, "high": None}
    assert report["brier"]["value"] == 0.25
    alone = binary_scores.classification_figures(
        labels=np.array([True, False]), probability=np.array([0.8, 0.1]), patients=["a", "a"]
    )
    assert alone["roc_auc"] == {"value": 1.0, "low": None, "high": None}
    assert alone["interval"].startswith("none: one patient")


def test_what_is_no_label_or_probability_is_refused():
    labels, scores = np.array([True, False]), np.array([0.8, 0.1])
    with pytest.raises(ValueError, match="bool labels"):
        binary_scores.ranking(np.array([1, 0]), scores)
    with pytest.raises(ValueError, match=r"got bool \(2,\), \(1,\)"):
        binary_scores.ranking(labels, scores[:1])
    with pytest.raises(ValueError, match="a score is NaN"):
        binary_scores.ranking(labels, np.array([0.5, np.nan]))
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        binary_scores.classification_figures(labels=labels, probability=2 * scores, patients=["a", "b"])
    with pytest.raises(ValueError, match="2 labels but 1 patient IDs"):
        binary_scores.classification_figures(labels=labels, probability=scores, patients=["a"])


def test_the_curve_runs_from_corner_to_corner_and_encloses_the_area():
    rng = np.random.default_rng(0)
    labels, scores = rng.random(200) < 0.3, rng.integers(0, 9, 200)
    false, hit = binary_scores.roc(labels, scores)
    assert (false[0], hit[0], false[-1], hit[-1], len(hit)) == (0, 0, 1, 1, 10)
    assert np.trapezoid(hit, false) == pytest.approx(_by_hand(labels, scores)[0])


def test_a_thousand_resamples_of_all_nodules_are_quick():
    rng = np.random.default_rng(0)
    labels = rng.random(2171) < 0.3
    patients = [f"P{p}" for p in rng.integers(0, 690, 2171)]
    start = time.perf_counter()
    binary_scores.classification_figures(
        labels=labels, probability=rng.random(2171), patients=patients, others={"b": rng.random(2171)}
    )
    assert time.perf_counter() - start < 20  # Measured: 1 s on an idle machine.
