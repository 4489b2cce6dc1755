"""From all slices of a scan to those that matter: how many of the readers' nodules are still there when few are kept.

First comes one slice of each candidate, the best candidate first, then what else they touch, then other slices of the
lungs, then the rest. The readers' marks take no part in it. Were all slices of a candidate to come before the next
candidate, tall false ones, vessels and the diaphragm, would keep the nodules waiting.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lungjax.evaluation.stats import bootstrap

KEPT = (1, 2, 5, 10, 20, 30, 40, 60, 80, 100, 150, 200)
"""Slices of a scan that are kept, in a report."""
RECALLS = (0.8, 0.9, 0.95, 1.0)
READERS = (1, 3, 4)
"""Nodules are counted which at least so many readers marked."""
CONVENTIONS = (
    "The first slices to be kept of a scan are those in which its candidates are widest, by their scores; then the "
    "others that candidates touch, by the highest score and, where that is equal, nearest to where the candidate is "
    "widest; then the other slices that show lung, those with the most of it first; then the rest. recall: the share "
    "of the readers' nodules of which at least one slice is kept (a slice is a nodule's where any reader marked it); "
    "centre: of which the slice is kept in which the readers marked most. Of a scan with fewer slices all are kept. "
    "chance: the recall expected of as many slices drawn at random. stages: the slices that are left by lungs, by "
    "findings (all candidates) and by nodules; share_kept is of all slices of all scans."
)


@dataclasses.dataclass(frozen=True, eq=False)
class Narrowed:
    """One scan.

    Attributes:
      rank: int64 (slices,), 1 for the slice that is kept first.
      stages: by name, bool (slices,): the slices that are left.
      marked: bool (nodules, slices): where any reader marked a nodule.
      centre: int64 (nodules,), the slice in which the readers marked most of it.
      readers: int64 (nodules,), how many marked it.
    """

    rank: np.ndarray
    stages: Mapping[str, np.ndarray]
    marked: np.ndarray
    centre: np.ndarray
    readers: np.ndarray


def rank(scores: np.ndarray, slices: np.ndarray, widest: np.ndarray, lung_mm2: np.ndarray) -> np.ndarray:
    """The order in which a scan's slices are kept.

    Args:
      scores: (candidates,); the higher, the rather a nodule.
      slices: (candidates, 2) first and last slice that each touches, with all between them.
      widest: (candidates,) slice.
      lung_mm2: (slices,) area of lung.

    Returns:
      int64 (slices,), from 1 on; each number once.
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


def recall(scans: Sequence[Narrowed], kept: np.ndarray, *, readers: int) -> dict[str, np.ndarray]:
    """Recall when the first slices of each scan are kept.

    Args:
      scans: any number.
      kept: (points,) how many slices.
      readers: only nodules that at least so many marked.

    Returns:
      `recall`, `centre` and `chance`, see `CONVENTIONS`, float64 (points,), NaN where there is no nodule; `counts`,
      int64 (scans, 1 + 2 * points): nodules, those with a slice among what is kept, those with their centre.
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
      scans: one at least.
      resamples, seed: of the bootstrap.

    Returns:
      `slices` of all scans; `stages`: of each the `slices` left, `share_kept`, and `recall` and `centre` by number of
      readers; `by_readers`: by the least number of readers `nodules`, `curve` (a line each of `kept`, `share_kept`,
      `recall`, `centre`, `chance`), and `slices_for`: by recall the least number of slices a scan that reaches it;
      `conventions`. A figure is {"value", "low", "high"}; an undefined one is None.
    """
    sizes = np.array([len(scan.rank) for scan in scans])
    longest = int(sizes.max())
    kept = np.array([k for k in KEPT if k < longest] + [longest])
    share = np.minimum(kept, sizes[:, None]).sum(axis=0) / sizes.sum()
    every = np.arange(1, longest + 1)
    by_readers = {}
    for least in READERS:
        found = recall(scans, kept, readers=least)
        counts = found["counts"]
        low, high = bootstrap.interval(counts, _shares, resamples=resamples, seed=seed)
        ends = {"recall": slice(0, len(kept)), "centre": slice(len(kept), None)}
        curve = [
            {
                "kept": int(k),
                "share_kept": float(share[at]),
                **{name: _figure(found[name][at], low[part][at], high[part][at]) for name, part in ends.items()},
                "chance": _number(found["chance"][at]),
            }
            for at, k in enumerate(kept)
        ]
        whole = recall(scans, every, readers=least)["recall"]
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
    found: dict[str, Any] = {"slices": left, "share_kept": left / total, "recall": {}, "centre": {}}
    for least in READERS:
        some = np.concatenate([scan.marked[scan.readers >= least] @ scan.stages[name] for scan in scans])
        middle = np.concatenate([scan.stages[name][scan.centre[scan.readers >= least]] for scan in scans])
        for part, hits in (("recall", some), ("centre", middle)):
            found[part][str(least)] = float(hits.mean()) if len(hits) else None
    return found


def _shares(sums: np.ndarray) -> np.ndarray:
    """(resamples, 1 + 2 * points) sums of counts -> (resamples, 2 * points) shares, NaN without a nodule."""
    nodules = sums[:, :1]
    return np.divide(sums[:, 1:], nodules, out=np.full(sums[:, 1:].shape, np.nan), where=nodules > 0)


def _chance(slices: int, own: int, kept: np.ndarray) -> np.ndarray:
    """That of `kept` slices drawn at random one at least is among a nodule's `own`: hypergeometric."""
    missed = np.ones(len(kept))
    for drawn in range(own):
        missed *= np.clip(slices - kept - drawn, 0, None) / (slices - drawn)
    return 1 - missed


def _least(recalls: np.ndarray, level: float) -> int | None:
    """The least number of slices, from 1 on, whose recall is at least `level`."""
    enough = np.flatnonzero(recalls >= level - 1e-9)
    return int(enough[0]) + 1 if len(enough) else None


def _figure(*three: float) -> dict[str, float | None]:
    return {name: _number(value) for name, value in zip(("value", "low", "high"), three, strict=True)}


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
