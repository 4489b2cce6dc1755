"""The threshold of a prediction: fitted for false positives a scan, or given."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import chests
import numpy as np
import pytest

from lungjax.errors import InputError
from lungjax.evaluation import run_detection
from lungjax.evaluation.detection import froc
from lungjax.evaluation.detection.luna16_rules import Matches
from lungjax.prediction import operating_point
from lungjax.train import trained as models
from lungjax.train.trained import Trained

POINTS = {
    "false_positives_a_scan": [0.5, 1.0, 4.0],
    "threshold": [0.9, 0.7, 0.3],
    "default": 1.0,
    "fitted_on": "2 scans",
}


@pytest.fixture
def scorer(tmp_path: Path) -> Trained:
    return dataclasses.replace(chests.untrained(tmp_path), operating_points=POINTS)


def test_the_default_is_the_models_own(scorer: Trained):
    point = operating_point.choose(scorer, false_positives=None, threshold=None)
    assert (point.threshold, point.false_positives_a_scan) == (pytest.approx(0.7), 1.0)
    assert point.source == "Fitted on 2 scans."


def test_between_fitted_rates_the_threshold_is_interpolated_along_the_rates_logarithm(scorer: Trained):
    point = operating_point.choose(scorer, false_positives=2.0, threshold=None)
    assert point.threshold == pytest.approx(0.5)
    assert operating_point.choose(scorer, false_positives=4.0, threshold=None).threshold == pytest.approx(0.3)


def test_a_given_threshold_is_used_as_it_is(scorer: Trained):
    point = operating_point.choose(scorer, false_positives=None, threshold=0.42)
    assert (point.threshold, point.false_positives_a_scan, point.source) == (0.42, None, "The threshold was given.")


def test_a_network_without_fitted_thresholds_says_so(tmp_path: Path):
    scorer = chests.untrained(tmp_path)
    point = operating_point.choose(scorer, false_positives=None, threshold=None)
    assert point.threshold == operating_point.UNFITTED
    assert "No threshold was fitted" in point.source
    with pytest.raises(InputError, match="has no threshold fitted for 1 false positives a scan; fit it"):
        operating_point.choose(scorer, false_positives=1.0, threshold=None)


@pytest.mark.parametrize("rate", [0.0, -1.0, 0.49, 4.1, float("nan")])
def test_rates_beyond_the_fitted_ones_are_refused(scorer: Trained, rate: float):
    with pytest.raises(InputError, match=r"thresholds were fitted for 0\.5 to 4"):
        operating_point.choose(scorer, false_positives=rate, threshold=None)


def test_mistakes(scorer: Trained):
    with pytest.raises(InputError, match="give one of them"):
        operating_point.choose(scorer, false_positives=1.0, threshold=0.5)
    with pytest.raises(InputError, match="must be from 0 to 1"):
        operating_point.choose(scorer, false_positives=None, threshold=1.5)


def test_probabilities_move_to_whole_scans_by_bayes_rule():
    """In crops one of two candidates is a nodule; in scans 1 of 25, for nothing else but more false ones are there."""
    rng = np.random.default_rng(0)
    nodule, false = rng.normal(1.5, 1, 400_000), rng.normal(-1.5, 1, 400_000)
    probability = 1 / (1 + np.exp(-3 * np.concatenate([nodule, false])))  # Of these two classes, exactly.
    moved = operating_point.in_whole_scans(probability, {"odds_factor": 1 / 24})
    weight = np.repeat([1.0, 24.0], 400_000)
    for low, high in ((0.05, 0.2), (0.2, 0.5), (0.5, 0.8)):
        inside = (moved > low) & (moved < high)
        share = weight[:400_000][inside[:400_000]].sum() / weight[inside].sum()
        assert share == pytest.approx(np.average(moved[inside], weights=weight[inside]), abs=0.03)
    np.testing.assert_allclose(operating_point.in_whole_scans(probability, {}), probability)
    np.testing.assert_array_equal(operating_point.in_whole_scans(np.array([0.0, 1.0]), {"odds_factor": 0.1}), [0, 1])


def matches(hit: list[bool], probability: list[float], scans: int) -> Matches:
    return Matches(
        scan=np.zeros(len(hit), np.int64),
        hit=np.array(hit),
        probability=np.array(probability),
        nodules=np.array([sum(hit), *[0] * (scans - 1)]),
        ignored=0,
        doubles=0,
        candidates=len(hit),
    )


def test_fitted_thresholds_accept_no_more_false_positives_than_asked():
    rng = np.random.default_rng(0)
    hit, probability, scans = rng.random(300) < 0.2, rng.random(300).round(2), 16
    points = run_detection._fit_operating_points(matches(hit.tolist(), probability.tolist(), scans), "16 scans")
    assert points["false_positives_a_scan"] == list(froc.RATES)
    for rate, threshold in zip(froc.RATES, points["threshold"], strict=True):
        accepted = np.count_nonzero(~hit & (probability >= threshold)) / scans
        assert accepted <= rate
        lower = np.unique(probability[probability < threshold])
        if len(lower):  # The next threshold would accept too many.
            assert np.count_nonzero(~hit & (probability >= lower[-1])) / scans > rate
    assert points["threshold"] == sorted(points["threshold"], reverse=True)


def test_where_even_the_surest_false_positive_is_too_many_the_threshold_lies_just_above_it():
    points = run_detection._fit_operating_points(matches([True, False, True], [0.9, 0.8, 0.7], 4), "4 scans")
    assert 0.8 < points["threshold"][0] < 0.81


def test_points_are_stored_with_an_exported_network_and_with_a_run(tmp_path: Path):
    trained = chests.untrained(tmp_path / "model")
    (tmp_path / "model").mkdir()
    models.write_exported(trained, tmp_path / "model", dtype="float32")
    opened = models.open_trained(tmp_path / "model")
    assert opened.operating_points == {}
    models.write_operating_points(opened, POINTS)
    again = models.open_trained(tmp_path / "model")
    assert again.operating_points == POINTS
    assert again.patients == trained.patients
