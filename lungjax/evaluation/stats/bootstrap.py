"""Intervals by patient: slices of one patient are nearly copies, so whole patients are resampled.

Every figure here is a function of sums over slices. Slices are therefore first summed within each patient, and a
resample is a vector of weights: how often each patient was drawn. One matrix product gives all resamples.

Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13 (the percentile interval).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

RESAMPLES = 1000
COVERAGE = 0.95


def patient_sums(values: np.ndarray, patients: Sequence[str], *, among: Sequence[str] | None = None) -> np.ndarray:
    """Sums over the slices of each patient.

    Args:
      values: (slices, ...), of any numeric type.
      patients: (slices,), the patient of each slice, in any order.
      among: the patients to return sums for, which must include all of `patients`; None for those in `patients`.

    Returns:
      (patients, ...) float64, patients sorted by ID, so that the order of the slices does not matter.

    Raises:
      ValueError: the two lengths differ, or a patient is not in `among`.
    """
    values = np.asarray(values)
    if len(values) != len(patients):
        raise ValueError(f"{len(values)} slices but {len(patients)} patient IDs")
    ids = np.unique(np.asarray(patients if among is None else among, dtype=str))
    known, patient = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    if missing := sorted(set(known) - set(ids)):
        raise ValueError(f"patient {missing[0]} is not in `among`, which has {len(ids)} patients")
    sums = np.zeros((len(ids), *values.shape[1:]))
    np.add.at(sums, np.searchsorted(ids, known)[patient], values)
    return sums


def resample_weights(patients: int, *, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """How often each patient is drawn in each resample: int64 (resamples, patients), each row of sum `patients`."""
    shares = np.full(patients, 1 / patients)
    return np.random.default_rng(seed).multinomial(patients, shares, size=resamples)


def interval(
    sums: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    coverage: float = COVERAGE,
) -> tuple[np.ndarray, np.ndarray]:
    """The percentile interval of a statistic when patients are drawn with replacement.

    Args:
      sums: (patients, ...), from `patient_sums`.
      statistic: maps sums over patients (resamples, ...) to figures (resamples, *figures), row by row. It may return
        NaN where a resample leaves a figure undefined; such resamples are left out of that figure.
      resamples: their number.
      seed: the same seed draws the same patients, so figures of one call, and of two calls with the same number of
        patients, are paired.
      coverage: 0.95 gives the percentiles 2.5 and 97.5, interpolated linearly.

    Returns:
      low, high: (*figures,) float64, NaN where no interval exists: for a single patient, or for a figure that is
      undefined in every resample.
    """
    sums = np.asarray(sums, np.float64)
    weights = resample_weights(len(sums), resamples=resamples, seed=seed).astype(np.float64)
    low, high = percentiles(statistic(np.tensordot(weights, sums, axes=1)), coverage=coverage)
    several = len(sums) > 1
    return np.where(several, low, np.nan), np.where(several, high, np.nan)


def percentiles(figures: np.ndarray, *, coverage: float = COVERAGE) -> tuple[np.ndarray, np.ndarray]:
    """The ends of the percentile interval.

    Args:
      figures: (resamples, *figures); NaN are left out.
      coverage: as for `interval`.

    Returns:
      low, high: (*figures,) float64, NaN for a figure that is undefined in every resample.
    """
    figures = np.asarray(figures, np.float64)
    exists = np.isfinite(figures).any(axis=0)
    figures = np.where(exists, figures, 0.0)  # nanquantile warns about columns that hold only NaN
    tail = (1 - coverage) / 2
    low, high = np.nanquantile(figures, [tail, 1 - tail], axis=0)
    return np.where(exists, low, np.nan), np.where(exists, high, np.nan)
