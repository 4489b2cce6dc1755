"""Platt's line against what made the labels, and against a search."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special

from lungjax.evaluate import calibration, classification


def _made(slope: float, offset: float, number: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose labels have the probability sigmoid(slope * logit + offset)."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, number)
    return logits, rng.random(number) < scipy.special.expit(slope * logits + offset)


@pytest.mark.parametrize(("slope", "offset"), [(0.5, 0.0), (1.0, -1.0), (2.0, 0.7)])
def test_the_line_that_made_the_labels_is_found(slope: float, offset: float):
    logits, labels = _made(slope, offset)
    fitted = calibration.fit(logits, labels)
    assert (fitted.slope, fitted.offset) == pytest.approx((slope, offset), abs=0.07)
    positives = labels.sum()
    targets = np.where(labels, (positives + 1) / (positives + 2), 1 / (len(labels) - positives + 2))

    def cross_entropy(line: calibration.Platt) -> float:
        p = line(logits)
        return -float(np.mean(targets * np.log(p) + (1 - targets) * np.log(1 - p)))

    moved = [(0.01, 0.0), (-0.01, 0.0), (0.0, 0.01), (0.0, -0.01)]
    others = (calibration.Platt(fitted.slope + a, fitted.offset + b) for a, b in moved)
    assert cross_entropy(fitted) < min(map(cross_entropy, others))
    before, after = (classification.calibration(labels, line(logits))[0, 1] for line in (calibration.Platt(), fitted))
    assert after < 0.015  # What chance alone leaves of 20,000 nodules in 10 bins.
    assert before > 2 * after


def test_the_order_stays_and_what_is_told_apart_is_not_certain():
    logits, labels = np.array([-3.0, -1.0, 1.0, 2.0]), np.array([False, False, True, True])
    fitted = calibration.fit(logits, labels)
    found = fitted(logits)
    assert (np.diff(found) > 0).all()
    # Two of each kind: the targets are 1/4 and 3/4, whose mean the probabilities keep.
    assert found.mean() == pytest.approx(1 / 2, abs=1e-4)
    assert found.min() > 0.1
    assert found.max() < 0.9


def test_a_score_the_wrong_way_round_says_nothing():
    logits, labels = _made(1.0, 0.0, 500)
    fitted = calibration.fit(-logits, labels)
    assert fitted.slope == 0
    np.testing.assert_allclose(fitted(logits), labels.mean(), atol=0.01)


def test_the_curve_by_hand():
    probability = np.array([0.0, 0.05, 0.5, 0.55, 1.0, 0.95])
    labels = np.array([False, True, True, False, True, True])
    assert calibration.curve(labels, probability) == [
        {"low": 0.0, "high": 0.1, "nodules": 2, "probability": 0.025, "share": 0.5},
        {"low": 0.5, "high": 0.6, "nodules": 2, "probability": pytest.approx(0.525), "share": 0.5},
        {"low": 0.9, "high": 1.0, "nodules": 2, "probability": pytest.approx(0.975), "share": 1.0},
    ]


def test_nodules_of_one_kind_cannot_calibrate():
    with pytest.raises(ValueError, match="both kinds"):
        calibration.fit(np.array([1.0, 2.0]), np.array([True, True]))
    with pytest.raises(ValueError, match="bool labels"):
        calibration.fit(np.array([1.0, 2.0]), np.array([1, 0]))
