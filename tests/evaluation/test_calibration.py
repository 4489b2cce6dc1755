"""Platt's line against what made the labels, and against a search."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special

from lungjax.evaluation.classification import binary_scores
from lungjax.evaluation.stats import calibration


def _made(slope: float, offset: float, number: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose labels have the probability sigmoid(slope * logit + offset)."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, number)
    return logits, rng.random(number) < scipy.special.expit(slope * logits + offset)


@pytest.mark.parametrize(("slope", "offset"), [(0.5, 0.0), (1.0, -1.0), (2.0, 0.7)])
def test_the_line_that_made_the_labels_is_found(slope: float, offset: float):
    logits, labels = _made(slope, offset)
    fitted = calibration.fit_platt(logits, labels)
    assert (fitted.slope, fitted.offset) == pytest.approx((slope, offset), abs=0.07)

    def unlikely(line: calibration.Platt) -> float:
        p = line(logits)
        prior = (np.log(line.slope) ** 2 + line.offset**2) / (2 * calibration.PRIOR**2)
        return -float(np.sum(np.where(labels, np.log(p), np.log(1 - p)))) + prior

    moved = [(0.01, 0.0), (-0.01, 0.0), (0.0, 0.01), (0.0, -0.01)]
    others = (calibration.Platt(fitted.slope + a, fitted.offset + b) for a, b in moved)
    assert unlikely(fitted) < min(map(unlikely, others))
    before, after = (binary_scores.calibration(labels, line(logits))[0, 1] for line in (calibration.Platt(), fitted))
    assert after < 0.015  # What chance alone leaves of 20,000 nodules in 10 bins.
    assert before > 2 * after


def test_the_order_stays_and_few_nodules_move_little():
    logits, labels = np.array([-3.0, -1.0, 1.0, 2.0]), np.array([False, False, True, True])
    fitted = calibration.fit_platt(logits, labels)
    assert (np.diff(fitted(logits)) > 0).all()
    # Told apart without fault, the likeliest slope alone would be infinite.
    assert 1 < fitted.slope < np.exp(2 * calibration.PRIOR)
    many = calibration.fit_platt(np.tile(logits, 1000), np.tile(labels, 1000))
    assert many.slope > 3 * fitted.slope


def test_a_score_the_wrong_way_round_says_nothing():
    logits, labels = _made(1.0, 0.0, 5000)
    fitted = calibration.fit_platt(-logits, labels)
    assert 0 < fitted.slope < 0.05
    np.testing.assert_allclose(fitted(logits), labels.mean(), atol=0.06)


def test_the_curve_by_hand():
    probability = np.array([0.0, 0.05, 0.5, 0.55, 1.0, 0.95])
    labels = np.array([False, True, True, False, True, True])
    assert calibration.reliability_curve(labels, probability) == [
        {"low": 0.0, "high": 0.1, "nodules": 2, "probability": 0.025, "share": 0.5},
        {"low": 0.5, "high": 0.6, "nodules": 2, "probability": pytest.approx(0.525), "share": 0.5},
        {"low": 0.9, "high": 1.0, "nodules": 2, "probability": pytest.approx(0.975), "share": 1.0},
    ]


def test_nodules_of_one_kind_cannot_calibrate():
    with pytest.raises(ValueError, match="both labels"):
        calibration.fit_platt(np.array([1.0, 2.0]), np.array([True, True]))
    with pytest.raises(ValueError, match="bool labels"):
        calibration.fit_platt(np.array([1.0, 2.0]), np.array([1, 0]))


def test_shares_become_those_of_the_readers():
    """Of a network that is too sure: where it says p, the share is 0.2 + 0.6 p, by readers who are drawn."""
    rng = np.random.default_rng(0)
    predicted = rng.uniform(0, 1, (2, 200, 500))
    marked = rng.binomial(4, 0.2 + 0.6 * predicted) / 4
    sums = sum(calibration.share_sums(one, share) for one, share in zip(predicted, marked, strict=True))
    fitted = calibration.fit_shares(sums)  # pyright: ignore[reportArgumentType]
    asked = np.linspace(0.01, 0.99, 50)
    np.testing.assert_allclose(fitted(asked), 0.2 + 0.6 * asked, atol=0.02)
    assert np.sum(sums, axis=1) == pytest.approx([predicted.size, predicted.sum(), marked.sum()])


def test_what_falls_is_made_level():
    """Three bins of shares 0.5, 0.2 (three times the pixels) and 0.8: the first two become their mean, 0.275."""
    predicted = np.array([0.01] + [0.5] * 3 + [0.99])
    fitted = calibration.fit_shares(calibration.share_sums(predicted, np.array([0.5, 0.2, 0.2, 0.2, 0.8])))
    assert fitted.predicted == pytest.approx((0, 0.01, 0.5, 0.99, 1))
    assert fitted.share == pytest.approx((0.275, 0.275, 0.275, 0.8, 0.8))
    np.testing.assert_allclose(fitted(np.array([0.0, 0.25, 0.745, 1.0])), [0.275, 0.275, (0.275 + 0.8) / 2, 0.8])


def test_shares_at_the_very_ends_count():
    sums = calibration.share_sums(np.array([0.0, 1.0, 1.0]), np.array([0.25, 0.5, 1.0]))
    np.testing.assert_array_equal(sums[:, [0, -1]], [[1, 2], [0, 2], [0.25, 1.5]])
    assert calibration.fit_shares(sums).share == (0.25, 0.25, 0.75, 0.75)


def test_logistic_regression_finds_the_weights_that_made_the_shares():
    rng = np.random.default_rng(0)
    features = rng.normal([3.0, -20.0], [0.5, 4.0], (4000, 2))
    weights = np.array([1.5, -2.0, -0.25])
    share = rng.binomial(4, scipy.special.expit(weights[0] + features @ weights[1:])) / 4
    np.testing.assert_allclose(calibration.fit_logistic(features, share), weights, rtol=0.1)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_features_that_tell_nothing_have_no_weight(share: float):
    """And a share that is always the same leaves finite weights."""
    features = np.random.default_rng(0).normal(size=(200, 2)) * [1.0, 0.0]
    offset, first, constant = calibration.fit_logistic(features, np.full(200, share))
    assert constant == 0
    assert abs(first) < 0.1
    assert abs(scipy.special.expit(offset) - share) < 0.05
