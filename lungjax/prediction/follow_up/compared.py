"""Two scans that are compared, and the nodules of both or of one of them."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from lungjax.ct.scan import Scan
from lungjax.prediction.follow_up.growth import DoublingTime, Growth

CANDIDATE_MM = 5.0
"""A candidate below the threshold this near to where a nodule would lie may be that nodule."""


@dataclasses.dataclass(frozen=True)
class MatchedNodule:
    """A nodule that was predicted in both scans.

    Attributes:
      first, second: its `number` in either scan.
      distance_mm: between its centres after registration.
      volumes_mm3, longest_mm: in the first scan and in the second.
      growth: of its volume.
      doubling_time: None where no days are known between the scans.
    """

    first: int
    second: int
    distance_mm: float
    volumes_mm3: tuple[float, float]
    longest_mm: tuple[float, float]
    growth: Growth
    doubling_time: DoublingTime | None


@dataclasses.dataclass(frozen=True)
class UnmatchedNodule:
    """A nodule that was predicted in one scan alone.

    Attributes:
      scan: which one, `first` or `second`.
      number: of the nodule in that scan.
      volume_mm3, longest_mm: in that scan.
      place_mm: (x, y, z) where it would lie in the other scan, mm to the left, back and head.
      shown: whether the other scan shows that place: if not, nobody knows whether the nodule is new or gone.
      candidate: the number of the other scan's nearest candidate below the threshold, if it lies within 5 mm of the
        place, else None. With one, the nodule may well be there, and have a low score.
    """

    scan: Literal["first", "second"]
    number: int
    volume_mm3: float
    longest_mm: float
    place_mm: tuple[float, float, float]
    shown: bool
    candidate: int | None


@dataclasses.dataclass(frozen=True, eq=False)
class ComparedScan:
    """One of the two scans.

    Attributes:
      scan: as it was read.
      report: what was predicted of it, as report.json holds it.
      mask: (slices, rows, columns) uint8: a voxel's value is the number of its nodule.
      date: when it was made; None where that is not known.
    """

    scan: Scan
    report: Mapping[str, Any]
    mask: np.ndarray
    date: datetime.date | None
