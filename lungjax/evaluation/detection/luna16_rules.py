"""Candidates of a detector against the nodules of LUNA16, by the challenge's rules; positions in mm.

Sources: Setio et al., Medical Image Analysis 42, 2017, and the behaviour of the challenge's own script, whose counts
of a real submission the tests reproduce.
"""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

MOST_MARKS = 100
"""Of a scan with more candidates only those count that are likelier than the one after these."""
UNKNOWN_MM = 10.0
"""The diameter of a finding that has none: what a negative one stands for."""


@dataclasses.dataclass(frozen=True, eq=False)
class ScoredPoints:
    """Points in scans, of one CSV file of the challenge.

    Attributes:
      scan: (n,) text, series id.
      at_mm: (n, 3) float64, x, y, z.
      value: (n,) float64: a candidate's probability, or an annotation's diameter in mm, negative where unknown.
    """

    scan: np.ndarray
    at_mm: np.ndarray
    value: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Matches:
    """What the candidates are worth: all that FROC needs.

    Attributes:
      scan: (n,) int64, place of the mark's scan among all scans.
      probability: (n,) float64.
      hit: (n,) bool, True for a nodule's likeliest candidate, False for a false positive.
      nodules: (scans,) int64, nodules of each scan, found or not.
      candidates, ignored, doubles: how many were looked at, lay on excluded findings, or hit a nodule again.
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
      ValueError: a column is missing, or a number is none or not finite; names file and line.
    """
    names = ("coordX", "coordY", "coordZ", value)
    scans, numbers = [], []
    with path.open(newline="", encoding="utf-8-sig") as file:
        for row in (reader := csv.DictReader(file)):
            try:
                scans.append(row["seriesuid"])
                numbers.append([float(row[name]) for name in names])
            except KeyError as error:
                raise ValueError(f"{path} has no column {error.args[0]!r}; LUNA16's files do.") from error
            except (TypeError, ValueError) as error:
                raise ValueError(f"{path}, line {reader.line_num}: {row} has no four numbers; correct it.") from error
            if not np.isfinite(numbers[-1]).all():
                raise ValueError(f"{path}, line {reader.line_num}: {numbers[-1]} are not finite; correct it.")
    table = np.array(numbers, np.float64).reshape(-1, 4)
    return ScoredPoints(np.array(scans, dtype=str), table[:, :3], table[:, 3])


def match(scans: Sequence[str], candidates: ScoredPoints, nodules: ScoredPoints, excluded: ScoredPoints) -> Matches:
    """Candidates to hits and false positives; findings of scans that are not among `scans` are passed over.

    Args:
      scans: ids of all scans, those without any finding too.
      candidates: `value` is the probability.
      nodules, excluded: `value` is the diameter in mm.

    Raises:
      ValueError: a scan is named twice, or there is none.
    """
    if not scans or len({*scans}) < len(scans):
        raise ValueError(f"distinct scans wanted, got {len(scans)} with {len({*scans})} distinct ids")
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    found, seen, ignored, doubles = [], 0, 0, 0
    by_scan = [_by_scan(one) for one in (candidates, nodules, excluded)]
    for scan in scans:
        marks, wanted, others = (
            _of(one, places.get(scan, [])) for one, places in zip((candidates, nodules, excluded), by_scan, strict=True)
        )
        marks = _likeliest(marks)
        inside, beside = _within(marks, wanted), _within(marks, others)  # (findings, candidates)
        best = [marks.value[hits].max() for hits in inside if hits.any()]
        on_nodule = inside.any(axis=0)
        on_other = beside.any(axis=0) & ~on_nodule
        false = marks.value[~on_nodule & ~on_other]
        parts.append((np.array(best), false))
        found.append(len(inside))
        seen += len(marks.value)
        ignored += int(on_other.sum())
        doubles += int(inside.sum()) - len(best)
    sizes = [(len(best), len(false)) for best, false in parts]
    return Matches(
        scan=np.repeat(np.arange(len(scans)), [hits + misses for hits, misses in sizes]),
        probability=np.concatenate([part for pair in parts for part in pair]),
        hit=np.concatenate([np.arange(hits + misses) < hits for hits, misses in sizes]),
        nodules=np.array(found, np.int64),
        candidates=seen,
        ignored=ignored,
        doubles=doubles,
    )


def _by_scan(findings: ScoredPoints) -> dict[str, np.ndarray]:
    """Places of each scan's findings."""
    names, number = np.unique(findings.scan, return_inverse=True)
    order = np.argsort(number, kind="stable")
    return dict(
        zip(names.tolist(), np.split(order, np.cumsum(np.bincount(number))), strict=False)
    )  # The last is empty.


def _of(findings: ScoredPoints, places: np.ndarray | list[int]) -> ScoredPoints:
    places = np.asarray(places, np.int64)
    return ScoredPoints(findings.scan[places], findings.at_mm[places], findings.value[places])


def _likeliest(marks: ScoredPoints) -> ScoredPoints:
    """At most `MOST_MARKS`: those above the probability of the first that is too many, so ties with it go too."""
    if len(marks.value) <= MOST_MARKS:
        return marks
    level = np.sort(marks.value)[-MOST_MARKS - 1]
    return _of(marks, np.flatnonzero(marks.value > level))


def _within(marks: ScoredPoints, findings: ScoredPoints) -> np.ndarray:
    """bool (findings, candidates)."""
    diameter_mm = np.where(findings.value < 0, UNKNOWN_MM, findings.value)
    apart_mm2 = ((findings.at_mm[:, None] - marks.at_mm[None]) ** 2).sum(axis=-1)
    return apart_mm2 < (diameter_mm[:, None] / 2) ** 2
