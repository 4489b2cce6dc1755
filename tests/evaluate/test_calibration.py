"""Temperature and isotonic regression against what made the labels, and against a search."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special

from lungjax.evaluate import calibration, classification


def _made(temperature: float, number: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are `temperature` times too large for their labels."""
    rng = np.random.default_rng(0)
    true = rng.normal(0, 2, number)
    return temperature * true, rng.random(number) < scipy.special.expit(true)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_made_the_labels_is_found(temperature: float):
    logits, labels = _made(temperature)
    fitted = calibration.fit_temperature(logits, labels)
    assert fitted.temperature == pytest.approx(temperature, rel=0.05)

    def cross_entropy(t: float) -> float:
        p = scipy.special.expit(logits / t)
        return -float(np.mean(np.log(np.where(labels, p, 1 - p))))

    least = cross_entropy(fitted.temperature)
    assert least < min(cross_entropy(fitted.temperature * factor) for factor in (0.99, 1.01))
    before, after = (classification.calibration(labels, p)[0, 1] for p in (scipy.special.expit(logits), fitted(logits)))
    assert after < 0.015  # What chance alone leaves of 20,000 nodules in 10 bins.
    assert temperature == 1.0 or before > 2 * after


def test_temperature_keeps_the_order():
    logits, labels = _made(3.0, 300)
    ranked = classification.ranking(labels, logits)
    np.testing.assert_array_equal(
        classification.ranking(labels, calibration.fit_temperature(logits, labels)(logits)), ranked
    )


def test_isotonic_by_hand():
    labels = np.array([False, True, False, True, True, False, True])
    logits = np.array([-2.0, -1.0, 0.0, 1.0, 1.0, 2.0, 3.0])
    fitted = calibration.fit_isotonic(logits, labels)
    # -1 and 0 are out of order and pool to 1/2; the two at 1 (share 1) and the one at 2 (share 0) pool to 2/3.
    np.testing.assert_allclose(
        fitted(np.array([-9.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 9.0])), [0, 0, 1 / 2, 1 / 2, 2 / 3, 2 / 3, 1, 1]
    )
    np.testing.assert_allclose(fitted(np.array([-1.5, 2.5])), [1 / 4, 5 / 6])


def test_isotonic_straightens_a_bent_probability():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, 20_000)
    labels = rng.random(20_000) < scipy.special.expit(logits) ** 3
    half = len(labels) // 2
    fitted = calibration.fit_isotonic(logits[:half], labels[:half])
    rest = labels[half:], fitted(logits[half:])
    assert classification.calibration(*rest)[0, 1] < 0.03
    assert (np.diff(fitted(np.linspace(-9, 9, 500))) >= 0).all()


def test_the_curve_by_hand():
    probability = np.array([0.0, 0.05, 0.5, 0.55, 1.0, 0.95])
    labels = np.array([False, True, True, False, True, True])
    assert calibration.curve(labels, probability) == [
        {"low": 0.0, "high": 0.1, "nodules": 2, "probability": 0.025, "share": 0.5},
        {"low": 0.5, "high": 0.6, "nodules": 2, "probability": pytest.approx(0.525), "share": 0.5},
        {"low": 0.9, "high": 1.0, "nodules": 2, "probability": pytest.approx(0.975), "share": 1.0},
    ]


@pytest.mark.parametrize("fit", [calibration.fit_temperature, calibration.fit_isotonic])
def test_nodules_of_one_kind_cannot_calibrate(fit):
    with pytest.raises(ValueError, match="both kinds"):
        fit(np.array([1.0, 2.0]), np.array([True, True]))
    with pytest.raises(ValueError, match="bool labels"):
        fit(np.array([1.0, 2.0]), np.array([1, 0]))
