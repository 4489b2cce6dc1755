"""Figures with intervals: what is added up over slices or nodules, and what is made of the sums.

A figure is a function of sums, so one matrix of weights, drawn once, resamples the patients of every figure, of model
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
    """Some figures, of a model and of the readers.

    Attributes:
      path: where they stand in the report, for instance ("against_readers", "pooled").
      names: of the figures.
      patients: (units,) the patient of each unit, a slice or a nodule.
      model: (raters, units, columns), what is added up over units; a figure is the mean over raters.
      readers: the same of the readers; None where only one looked, or the figure has none.
      figures: sums (..., columns) -> (..., len(names)); NaN where undefined.
    """

    path: tuple[str, ...]
    names: tuple[str, ...]
    patients: Sequence[str]
    model: np.ndarray
    readers: np.ndarray | None
    figures: Callable[[np.ndarray], np.ndarray]


def pooled(
    path: tuple[str, ...], *, model_counts: np.ndarray, reader_counts: np.ndarray | None, patients: Sequence[str]
) -> Section:
    """Counts (raters, units, 4) added up, then scored: `lungjax.metrics.SCORES`; undefined without any pixel."""

    def scored(sums: np.ndarray) -> np.ndarray:
        found = np.stack([metrics.scores(sums)[name] for name in metrics.SCORES], axis=-1)
        return np.where(sums.sum(axis=-1, keepdims=True) > 0, found, np.nan)

    return Section(path, metrics.SCORES, patients, model_counts, reader_counts, scored)


_NO_INTERVAL = "none: one patient says nothing about the spread between patients"

Means = dict[str, tuple[np.ndarray, np.ndarray]]
"""Of each figure: values (raters, units), and bool of that shape, whether the unit is part of its mean."""


def means(path: tuple[str, ...], *, model: Means, readers: Means | None, patients: Sequence[str]) -> Section:
    """Means over the units that are part of each; a value that is not part may be NaN."""
    names = tuple(model)

    def summable(values: Means) -> np.ndarray:
        part = np.stack([values[name][1] for name in names], axis=-1)
        value = np.stack([values[name][0] for name in names], axis=-1)
        return np.concatenate([np.where(part, value, 0.0), part], axis=-1)

    def averaged(sums: np.ndarray) -> np.ndarray:
        total, number = np.split(sums, 2, axis=-1)
        return np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0)

    return Section(path, names, patients, summable(model), None if readers is None else summable(readers), averaged)


def merged(section: Section) -> Section:
    """Raters added up to one, so that a pair of a unit and a rater counts once, whatever its rater's name."""
    one = {who: None if part is None else part.sum(axis=0, keepdims=True) for who, part in _parts(section).items()}
    return dataclasses.replace(section, **one)


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
      against: the same sections of another model on the same units, to be compared with.
      resamples, seed: of the bootstrap over patients.

    Returns:
      The model's figures at the sections' paths, each {"value", "low", "high"}; under "readers" the readers', with
      "each", one value a rater, where there are several, or None where no section has any; under "against" the other
      model's, and there under "difference" the first less the second; "patients", "interval". An undefined figure
      is None, never NaN.

    Raises:
      ValueError: the two models' sections are not of the same units.
    """
    people = sorted({patient for section in sections for patient in section.patients})
    weights = bootstrap.draw(len(people), resamples=resamples, seed=seed).astype(np.float64)
    report: dict[str, Any] = {"readers": {} if any(section.readers is not None for section in sections) else None}
    for place, section in enumerate(sections):
        each, drawn = _drawn(section, section.model, people, weights)
        _put(report, section, each, drawn)
        if section.readers is not None:
            _put(report["readers"], section, *_drawn(section, section.readers, people, weights))
        if against is not None:
            _check_same_units(section, against[place])
            each_other, drawn_other = _drawn(section, against[place].model, people, weights)
            other = report.setdefault("against", {"difference": {}})
            _put(other, section, each_other, drawn_other)
            _put(other["difference"], section, each - each_other, drawn - drawn_other)
    spread = f"95 % percentile bootstrap over patients, {resamples} resamples, seed {seed}"
    report["patients"] = len(people)
    report["interval"] = spread if len(people) > 1 else _NO_INTERVAL
    return report


def number(x: float) -> float | None:
    """For JSON, which knows no NaN."""
    return float(x) if math.isfinite(x) else None


def _parts(section: Section) -> dict[str, np.ndarray | None]:
    return {"model": section.model, "readers": section.readers}


def _drawn(
    section: Section, values: np.ndarray, people: Sequence[str], weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Figures of each rater (raters, names), and in each resample their means over raters (resamples, names)."""
    sums = bootstrap.patient_sums(values.swapaxes(0, 1), section.patients, among=people)  # (people, raters, columns)
    resampled = section.figures(np.tensordot(weights, sums, axes=1))
    return section.figures(sums.sum(axis=0)), resampled.mean(axis=1)


def _put(report: dict[str, Any], section: Section, each: np.ndarray, drawn: np.ndarray) -> None:
    """Writes value and interval of each figure where the section's path says."""
    for name in section.path:
        report = report.setdefault(name, {})
    low, high = bootstrap.percentiles(drawn)
    single = len(set(section.patients)) < 2
    for place, name in enumerate(section.names):
        ends = (math.nan, math.nan) if single else (low[place], high[place])
        figure = dict(zip(("value", "low", "high"), map(number, (each[:, place].mean(), *ends)), strict=True))
        report[name] = figure | ({"each": [number(x) for x in each[:, place]]} if len(each) > 1 else {})


def _check_same_units(ours: Section, theirs: Section) -> None:
    if (ours.path, ours.names, list(ours.patients)) != (theirs.path, theirs.names, list(theirs.patients)):
        raise ValueError(f"{'.'.join(ours.path)}: the two models were not scored on the same slices")
