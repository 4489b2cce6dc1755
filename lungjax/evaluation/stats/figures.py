"""Figures with intervals, computed from sums over slices or nodules.

A figure is a function of sums, so one matrix of weights, drawn once, resamples the patients for every figure of model
and readers, and of two models: their differences are paired.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lungjax import metrics
from lungjax.evaluation.stats import bootstrap


@dataclasses.dataclass(frozen=True)
class Section:
    """A group of figures of a model and of the readers.

    Attributes:
      path: where the figures stand in the report, for instance ("against_readers", "pooled").
      names: of the figures.
      patients: (units,), the patient of each unit, a slice or a nodule.
      model: (raters, units, columns), the values to add up over units; a figure is the mean over raters.
      readers: the same for the readers; None where there is one reader, or no figures of readers.
      figures: maps sums (..., columns) to figures (..., len(names)); NaN where undefined.
    """

    path: tuple[str, ...]
    names: tuple[str, ...]
    patients: Sequence[str]
    model: np.ndarray
    readers: np.ndarray | None
    figures: Callable[[np.ndarray], np.ndarray]


def pooled_section(
    path: tuple[str, ...], *, model_counts: np.ndarray, reader_counts: np.ndarray | None, patients: Sequence[str]
) -> Section:
    """`lungjax.metrics.SCORES` of counts (raters, units, 4), added up first; undefined without any pixel."""

    def scored(sums: np.ndarray) -> np.ndarray:
        values = np.stack([metrics.scores(sums)[name] for name in metrics.SCORES], axis=-1)
        return np.where(sums.sum(axis=-1, keepdims=True) > 0, values, np.nan)

    return Section(path, metrics.SCORES, patients, model_counts, reader_counts, scored)


_NO_INTERVAL = "none: one patient says nothing about the spread between patients"

Means = dict[str, tuple[np.ndarray, np.ndarray]]
"""For each figure: values (raters, units), and bool of the same shape, whether the unit is part of the mean."""


def means_section(path: tuple[str, ...], *, model: Means, readers: Means | None, patients: Sequence[str]) -> Section:
    """Means, each over the units that are part of it; other values may be NaN."""
    names = tuple(model)

    def summable(values: Means) -> np.ndarray:
        part = np.stack([values[name][1] for name in names], axis=-1)
        value = np.stack([values[name][0] for name in names], axis=-1)
        return np.concatenate([np.where(part, value, 0.0), part], axis=-1)

    def averaged(sums: np.ndarray) -> np.ndarray:
        total, number = np.split(sums, 2, axis=-1)
        return np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0)

    return Section(path, names, patients, summable(model), None if readers is None else summable(readers), averaged)


def merge_raters(section: Section) -> Section:
    """Adds up all raters, so that each pair of a unit and a rater counts once, whichever slot the rater has."""
    readers = None if section.readers is None else section.readers.sum(axis=0, keepdims=True)
    return dataclasses.replace(section, model=section.model.sum(axis=0, keepdims=True), readers=readers)


def estimate(
    sections: Sequence[Section],
    *,
    against: Sequence[Section] | None = None,
    resamples: int = bootstrap.RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Every figure with its 95 % interval, ready for JSON.

    Args:
      sections: of a model and the readers.
      against: the same sections of another model on the same units.
      resamples, seed: of the bootstrap over patients.

    Returns:
      The model's figures at the sections' paths, each {"value", "low", "high"}. Under "readers" those of the readers,
      with "each", a value for each rater, where there are several; None where no section has readers. Under "against"
      those of the other model, and in it under "difference" the first model's minus the other's. "patients",
      "interval". An undefined figure is None, never NaN.

    Raises:
      ValueError: the two models' sections do not have the same units.
    """
    people = sorted({patient for section in sections for patient in section.patients})
    weights = bootstrap.resample_weights(len(people), resamples=resamples, seed=seed).astype(np.float64)
    report: dict[str, Any] = {"readers": {} if any(section.readers is not None for section in sections) else None}
    for place, section in enumerate(sections):
        each, resampled = _resampled(section, section.model, people, weights)
        _put_figures(report, section, each, resampled)
        if section.readers is not None:
            _put_figures(report["readers"], section, *_resampled(section, section.readers, people, weights))
        if against is not None:
            _check_same_units(section, against[place])
            each_other, resampled_other = _resampled(section, against[place].model, people, weights)
            other = report.setdefault("against", {"difference": {}})
            _put_figures(other, section, each_other, resampled_other)
            _put_figures(other["difference"], section, each - each_other, resampled - resampled_other)
    spread = f"95 % percentile bootstrap over patients, {resamples} resamples, seed {seed}"
    report["patients"] = len(people)
    report["interval"] = spread if len(people) > 1 else _NO_INTERVAL
    return report


def finite_or_none(x: float) -> float | None:
    """A number for JSON, which has no NaN."""
    return float(x) if math.isfinite(x) else None


def _resampled(
    section: Section, values: np.ndarray, people: Sequence[str], weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The figures of each rater (raters, names), and their means over raters in each resample (resamples, names)."""
    sums = bootstrap.patient_sums(values.swapaxes(0, 1), section.patients, among=people)  # (people, raters, columns)
    resampled = section.figures(np.tensordot(weights, sums, axes=1))
    return section.figures(sums.sum(axis=0)), resampled.mean(axis=1)


def _put_figures(report: dict[str, Any], section: Section, each: np.ndarray, resampled: np.ndarray) -> None:
    """Puts value and interval of each figure at the section's path."""
    for name in section.path:
        report = report.setdefault(name, {})
    low, high = bootstrap.percentiles(resampled)
    single = len(set(section.patients)) < 2
    for place, name in enumerate(section.names):
        ends = (math.nan, math.nan) if single else (low[place], high[place])
        figure = dict(zip(("value", "low", "high"), map(finite_or_none, (each[:, place].mean(), *ends)), strict=True))
        report[name] = figure | ({"each": [finite_or_none(x) for x in each[:, place]]} if len(each) > 1 else {})


def _check_same_units(ours: Section, theirs: Section) -> None:
    if (ours.path, ours.names, list(ours.patients)) != (theirs.path, theirs.names, list(theirs.patients)):
        raise ValueError(f"{'.'.join(ours.path)}: the two models were not scored on the same slices")
