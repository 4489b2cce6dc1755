"""From what is kept of slices and nodules to what is estimated: who is scored against whom, and what a mean is over."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lungjax import metrics
from lungjax.evaluation.segmentation import disagreement, overlap_matrix, reliability, surface
from lungjax.evaluation.segmentation.tally import Tally
from lungjax.evaluation.segmentation.units import Units
from lungjax.evaluation.stats import figures
from lungjax.evaluation.stats.figures import Means, Section


def of(tally: Tally) -> list[Section]:
    """Every section of a finished tally; of a single reader only those that need no other."""
    pairs = overlap_matrix.pairs_of(tally.readers)
    slices, nodules = tally.slices, tally.nodules.units
    several = tally.readers > 1
    model, others = slices.counts(pairs.model), slices.counts(pairs.readers) if several else None
    found = [
        figures.pooled(("pooled",), model_counts=model, reader_counts=others, patients=slices.patients),
        figures.pooled(
            ("pooled_own",),
            model_counts=_of_referenced(model),
            reader_counts=None if others is None else _of_referenced(others),
            patients=slices.patients,
        ),
        majority(("per_slice",), slices, readers=tally.readers),
        majority(("per_nodule",), nodules, readers=tally.readers),
        _reliability(tally),
    ]
    if several:
        pooled = figures.pooled(
            ("against_readers", "pooled"),
            model_counts=slices.counts(pairs.model_each),
            reader_counts=slices.counts(pairs.readers_each),
            patients=slices.patients,
        )
        found += [
            figures.merged(pooled),
            each(("against_readers", "per_slice"), slices, readers=tally.readers),
            each(("against_readers", "per_nodule"), nodules, readers=tally.readers),
            _ged(tally),
        ]
    return found


def marked(units: Units) -> np.ndarray:
    """bool (units,): whether the majority of all readers is not empty."""
    return units.overlaps[:, overlap_matrix.MAJORITY, overlap_matrix.MAJORITY] > 0


def majority(path: tuple[str, ...], units: Units, *, readers: int) -> Section:
    """Means over slices or nodules, the model against the majority, each reader against that of the others.

    Every mean is over the units where the majority of all readers is not empty, but `dice_all`, over all, and
    `dice_own`, where the rater's own reference is not empty.
    """
    there = marked(units)

    def values(pairs: Sequence[overlap_matrix.Pair]) -> Means:
        counts = units.counts(pairs)  # (raters, units, 4)
        part = np.tile(there, (len(pairs), 1))
        dice = metrics.scores(counts)["dice"]
        own: Means = {"dice_all": (dice, np.ones_like(part)), "dice_own": (dice, _referenced(counts))}
        return _scores(counts, part) | own | _surfaces(units.surfaces(pairs), part)

    pairs = overlap_matrix.pairs_of(readers)
    return figures.means(
        path,
        model=values(pairs.model),
        readers=values(pairs.readers) if readers > 1 else None,
        patients=units.patients,
    )


def each(path: tuple[str, ...], units: Units, *, readers: int) -> Section:
    """Means over pairs of a unit and a reader who marked it: the model, or another reader, against that reader."""

    def values(pairs: Sequence[overlap_matrix.Pair]) -> Means:
        counts = units.counts(pairs)
        part = _referenced(counts)
        both: Means = {"dice_both": (metrics.scores(counts)["dice"], part & (counts[..., 0] + counts[..., 1] > 0))}
        return _scores(counts, part) | both | _surfaces(units.surfaces(pairs), part)

    pairs = overlap_matrix.pairs_of(readers)
    return figures.merged(
        figures.means(
            path,
            model=values(pairs.model_each),
            readers=values(pairs.readers_each),
            patients=units.patients,
        )
    )


def dice(units: Units, *, readers: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Dice of each: the model's where the majority is not empty, the readers' where their own reference is not.

    Returns:
      float64 (units,), and (readers and units,), or None of one reader.
    """
    pairs = overlap_matrix.pairs_of(readers)
    model, others = (units.counts(of) for of in (pairs.model, pairs.readers))
    ours = metrics.scores(model)["dice"][_referenced(model)]
    return ours, metrics.scores(others)["dice"][_referenced(others)] if readers > 1 else None


def left_out(section: Section, who: np.ndarray) -> int | None:
    """Over how many units with known spacing HD95 cannot average, for a mask is empty; None where it has no HD95.

    Args:
      section: of `majority` or `each`.
      who: its `model` or its `readers`.
    """
    if "hd95_mm" not in section.names:
        return None
    number = who.sum(axis=(0, 1))[len(section.names) :]  # How many units each mean is over.
    distance, dice = (section.names.index(name) for name in surface.NAMES[:2])
    return int(number[dice] - number[distance])


def reader_reliability(tally: Tally) -> np.ndarray:
    """As of `reliability.reader_sums`."""
    return reliability.reader_sums(tally.slices.overlaps, tally.slices.pixels, readers=tally.readers)


def _reliability(tally: Tally) -> Section:
    readers = reader_reliability(tally)[None] if tally.readers > 1 else None
    path, names = ("reliability",), reliability.NAMES
    return Section(path, names, tally.slices.patients, tally.reliability[None], readers, reliability.figures)


def _ged(tally: Tally) -> Section:
    """Means over the slices that a reader marked."""
    overlaps, all_readers = tally.slices.overlaps, slice(overlap_matrix.READER, overlap_matrix.READER + tally.readers)
    pixels = np.diagonal(overlaps, axis1=1, axis2=2)[:, all_readers].sum(axis=-1)
    part = (pixels > 0)[None]  # (1, slices)
    apart = disagreement.distances(overlaps)
    mask = disagreement.ged2(apart, slice(overlap_matrix.PREDICTION, overlap_matrix.PREDICTION + 1), all_readers)
    sampled = [mask] * len(disagreement.SAMPLES) if tally.ged is None else tally.ged
    model, readers = (
        {name: (value[None], part) for name, value in zip(disagreement.NAMES, values, strict=True)}
        for values in ((mask, *sampled), disagreement.ceiling(apart, all_readers))
    )
    return figures.means(("ged",), model=model, readers=readers, patients=tally.slices.patients)


def _referenced(counts: np.ndarray) -> np.ndarray:
    """Whether the reference is not empty: (..., 4) -> bool (...)."""
    return counts[..., 0] + counts[..., 2] > 0


def _of_referenced(counts: np.ndarray) -> np.ndarray:
    """The counts (..., 4), none of those whose reference is empty."""
    return counts * _referenced(counts)[..., None]


def _scores(counts: np.ndarray, part: np.ndarray) -> Means:
    return {name: (score, part) for name, score in metrics.scores(counts).items()}


def _surfaces(values: np.ndarray, part: np.ndarray) -> Means:
    """Values (raters, units, len(surface.NAMES)); a NaN, an empty mask or unknown spacing, is no part of its mean."""
    return {name: (values[..., n], part & np.isfinite(values[..., n])) for n, name in enumerate(surface.NAMES)}
