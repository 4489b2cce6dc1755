"""The sections of a segmentation report: which masks are scored against which, and over which slices or nodules."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lungjax import metrics
from lungjax.evaluation.segmentation import disagreement, overlap_matrix, reliability, surface
from lungjax.evaluation.segmentation.tally import Tally
from lungjax.evaluation.segmentation.units import Units
from lungjax.evaluation.stats import figures
from lungjax.evaluation.stats.figures import Means, Section


def make_sections(tally: Tally) -> list[Section]:
    """Every section for a finished tally; with a single reader, only those that need no other reader."""
    pairs = overlap_matrix.pairs_of(tally.readers)
    slices, nodules = tally.slices, tally.nodules.units
    several = tally.readers > 1
    model, others = slices.counts(pairs.model), slices.counts(pairs.readers) if several else None
    sections = [
        figures.pooled_section(("pooled",), model_counts=model, reader_counts=others, patients=slices.patients),
        figures.pooled_section(
            ("pooled_own",),
            model_counts=_only_referenced(model),
            reader_counts=None if others is None else _only_referenced(others),
            patients=slices.patients,
        ),
        majority_section(("per_slice",), slices, readers=tally.readers),
        majority_section(("per_nodule",), nodules, readers=tally.readers),
        _reliability_section(tally),
    ]
    if several:
        pooled = figures.pooled_section(
            ("against_readers", "pooled"),
            model_counts=slices.counts(pairs.model_each),
            reader_counts=slices.counts(pairs.readers_each),
            patients=slices.patients,
        )
        sections += [
            figures.merge_raters(pooled),
            each_reader_section(("against_readers", "per_slice"), slices, readers=tally.readers),
            each_reader_section(("against_readers", "per_nodule"), nodules, readers=tally.readers),
            _ged_section(tally),
        ]
    return sections


def has_majority(units: Units) -> np.ndarray:
    """bool (units,): whether the majority of all readers is not empty."""
    return units.overlaps[:, overlap_matrix.MAJORITY, overlap_matrix.MAJORITY] > 0


def majority_section(path: tuple[str, ...], units: Units, *, readers: int) -> Section:
    """Means over slices or nodules: the model against the majority, each reader against the majority of the others.

    Every mean is over the units where the majority of all readers is not empty, except `dice_all`, which is over all
    units, and `dice_own`, which is over those where the rater's own reference is not empty.
    """
    scored = has_majority(units)

    def values(pairs: Sequence[overlap_matrix.Pair]) -> Means:
        counts = units.counts(pairs)  # (raters, units, 4)
        part = np.tile(scored, (len(pairs), 1))
        dice = metrics.scores(counts)["dice"]
        own: Means = {"dice_all": (dice, np.ones_like(part)), "dice_own": (dice, _referenced(counts))}
        return _scores(counts, part) | own | _surfaces(units.surfaces(pairs), part)

    pairs = overlap_matrix.pairs_of(readers)
    return figures.means_section(
        path,
        model=values(pairs.model),
        readers=values(pairs.readers) if readers > 1 else None,
        patients=units.patients,
    )


def each_reader_section(path: tuple[str, ...], units: Units, *, readers: int) -> Section:
    """Means over pairs of a slice or nodule and a reader who marked it: the model, or another reader, against that
    reader.
    """

    def values(pairs: Sequence[overlap_matrix.Pair]) -> Means:
        counts = units.counts(pairs)
        part = _referenced(counts)
        both: Means = {"dice_both": (metrics.scores(counts)["dice"], part & (counts[..., 0] + counts[..., 1] > 0))}
        return _scores(counts, part) | both | _surfaces(units.surfaces(pairs), part)

    pairs = overlap_matrix.pairs_of(readers)
    return figures.merge_raters(
        figures.means_section(
            path,
            model=values(pairs.model_each),
            readers=values(pairs.readers_each),
            patients=units.patients,
        )
    )


def dice_values(units: Units, *, readers: int) -> tuple[np.ndarray, np.ndarray | None]:
    """The Dice of each slice or nodule: the model's where the majority is not empty, the readers' where their own
    reference is not empty.

    Returns:
      float64 (units,) of the model, and (readers and units,) of the readers, or None where there is one reader.
    """
    pairs = overlap_matrix.pairs_of(readers)
    model, others = (units.counts(chosen) for chosen in (pairs.model, pairs.readers))
    ours = metrics.scores(model)["dice"][_referenced(model)]
    return ours, metrics.scores(others)["dice"][_referenced(others)] if readers > 1 else None


def left_out_of_hd95(section: Section, values: np.ndarray) -> int | None:
    """How many units with known spacing the mean of HD95 leaves out because a mask is empty; None for a section without
    HD95.

    Args:
      section: from `majority_section` or `each_reader_section`.
      values: its `model` or its `readers`.
    """
    if "hd95_mm" not in section.names:
        return None
    number = values.sum(axis=(0, 1))[len(section.names) :]  # How many units each mean is over.
    distance, dice = (section.names.index(name) for name in surface.NAMES[:2])
    return int(number[dice] - number[distance])


def reader_reliability(tally: Tally) -> np.ndarray:
    """`reliability.reader_sums` of a tally."""
    return reliability.reader_sums(tally.slices.overlaps, tally.slices.pixels, readers=tally.readers)


def _reliability_section(tally: Tally) -> Section:
    readers = reader_reliability(tally)[None] if tally.readers > 1 else None
    path, names = ("reliability",), reliability.NAMES
    return Section(path, names, tally.slices.patients, tally.reliability[None], readers, reliability.ece_figures)


def _ged_section(tally: Tally) -> Section:
    """Means over the slices that at least one reader marked."""
    overlaps, all_readers = tally.slices.overlaps, slice(overlap_matrix.READER, overlap_matrix.READER + tally.readers)
    pixels = np.diagonal(overlaps, axis1=1, axis2=2)[:, all_readers].sum(axis=-1)
    part = (pixels > 0)[None]  # (1, slices)
    distances = disagreement.distances(overlaps)
    mask = disagreement.ged2(distances, slice(overlap_matrix.PREDICTION, overlap_matrix.PREDICTION + 1), all_readers)
    sampled = [mask] * len(disagreement.SAMPLES) if tally.ged is None else tally.ged
    model, readers = (
        {name: (value[None], part) for name, value in zip(disagreement.NAMES, values, strict=True)}
        for values in ((mask, *sampled), disagreement.ceiling(distances, all_readers))
    )
    return figures.means_section(("ged",), model=model, readers=readers, patients=tally.slices.patients)


def _referenced(counts: np.ndarray) -> np.ndarray:
    """Whether the reference is not empty: (..., 4) -> bool (...)."""
    return counts[..., 0] + counts[..., 2] > 0


def _only_referenced(counts: np.ndarray) -> np.ndarray:
    """The counts (..., 4), set to 0 where the reference is empty."""
    return counts * _referenced(counts)[..., None]


def _scores(counts: np.ndarray, part: np.ndarray) -> Means:
    return {name: (score, part) for name, score in metrics.scores(counts).items()}


def _surfaces(values: np.ndarray, part: np.ndarray) -> Means:
    """Means of values (raters, units, len(surface.NAMES)), without NaN: an empty mask, or unknown spacing."""
    return {name: (values[..., n], part & np.isfinite(values[..., n])) for n, name in enumerate(surface.NAMES)}
