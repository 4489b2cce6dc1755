"""Turns a scan into slices: the records that shards store, and the row of each in the index."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

import numpy as np

from lungjax import metrics
from lungjax.ct.scan import RATING_NAMES, READERS, Nodule, Reading, Scan
from lungjax.data.records import SliceRecord, box_of

_MALIGNANCY = RATING_NAMES.index("malignancy")


def slice_records(scan: Scan) -> Iterator[SliceRecord]:
    """One record per slice, in order."""
    for number in range(len(scan.voxels)):
        yield SliceRecord(
            image=scan.voxels[number],
            readers=scan.slice_reader_bits(number),
            patient_id=scan.patient_id,
            study_uid=scan.study_uid,
            series_uid=scan.series_uid,
            sop_uid=scan.sop_uids[number],
            slice_index=number,
            z_mm=float(scan.z_mm[number]),
            spacing_mm=_three_floats(scan.spacing_mm),
            padding_hu=None if scan.padding_hu is None else int(scan.padding_hu),
            intensity=scan.intensity,
            nodules=tuple(_nodules(scan, number)),
        )


def index_row(
    record: SliceRecord, scan: Scan, lung_columns: tuple[float, int, int, int, int], *, readers: int = READERS
) -> tuple[Any, ...]:
    """The values of `ROW_COLUMNS` for one record of `scan`.

    Args:
      record: the slice.
      scan: the scan of the slice.
      lung_columns: the last five values, for this slice.
      readers: the number of readers who looked at the scan.
    """
    box = box_of(record.readers)
    readers_marked, majority_px = 0, 0
    if box is not None:
        readers_marked, majority_px = _count_marks(record.readers[box[0] : box[1] + 1, box[2] : box[3] + 1], readers)
    rated = [_malignancy(scan.nodules[nodule["index"]]) for nodule in record.nodules]
    return (
        record.patient_id,
        record.study_uid,
        record.series_uid,
        record.sop_uid,
        record.slice_index,
        record.z_mm,
        *record.image.shape,
        *record.spacing_mm,
        len(record.nodules),
        readers_marked,
        majority_px,
        max((median for median in rated if median is not None), default=float("nan")),
        *(box or (-1, -1, -1, -1)),
        *lung_columns,
    )


def _count_marks(bits: np.ndarray, readers: int) -> tuple[int, int]:
    """The number of readers who marked anything, and of pixels that the majority of them marked."""
    slots = int(np.bitwise_or.reduce(bits, axis=None)).bit_count()
    return slots, int(np.count_nonzero(metrics.majority(bits, readers=readers)))


def _three_floats(values: tuple[float, float, float]) -> tuple[float, float, float]:
    return float(values[0]), float(values[1]), float(values[2])  # msgpack does not support NumPy scalars.


def _nodules(scan: Scan, number: int) -> Iterator[dict[str, Any]]:
    for nodule in scan.nodules:
        readings = tuple(fields for reading in nodule.readings if (fields := _reading(reading, number)))
        if readings:
            yield {"index": int(nodule.index), "readings": readings}


def _reading(reading: Reading, number: int) -> dict[str, Any] | None:
    """The reading in slice `number`; None where it has no pixel in this slice.

    A reading without any pixel, too small for the scan's grid, is kept in the first slice of its box, because its
    ratings still count.
    """
    inside = number - reading.origin[0]
    if not 0 <= inside < len(reading.mask):
        return None
    box = box_of(reading.mask[inside])
    if box is None and (inside > 0 or reading.mask.any()):
        return None
    if box is not None:
        _, row, column = (int(start) for start in reading.origin)
        box = (box[0] + row, box[1] + row, box[2] + column, box[3] + column)
    return {
        "slot": int(reading.slot),
        "annotation_id": int(reading.annotation_id),
        "ratings": tuple(int(rating) for rating in reading.ratings),
        "box": box,
    }


def _malignancy(nodule: Nodule) -> float | None:
    ratings = [reading.ratings[_MALIGNANCY] for reading in nodule.readings if reading.ratings[_MALIGNANCY]]
    return float(statistics.median(ratings)) if ratings else None
