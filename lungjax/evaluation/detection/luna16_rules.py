"""A detector's candidates against the nodules of LUNA16, by the challenge's rules; positions are in mm.

Sources: Setio et al., Medical Image Analysis 42, 2017, and the behaviour of the challenge's own script; the tests
reproduce its counts for a real submission.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lungjax import tables
from lungjax.errors import InputError

MOST_CANDIDATES = 100
"""In a scan with more candidates, only those count whose probability is above that of the first one too many."""
UNKNOWN_MM = 10.0
"""The diameter assumed where it is unknown, which a negative diameter stands for."""


@dataclasses.dataclass(frozen=True, eq=False)
class ScoredPoints:
    """Points in scans, from a CSV file of the challenge.

    Attributes:
      scan: (n,) text, the series ID.
      at_mm: (n, 3) float64: x, y, z.
      value: (n,) float64: a candidate's probability, or an annotation's diameter in mm, negative where unknown.
    """

    scan: np.ndarray
    at_mm: np.ndarray
    value: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Matches:
    """The matched candidates: all that FROC needs.

    Attributes:
      scan: (n,) int64, the index of the candidate's scan among all scans.
      probability: (n,) float64.
      hit: (n,) bool, True for a nodule's candidate of highest probability, False for a false positive.
      nodules: (scans,) int64, the number of nodules of each scan, detected or not.
      candidates, ignored, doubles: the number of all candidates, of those on excluded nodules, and of further hits of a
        nodule.
    """

    scan: np.ndarray
    probability: np.ndarray
    hit: np.ndarray
    nodules: np.ndarray
    candidates: int
    ignored: int
    doubles: int


def read_points(path: Path, value: str) -> ScoredPoints:
    """Reads `seriesuid,coordX,coordY,coordZ,...` with the column `value`, `probability` or `diameter_mm`.

    Raises:
      InputError: it cannot be read, a column is missing, or a value is not a finite number; the message names file and
        line.
    """
    names = ("coordX", "coordY", "coordZ", value)
    scans, numbers = [], []
    for line, row in tables.read(path, ("seriesuid", *names)):
        try:
            numbers.append([tables.number(row[name]) for name in names])
        except ValueError as error:
            raise InputError(f"{path}, line {line}: {row} has no four numbers; correct it.") from error
        if not np.isfinite(numbers[-1]).all():
            raise InputError(f"{path}, line {line}: {numbers[-1]} are not finite; correct it.")
        scans.append(row["seriesuid"])
    table = np.array(numbers, np.float64).reshape(-1, 4)
    return ScoredPoints(np.array(scans, dtype=str), table[:, :3], table[:, 3])


def match(scans: Sequence[str], candidates: ScoredPoints, nodules: ScoredPoints, excluded: ScoredPoints) -> Matches:
    """Sorts candidates into hits and false positives; points in scans that are not in `scans` are ignored.

    Args:
      scans: the IDs of all scans, including those without any nodule.
      candidates: `value` is the probability.
      nodules, excluded: `value` is the diameter in mm.

    Raises:
      ValueError: a scan is named twice, or there is no scan.
    """
    if not scans or len({*scans}) < len(scans):
        raise ValueError(f"expected distinct scans, got {len(scans)} with {len({*scans})} distinct IDs")
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    nodule_counts, candidate_count, ignored, doubles = [], 0, 0, 0
    files = (candidates, nodules, excluded)
    rows_by_scan = [_rows_by_scan(points) for points in files]
    for scan in scans:
        own, wanted, others = (
            _select(points, rows.get(scan, [])) for points, rows in zip(files, rows_by_scan, strict=True)
        )
        own = _highest(own)
        in_nodule, in_excluded = _within(own, wanted), _within(own, others)  # (nodules, candidates)
        best = [own.value[hits].max() for hits in in_nodule if hits.any()]
        on_nodule = in_nodule.any(axis=0)
        on_excluded = in_excluded.any(axis=0) & ~on_nodule
        false = own.value[~on_nodule & ~on_excluded]
        parts.append((np.array(best), false))
        nodule_counts.append(len(in_nodule))
        candidate_count += len(own.value)
        ignored += int(on_excluded.sum())
        doubles += int(in_nodule.sum()) - len(best)
    sizes = [(len(best), len(false)) for best, false in parts]
    return Matches(
        scan=np.repeat(np.arange(len(scans)), [hits + misses for hits, misses in sizes]),
        probability=np.concatenate([part for pair in parts for part in pair]),
        hit=np.concatenate([np.arange(hits + misses) < hits for hits, misses in sizes]),
        nodules=np.array(nodule_counts, np.int64),
        candidates=candidate_count,
        ignored=ignored,
        doubles=doubles,
    )


def _rows_by_scan(points: ScoredPoints) -> dict[str, np.ndarray]:
    """The rows of each scan's points."""
    names, number = np.unique(points.scan, return_inverse=True)
    order = np.argsort(number, kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(number)))  # The last part is empty.
    return dict(zip(names.tolist(), parts, strict=False))


def _select(points: ScoredPoints, rows: np.ndarray | list[int]) -> ScoredPoints:
    rows = np.asarray(rows, np.int64)
    return ScoredPoints(points.scan[rows], points.at_mm[rows], points.value[rows])


def _highest(candidates: ScoredPoints) -> ScoredPoints:
    """At most `MOST_CANDIDATES`: those above the probability of the first one too many, without ties with it."""
    if len(candidates.value) <= MOST_CANDIDATES:
        return candidates
    level = np.sort(candidates.value)[-MOST_CANDIDATES - 1]
    return _select(candidates, np.flatnonzero(candidates.value > level))


def _within(candidates: ScoredPoints, nodules: ScoredPoints) -> np.ndarray:
    """Whether each candidate lies within the radius of each nodule: bool (nodules, candidates)."""
    diameter_mm = np.where(nodules.value < 0, UNKNOWN_MM, nodules.value)
    distance_mm2 = ((nodules.at_mm[:, None] - candidates.at_mm[None]) ** 2).sum(axis=-1)
    return distance_mm2 < (diameter_mm[:, None] / 2) ** 2
