"""The report of a segmentation: a model's figures, the readers' own beside them, the differences of two models."""

from __future__ import annotations

from typing import Any

import numpy as np

from lungjax.evaluation.segmentation import disagreement, nodules_3d, reliability, sections, surface
from lungjax.evaluation.segmentation.tally import Tally
from lungjax.evaluation.stats import bootstrap, figures

AGAINST_MAJORITY = (
    "The model is scored against the majority: pixels marked by at least 2 readers. A reader is scored "
    "against the pixels marked by at least 2 of the other readers; a slot is an order within a nodule, "
    "not a person, and the readers' value is the mean over slots. pooled: pixels counted over all slices, "
    "then scored; pooled_own: over those slices alone where the reference of that rater is not empty, so "
    "what is marked where no two readers agree does not count. per_slice: each slice scored, then averaged "
    "over the slices where the majority of all readers is not empty, the same slices for model and readers; "
    "dice_all averages over every slice, dice_own over the slices where the reference of that reader is not "
    "empty (for the model the same as dice). Mind that where only two readers marked, each of them meets an "
    "empty reference and scores 0 in dice: dice_own is the fairer figure of a reader. Two empty masks agree: "
    "dice, iou, precision and recall are 1; where just one is empty they are 0. null: undefined."
)
AGAINST_ONE_READER = (
    "The data have the mask of one reader, or one consensus, and the model is scored against that; readers is null, "
    "for there is no other to compare it with. pooled: pixels counted over all slices, then scored; pooled_own: over "
    "the slices where the mask is not empty. per_slice: each slice scored, then averaged over the slices where the "
    "mask is not empty; dice_all averages over every slice, dice_own is the same as dice. Two empty masks agree: dice, "
    "iou, precision and recall are 1; where just one is empty they are 0. null: undefined."
)
AGAINST_READERS = (
    "The model against each reader, the readers each against each other one, both ways round; each pair of a slice (or "
    "nodule) and a reader counts once, so it does not matter in which slot a reading lies. pooled: pixels counted over "
    "all slices and all readers, one who marked nothing with an empty mask. per_slice, per_nodule: over those that the "
    "reference marked; dice_both over those where both masks are not empty. A reader who did not mark what the other "
    "did scores 0 there, but not in dice_both."
)
DIFFERENCE = (
    "The figure of --workdir less that of --against, on the same slices; its interval is from the same resampled "
    "patients for both. hd95_mm: each averages where its own mask is not empty."
)


def report(
    tally: Tally, against: Tally | None = None, *, resamples: int = bootstrap.RESAMPLES, seed: int = 0
) -> dict[str, Any]:
    """Every figure with its 95 % interval, ready for JSON; what the figures mean is in its `conventions`.

    Args:
      tally: of a model, finished.
      against: of another one on the same slices.
      resamples, seed: of the bootstrap over patients.

    Returns:
      What `figures.estimate` gives of `pooled`, `pooled_own`, `per_slice` and `per_nodule`, against the majority of the
      readers; `against_readers`, all but the second against each reader; `ged`; `reliability`, with its `curve`. And
      `slices`, `slices_marked`, `nodules`, `nodules_marked`, `conventions`. Each `hd95_mm` tells how many are
      `left_out`.

    Raises:
      ValueError: there is no slice, or the two models were not scored on the same ones.
    """
    if not len(tally.slices):
        raise ValueError("no slices to score")
    ours = sections.of(tally)
    theirs = None if against is None else sections.of(against)
    found = figures.estimate(ours, against=theirs, resamples=resamples, seed=seed)
    _complete(found, [(section, section.model) for section in ours], tally.reliability)
    if found["readers"] is not None:
        beside = [(section, section.readers) for section in ours if section.readers is not None]
        _complete(found["readers"], beside, sections.reader_reliability(tally))
    if against is not None and theirs is not None:
        _complete(found["against"], [(section, section.model) for section in theirs], against.reliability)
    for name, units in (("slices", tally.slices), ("nodules", tally.nodules.units)):
        found[name], found[f"{name}_marked"] = len(units), int(np.count_nonzero(sections.marked(units)))
    found["conventions"] = _conventions(alone=tally.readers == 1, compared=against is not None)
    return found


def _complete(part: dict[str, Any], scored: list[tuple[figures.Section, np.ndarray]], binned: np.ndarray) -> None:
    """What has no interval: the reliability curve, and how many slices or nodules HD95 leaves out."""
    part["reliability"]["curve"] = reliability.curve(binned)
    for section, who in scored:
        out = sections.left_out(section, who)
        if out is not None:
            place = part
            for name in section.path:
                place = place[name]
            place["hd95_mm"]["left_out"] = out


def _conventions(*, alone: bool, compared: bool) -> dict[str, str]:
    several = {"against_readers": AGAINST_READERS, "ged": disagreement.CONVENTIONS}
    return {
        "scores": AGAINST_ONE_READER if alone else AGAINST_MAJORITY,
        "per_nodule": nodules_3d.CONVENTIONS,
        "surface": surface.CONVENTIONS,
        "reliability": reliability.CONVENTIONS,
        **({} if alone else several),
        **({"difference": DIFFERENCE} if compared else {}),
    }
