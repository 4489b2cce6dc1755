"""Which scans a phantom of N scans holds: of all three splits, with nodules to learn from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

from lungjax.ct.scan import Nodule
from lungjax.data.splits import SPLITS, Split, split_of
from lungjax.errors import InputError
from lungjax.lidc import annotations
from lungjax.lidc.annotations import ScanRow

_TURNS: tuple[Split, ...] = (
    "train",
    "val",
    "test",
    "train",
    "train",
    "test",
    "train",
    "train",
    "train",
    "train",
)
"""Seven train, one val, two test: the shares of the splits, and from three scans on each split has one."""
_MOST_SLICES = 320
"""A fifth of LIDC's scans have more, of thin slices: they cost much time and show no more patients."""
_AGREEING_READERS = 3
_LEAST_MM = 10.0
"""A nodule this wide still has a shape on a small matrix, and can be told from a vessel."""


def choose(scans: int, *, seed: int) -> list[ScanRow]:
    """`scans` distinct scans of the database, a prefix of the choice for any larger number.

    In an order by hash and in turn from the three splits; first those scans whose slices are evenly spaced
    and at most 320, and that hold a nodule of at least 10 mm across which at least three readers outlined.

    Raises:
      InputError: more scans than the database has, or less than one.
    """
    rows = annotations.all_scans()
    if not 1 <= scans <= len(rows):
        raise InputError(f"a phantom has 1 to {len(rows)} scans, not {scans}")
    rows.sort(key=lambda row: hashlib.sha256(f"phantom/{seed}/{row.series_uid}".encode()).digest())
    queues = {split: _useful_first([row for row in rows if split_of(row.patient_id) == split]) for split in SPLITS}
    chosen: list[ScanRow] = []
    turn = 0
    while len(chosen) < scans:
        row = next(queues[_TURNS[turn % len(_TURNS)]], None)
        turn += 1
        if row is not None:  # A split can run out before the others.
            chosen.append(row)
    return chosen


def _useful_first(rows: list[ScanRow]) -> Iterator[ScanRow]:
    """All rows, the useful ones first; lazily, because to know costs a clustering."""
    rest = []
    for row in rows:
        if _is_useful(row):
            yield row
        else:
            rest.append(row)
    yield from rest


def _is_useful(row: ScanRow) -> bool:
    steps_mm = np.diff(row.z_mm)
    even = bool(np.ptp(steps_mm) <= 0.05 * np.median(steps_mm))
    return (
        even
        and len(row.z_mm) <= _MOST_SLICES
        and any(_is_clear(nodule, row.pixel_spacing_mm) for nodule in annotations.nodules(row))
    )


def _is_clear(nodule: Nodule, pixel_mm: float) -> bool:
    widths_mm = [max(reading.mask.shape[1:]) * pixel_mm for reading in nodule.readings]
    return len(widths_mm) >= _AGREEING_READERS and float(np.median(widths_mm)) >= _LEAST_MM
