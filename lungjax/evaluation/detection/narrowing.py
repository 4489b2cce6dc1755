"""Narrowing a scan to the slices that matter: how many of the readers' nodules remain when only some slices are kept.

Slices are kept in this order: one slice of each candidate, by falling score; the other slices that candidates touch;
the other slices of the lungs; the rest. The readers' marks play no part in it. If all slices of a candidate came before
the next candidate, tall false positives such as vessels and the diaphragm would delay the nodules.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lungjax.evaluation.stats import bootstrap
from lungjax.evaluation.stats.figures import finite_or_none

KEPT = (1, 2, 5, 10, 20, 30, 40, 60, 80, 100, 150, 200)
"""The numbers of kept slices in a report."""
RECALLS = (0.8, 0.9, 0.95, 1.0)
READERS = (1, 3, 4)
"""Nodules are counted that at least this many readers marked."""
CONVENTIONS = (
    "The first slices of a scan to be kept are those in which its candidates are widest, in the order of their scores; "
    "then the other slices that candidates touch, by the highest score and, where scores are equal, by the distance "
    "from the slice where the candidate is widest; then the other slices that show lung, by its area; then the rest. "
    "recall: the share of the readers' nodules of which at least one slice is kept (a slice belongs to a nodule where "
    "any reader marked it); centre: the share of which the slice is kept in which the readers marked most. All slices "
    "of a scan with fewer slices are kept. chance: the expected recall of the same number of slices drawn at random. "
    "stages: the slices left by lungs, by candidates and by nodules; share_kept is the share of all "
    "slices of all scans."
)


@dataclasses.dataclass(frozen=True, eq=False)
class Narrowed:
    """The slices of one scan.

    Attributes:
      rank: int64 (slices,), 1 for the slice that is kept first.
      stages: by the stage's name, bool (slices,), which slices are left.
      marked: bool (nodules, slices), whether any reader marked the nodule there.
      centre: int64 (nodules,), the slice in which the readers marked most of the nodule.
      readers: int64 (nodules,), how many readers marked the nodule.
    """

    rank: np.ndarray
    stages: Mapping[str, np.ndarray]
    marked: np.ndarray
    centre: np.ndarray
    readers: np.ndarray


def rank_slices(scores: np.ndarray, slices: np.ndarray, widest: np.ndarray, lung_mm2: np.ndarray) -> np.ndarray:
    """The order in which a scan's slices are kept.

    Args:
      scores: (candidates,), higher for nodules.
      slices: (candidates, 2), the first and last slice that each candidate touches.
      widest: (candidates,), the slice in which each candidate is widest.
      lung_mm2: (slices,), the area of the lungs.

    Returns:
      int64 (slices,), ranks from 1, each once.
    """
    number = np.arange(len(lung_mm2))
    peak, best, aside = np.full(len(number), -np.inf), np.full(len(number), -np.inf), np.zeros(len(number))
    for score, (first, last), middle in zip(scores, slices, widest, strict=True):
        peak[middle] = max(peak[middle], score)
        better = (number >= first) & (number <= last) & (score > best)
        best[better], aside[better] = score, np.abs(number - middle)[better]
    touched = np.isfinite(best)
    order = np.lexsort((number, np.where(touched, aside, -lung_mm2), -best, -peak))
    ranks = np.empty(len(number), np.int64)
    ranks[order] = 1 + np.arange(len(number))
    return ranks


def recall_of_kept(scans: Sequence[Narrowed], kept: np.ndarray, *, readers: int) -> dict[str, np.ndarray]:
    """Recall when only the first slices of each scan are kept.

    Args:
      scans: any number of scans.
      kept: (points,), how many slices are kept.
      readers: count only nodules that at least this many readers marked.

    Returns:
      `recall`, `centre` and `chance`, see `CONVENTIONS`, float64 (points,), NaN where there is no nodule; `counts`,
      int64 (scans, 1 + 2 * points): all nodules, those with a slice that is kept, those whose centre is kept.
    """
    rows = []
    chance, total = np.zeros(len(kept)), 0
    for scan in scans:
        chosen = scan.readers >= readers
        marked, centre = scan.marked[chosen], scan.centre[chosen]
        first = np.where(marked, scan.rank, np.inf).min(axis=1, initial=np.inf)
        hits = [(at[:, None] <= kept).sum(axis=0) for at in (first, scan.rank[centre])]
        rows.append(np.concatenate([[len(centre)], *hits]))
        chance += sum((_chance(len(scan.rank), int(own), kept) for own in marked.sum(axis=1)), np.zeros(len(kept)))
        total += len(centre)
    counts = np.array(rows, np.int64).reshape(-1, 1 + 2 * len(kept))
    sums = counts.sum(axis=0, keepdims=True).astype(np.float64)
    any_slice, centre_slice = np.split(_shares(sums)[0], 2)
    nothing = np.full(len(kept), np.nan)
    return {
        "recall": any_slice,
        "centre": centre_slice,
        "chance": chance / total if total else nothing,
        "counts": counts,
    }


def narrowing_figures(
    scans: Sequence[Narrowed], *, resamples: int = bootstrap.RESAMPLES, seed: int = 0
) -> dict[str, Any]:
    """Recall over the number of slices kept, with 95 % intervals by bootstrap over scans; ready for JSON.

    Args:
      scans: at least one.
      resamples, seed: of the bootstrap.

    Returns:
      `slices`, the number in all scans; `stages`, for each stage the `slices` left, `share_kept`, and `recall` and
      `centre` by number of readers; `by_readers`, for each smallest number of readers `nodules`, `curve` (points of
      `kept`, `share_kept`, `recall`, `centre`, `chance`) and `slices_for`, for each recall the smallest number of
      slices a scan that reaches it; `conventions`. A figure is {"value", "low", "high"}; an undefined one is None.
    """
    sizes = np.array([len(scan.rank) for scan in scans])
    longest = int(sizes.max())
    kept = np.array([k for k in KEPT if k < longest] + [longest])
    share = np.minimum(kept, sizes[:, None]).sum(axis=0) / sizes.sum()
    every = np.arange(1, longest + 1)
    by_readers = {}
    for least in READERS:
        recalls = recall_of_kept(scans, kept, readers=least)
        counts = recalls["counts"]
        low, high = bootstrap.interval(counts, _shares, resamples=resamples, seed=seed)
        ends = {"recall": slice(0, len(kept)), "centre": slice(len(kept), None)}
        curve = [
            {
                "kept": int(k),
                "share_kept": float(share[at]),
                **{name: _figure(recalls[name][at], low[part][at], high[part][at]) for name, part in ends.items()},
                "chance": finite_or_none(recalls["chance"][at]),
            }
            for at, k in enumerate(kept)
        ]
        whole = recall_of_kept(scans, every, readers=least)["recall"]
        by_readers[str(least)] = {
            "nodules": int(counts[:, 0].sum()),
            "curve": curve,
            "slices_for": {f"{level:g}": _least(whole, level) for level in RECALLS},
        }
    return {
        "slices": int(sizes.sum()),
        "stages": {name: _stage(scans, name) for name in scans[0].stages},
        "by_readers": by_readers,
        "conventions": CONVENTIONS,
    }


def _stage(scans: Sequence[Narrowed], name: str) -> dict[str, Any]:
    left, total = sum(int(scan.stages[name].sum()) for scan in scans), sum(len(scan.rank) for scan in scans)
    figures: dict[str, Any] = {"slices": left, "share_kept": left / total, "recall": {}, "centre": {}}
    for least in READERS:
        some = np.concatenate([scan.marked[scan.readers >= least] @ scan.stages[name] for scan in scans])
        middle = np.concatenate([scan.stages[name][scan.centre[scan.readers >= least]] for scan in scans])
        for part, hits in (("recall", some), ("centre", middle)):
            figures[part][str(least)] = float(hits.mean()) if len(hits) else None
    return figures


def _shares(sums: np.ndarray) -> np.ndarray:
    """(resamples, 1 + 2 * points) sums of counts -> (resamples, 2 * points) shares, NaN without a nodule."""
    nodules = sums[:, :1]
    return np.divide(sums[:, 1:], nodules, out=np.full(sums[:, 1:].shape, np.nan), where=nodules > 0)


def _chance(slices: int, own: int, kept: np.ndarray) -> np.ndarray:
    """The probability that at least one of `kept` slices drawn at random is among a nodule's `own` slices
    (hypergeometric).
    """
    missed = np.ones(len(kept))
    for drawn in range(own):
        missed *= np.clip(slices - kept - drawn, 0, None) / (slices - drawn)
    return 1 - missed


def _least(recalls: np.ndarray, level: float) -> int | None:
    """The smallest number of slices, from 1, whose recall is at least `level`."""
    enough = np.flatnonzero(recalls >= level - 1e-9)
    return int(enough[0]) + 1 if len(enough) else None


def _figure(*three: float) -> dict[str, float | None]:
    return {name: finite_or_none(value) for name, value in zip(("value", "low", "high"), three, strict=True)}
