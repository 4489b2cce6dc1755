"""The report of a segmentation: a model's figures, the readers' own for comparison, the differences of two models."""

from __future__ import annotations

from typing import Any

import numpy as np

from lungjax.evaluation.segmentation import disagreement, nodules_3d, reliability, sections, surface
from lungjax.evaluation.segmentation.tally import Tally
from lungjax.evaluation.stats import bootstrap, figures

AGAINST_MAJORITY = (
    "The model is scored against the majority: pixels marked by at least 2 readers. A reader is scored against the "
    "pixels marked by at least 2 of the other readers; a slot is a position in a nodule's list of readings, not a "
    "person, and the readers' value is the mean over slots. pooled: pixels counted over all slices, then scored; "
    "pooled_own: only over the slices where the rater's own reference is not empty, so that what is marked where no "
    "two readers agree does not count. per_slice: each slice scored, then averaged over the slices where the majority "
    "of all readers is not empty, the same slices for model and readers; dice_all averages over every slice, dice_own "
    "over the slices where the rater's own reference is not empty (for the model the same as dice). Note that where "
    "only two readers marked, each of them has an empty reference and scores 0 in dice: dice_own is the fairer figure "
    "for a reader. Two empty masks agree: dice, iou, precision and recall are 1; where only one is empty they are 0. "
    "null: undefined."
)
AGAINST_ONE_READER = (
    "The data have the mask of one reader, or one consensus, and the model is scored against it; readers is null, "
    "because there is no other reader to compare with. pooled: pixels counted over all slices, then scored; "
    "pooled_own: over the slices where the mask is not empty. per_slice: each slice scored, then averaged over the "
    "slices where the mask is not empty; dice_all averages over every slice, dice_own is the same as dice. Two empty "
    "masks agree: dice, iou, precision and recall are 1; where only one is empty they are 0. null: undefined."
)
AGAINST_READERS = (
    "The model against each reader, and each reader against every other reader, both ways round; each pair of a slice "
    "(or nodule) and a reader counts once, so it does not matter in which slot a reading is. pooled: pixels counted "
    "over all slices and all readers; the mask of a reader who marked nothing is empty. per_slice, per_nodule: over "
    "those that the reference reader marked; dice_both over those where neither mask is empty. A reader who did not "
    "mark what the other marked scores 0 there, but not in dice_both."
)
DIFFERENCE = (
    "The figure of --model minus that of --against, on the same slices; the same patients are resampled for both. "
    "hd95_mm: each model's mean is over the slices or nodules where its own mask is not empty."
)


def segmentation_figures(
    tally: Tally, against: Tally | None = None, *, resamples: int = bootstrap.RESAMPLES, seed: int = 0
) -> dict[str, Any]:
    """Every figure with its 95 % interval, ready for JSON; `conventions` says what each figure means.

    Args:
      tally: a model's finished tally.
      against: another model's tally of the same slices.
      resamples, seed: of the bootstrap over patients.

    Returns:
      What `figures.estimate` returns: `pooled`, `pooled_own`, `per_slice` and `per_nodule`, against the majority of the
      readers; `against_readers`, the same except `pooled_own`, against each reader; `ged`; `reliability`, with its
      `curve`. And `slices`, `slices_marked`, `nodules`, `nodules_marked`, `conventions`. Each `hd95_mm` has the number
      of slices or nodules that are `left_out`.

    Raises:
      ValueError: there is no slice, or the two models were not scored on the same slices.
    """
    if not len(tally.slices):
        raise ValueError("no slices to score")
    ours = sections.make_sections(tally)
    theirs = None if against is None else sections.make_sections(against)
    report = figures.estimate(ours, against=theirs, resamples=resamples, seed=seed)
    _add_without_interval(report, [(section, section.model) for section in ours], tally.reliability)
    if report["readers"] is not None:
        of_readers = [(section, section.readers) for section in ours if section.readers is not None]
        _add_without_interval(report["readers"], of_readers, sections.reader_reliability(tally))
    if against is not None and theirs is not None:
        of_other = [(section, section.model) for section in theirs]
        _add_without_interval(report["against"], of_other, against.reliability)
    for name, units in (("slices", tally.slices), ("nodules", tally.nodules.units)):
        report[name], report[f"{name}_marked"] = len(units), int(np.count_nonzero(sections.has_majority(units)))
    report["conventions"] = _conventions(one_reader=tally.readers == 1, compared=against is not None)
    return report


def _add_without_interval(
    part: dict[str, Any], scored: list[tuple[figures.Section, np.ndarray]], bin_sums: np.ndarray
) -> None:
    """Adds what has no interval: the reliability curve, and how many slices or nodules HD95 leaves out."""
    part["reliability"]["curve"] = reliability.reliability_curve(bin_sums)
    for section, values in scored:
        number = sections.left_out_of_hd95(section, values)
        if number is not None:
            place = part
            for name in section.path:
                place = place[name]
            place["hd95_mm"]["left_out"] = number


def _conventions(*, one_reader: bool, compared: bool) -> dict[str, str]:
    several = {"against_readers": AGAINST_READERS, "ged": disagreement.CONVENTIONS}
    return {
        "scores": AGAINST_ONE_READER if one_reader else AGAINST_MAJORITY,
        "per_nodule": nodules_3d.CONVENTIONS,
        "surface": surface.CONVENTIONS,
        "reliability": reliability.CONVENTIONS,
        **({} if one_reader else several),
        **({"difference": DIFFERENCE} if compared else {}),
    }
