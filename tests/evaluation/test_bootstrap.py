"""Intervals against the central limit theorem, against coverage of a known truth, and at their edges."""

from __future__ import annotations

import time

import numpy as np
import pytest

from lungjax.evaluation.stats import bootstrap


def _mean(sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / sums[..., 1]


def test_patient_sums_by_hand():
    values = np.array([[1, 10], [2, 20], [4, 40], [8, 80]])
    sums = bootstrap.patient_sums(values, ["b", "a", "b", "c"])
    np.testing.assert_array_equal(sums, [[2, 20], [5, 50], [8, 80]])  # a, b, c
    among = bootstrap.patient_sums(values, ["d", "b", "d", "e"], among=["a", "b", "c", "d", "e"])
    np.testing.assert_array_equal(among, [[0, 0], [2, 20], [0, 0], [5, 50], [8, 80]])
    with pytest.raises(ValueError, match="patient e is not in `among`, which has 2 patients"):
        bootstrap.patient_sums(values, ["d", "b", "d", "e"], among=["b", "d"])
    with pytest.raises(ValueError, match="4 slices but 2 patient IDs"):
        bootstrap.patient_sums(values, ["a", "b"])


def test_a_resample_draws_as_many_patients_as_there_are():
    weights = bootstrap.resample_weights(7, resamples=200, seed=1)
    assert weights.shape == (200, 7)
    np.testing.assert_array_equal(weights.sum(axis=1), 7)
    np.testing.assert_array_equal(weights, bootstrap.resample_weights(7, resamples=200, seed=1))
    assert (weights != bootstrap.resample_weights(7, resamples=200, seed=2)).any()


def test_interval_of_a_mean_meets_the_central_limit_theorem():
    x = np.random.default_rng(0).normal(5, 2, 400)
    low, high = bootstrap.interval(np.stack([x, np.ones(400)], axis=1), _mean, resamples=20_000)
    half = 1.959964 * x.std() / np.sqrt(400)
    # Percentiles of 20,000 resamples scatter by about 1.5 % of the half width; skewness adds less.
    np.testing.assert_allclose([x.mean() - low, high - x.mean()], half, rtol=0.06)


def test_interval_covers_the_truth_about_as_often_as_it_says():
    """Slices of one patient share an effect, so an interval over slices would be far too narrow."""
    rng = np.random.default_rng(0)
    trials, patients, slices = 300, 40, 20
    covered = covered_by_slices = 0
    for trial in range(trials):
        share = rng.beta(4, 4, patients)  # The truth is 1/2.
        hits = rng.random((patients, slices)) < share[:, None]
        sums = np.stack([hits.sum(axis=1), np.full(patients, slices)], axis=1)
        low, high = bootstrap.interval(sums, _mean, resamples=300, seed=trial)
        covered += bool(low <= 0.5 <= high)
        each = np.stack([hits.ravel(), np.ones(hits.size)], axis=1)
        low, high = bootstrap.interval(each, _mean, resamples=100, seed=trial)
        covered_by_slices += bool(low <= 0.5 <= high)
    assert 0.90 < covered / trials < 0.98  # 0.95, less a little for 40 patients; 2 sigma are 0.025.
    assert covered_by_slices / trials < 0.80


def test_no_interval_from_one_patient_or_an_undefined_figure():
    low, high = bootstrap.interval(np.array([[3.0, 4.0]]), _mean)
    assert np.isnan(low)
    assert np.isnan(high)

    def undefined(sums: np.ndarray) -> np.ndarray:
        return np.stack([_mean(sums), np.full(len(sums), np.nan)], axis=-1)

    low, high = bootstrap.interval(np.array([[3.0, 4.0], [1.0, 4.0]]), undefined)
    np.testing.assert_array_equal([low[0], high[0]], [1 / 4, 3 / 4])
    assert np.isnan([low[1], high[1]]).all()


def test_a_thousand_resamples_of_all_lidc_patients_are_quick():
    rng = np.random.default_rng(0)
    patients = [f"P{p}" for p in rng.integers(0, 700, 12_471)]
    start = time.perf_counter()
    bootstrap.interval(bootstrap.patient_sums(rng.random((12_471, 5, 18)), patients), lambda sums: sums)
    assert time.perf_counter() - start < 5  # Measured: 0.2 s; the rest is for a busy machine.
