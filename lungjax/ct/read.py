"""Reads any chest CT into a `Scan`: a folder of DICOM, or a NIfTI or MetaImage file; no readers' outlines are needed.

find: the scans of a source, from names and headers -> read: one of them, with its voxels and geometry
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lungjax.ct import dicom, dicom_pixels, grouping, hounsfield, metaimage, nifti, orientation, series, volume
from lungjax.ct.scan import Scan
from lungjax.ct.source import Check, Entry, Quarantined, quarantine_path
from lungjax.errors import Fault

VOLUME = re.compile(r"(?P<stem>[^.].*?)\.(?P<kind>nii|nii\.gz|mhd|mha)", re.IGNORECASE)
"""Names of single-file volumes."""
_LEAST_UPRIGHT = 0.7
"""Least cosine between the body's axis and the normal of slices that may be tilted; others are not axial at all."""
_PLANES = (0.3, 0.4, 0.5)
"""Where planes lie that are looked at without reading all, as shares: half of a compressed file is enough."""
_SLICES = 8
"""How many slices of a series are looked at likewise."""
_SUBJECT = re.compile(r"(?P<subject>sub-[A-Za-z0-9]+)(?:_.*)?")


def matches(source: Path) -> bool:
    """Whether a source is a folder that holds DICOM files, or a file with a suffix of NIfTI or MetaImage."""
    return dicom.matches(source) or (source.is_file() and VOLUME.fullmatch(source.name) is not None)


def find(source: Path, *, needs_patients: bool = False) -> tuple[list[Entry], list[Quarantined]]:
    """Finds every CT of a source; both lists are sorted by key: the SeriesInstanceUID, or a file name without suffix.

    Quarantined are DICOM series of other modalities (`not_ct`, or the note `derived`), of several patients or studies
    (`several_patients`, `several_studies`), images that are each a series (`incomplete_series`), what is left out of a
    series (the notes `left_out` and `several_reconstructions`), and the single files and folders that
    `dicom.find_series` lists.

    Args:
      source: a folder of DICOM, or a file.
      needs_patients: quarantine DICOM series without a PatientID (`missing_tag`); otherwise their study stands for the
        patient.
    """
    if source.is_file():
        name = VOLUME.fullmatch(source.name)
        return ([Entry(name["stem"], patient_of(name["stem"]), str(source), (str(source),))] if name else []), []
    all_series, quarantined = dicom.find_series(source, dicom.read_header)
    entries = []
    for folder, uids in grouping.scattered(all_series).items():
        held = f"{len(uids)} CT images in {folder} are each a series of its own, as some anonymisers make them"
        fault = Fault("incomplete_series", f"{held}; give the images of a scan one SeriesInstanceUID")
        quarantined.append(quarantine_path(source, folder, fault))
        for uid in uids:
            del all_series[uid]
    for series_uid, files in all_series.items():
        where = str(files[0][1].parent)
        try:
            _check_modality(grouping.modality(files), where)
            groups, notes = grouping.groups(source, series_uid, files)
            for group in groups:
                if needs_patients and not group.patient_id:
                    raise Fault("missing_tag", f"{group.paths[0]} has no PatientID, which a split by patients needs")
        except Fault as fault:
            quarantined.append(Quarantined(series_uid, where, fault.name, fault.message))
            continue
        quarantined += notes
        entries += [
            Entry(
                group.key,
                group.patient_id or group.study_uid or group.key,
                group.where,
                tuple(str(path) for path in group.paths),
            )
            for group in groups
        ]
    return sorted(entries, key=lambda entry: entry.key), sorted(quarantined, key=lambda line: line.key)


def patient_of(case: str) -> str:
    """The patient of a file by its name: in names of BIDS the subject, who may have several sessions; else the name."""
    subject = _SUBJECT.fullmatch(case)
    return subject["subject"] if subject else case


def _check_modality(modality: str, where: str) -> None:
    if modality in grouping.DERIVED:
        raise Fault("derived", f"the series in {where} was derived from a CT ({modality}) and is not used")
    if modality != "CT":
        raise Fault("not_ct", f"the series in {where} has modality {modality or 'unknown'}, not CT")


def read(entry: Entry, *, uneven: bool = False) -> Scan:
    """Reads one scan, without nodules; columns run to the left, rows to the back, slices from the feet to the head.

    Args:
      entry: from `find`.
      uneven: read DICOM slices even if they are unevenly spaced; the spacing is then the median.

    Raises:
      Fault: why the scan cannot be read; see `lungjax.ct.dicom.read_slices`, `lungjax.ct.series.order` and `.read`,
        `lungjax.ct.nifti`, `lungjax.ct.metaimage`, `lungjax.ct.hounsfield`.
    """
    if path := _volume(entry):
        layout, voxels = read_volume(path)
        hu, notes = layout.hu(voxels, str(path))
        return layout.scan(hu, key=entry.key, patient_id=entry.patient_id, notes=notes)
    stack = _stack(entry, uneven=uneven)
    scan = series.read(stack).scan(patient_id=entry.patient_id, where=entry.where)
    return _turned(dataclasses.replace(scan, series_uid=entry.key), entry.where)


def check(entry: Entry) -> Check:
    """Checks a scan by its headers and by the HU of some of its planes; of all, where these are no HU of a chest."""
    try:
        if path := _volume(entry):
            return check_volume(path)
        stack = _stack(entry, uneven=False)
        check_series(stack, entry.where)
        return Check(len(stack.slices), (), stack.notes)
    except Fault as fault:
        return Check(len(entry.locator), (fault,))


def check_series(stack: series.Stack, where: str) -> None:
    """Checks the HU of a series by some slices, or by all where these are no HU of a chest.

    Raises:
      Fault: as `lungjax.ct.series.read` does, or `wrong_rescale`.
    """
    numbers = np.unique(np.linspace(0, len(stack.slices) - 1, _SLICES).astype(int)).tolist()
    planes = np.empty((len(numbers), *stack.shape[1:]), np.int16)
    for number, plane in zip(numbers, planes, strict=True):
        dicom_pixels.read_hu(stack.slices[number].pixels, plane)
    if hounsfield.why_no_chest(planes):
        series.read(stack).scan(patient_id="", where=where)


def check_volume(path: Path) -> Check:
    """Checks a single-file volume by its header, and its HU by some planes, or by all likewise.

    Raises:
      Fault: as `read` does.
    """
    layout, planes = read_volume(path, planes=_PLANES)
    if hounsfield.why_no_chest(np.nan_to_num(planes, nan=hounsfield.FILL_HU) if planes.dtype.kind == "f" else planes):
        layout, voxels = read_volume(path)
        layout.hu(voxels, str(path))
    return Check(layout.shape[0], (), layout.notes)


def _stack(entry: Entry, *, uneven: bool) -> series.Stack:
    slices = [image for path in entry.locator for image in dicom.read_slices(Path(path))]
    message = f"{entry.where} is not axial: its rows or columns are more than 10 degrees from the body's axes"
    along_z = abs(np.cross(slices[0].orientation[:3], slices[0].orientation[3:])[2])
    if along_z < _LEAST_UPRIGHT:
        raise Fault("oblique_orientation", message)
    stack = series.order(slices, uneven=uneven)
    turn = orientation.turn_to(series.affine_lps(stack))
    if turn is None or turn.order[0] != 0:
        raise Fault("oblique_orientation", message)
    return stack


def _turned(scan: Scan, where: str) -> Scan:
    assert scan.affine_lps is not None
    turn = orientation.turn_to(scan.affine_lps)
    assert turn is not None, where
    if turn.is_identity:
        return scan
    slice_mm, *pixel_mm = (scan.spacing_mm[axis] for axis in turn.order)
    return dataclasses.replace(
        scan,
        voxels=turn.forth(scan.voxels),
        spacing_mm=(slice_mm, *pixel_mm),
        affine_lps=turn.affine_of_scan(scan.voxels.shape),
        turn=turn,
    )


def _volume(entry: Entry) -> Path | None:
    """The file of a scan that is a single-file volume."""
    path = Path(entry.locator[0])
    return path if len(entry.locator) == 1 and VOLUME.fullmatch(path.name) else None


def lay_out(path: Path) -> volume.Layout:
    """How a single-file volume is turned to the axes of an axial CT, from its header alone.

    Raises:
      Fault: as `lungjax.ct.nifti.read_header`, `lungjax.ct.metaimage.read_header` and `lungjax.ct.volume.lay_out` do.
    """
    header = metaimage.read_header(path) if _is_metaimage(path) else nifti.read_header(path)
    return volume.lay_out(header.geometry, path)


def read_volume(path: Path, *, planes: Sequence[float] | None = None) -> tuple[volume.Layout, np.ndarray]:
    """As `lay_out`, and the file's numbers, (slices, rows, columns) in its own order.

    With `planes`, only those at such shares of the file's first axis are read, where that saves time.

    Raises:
      Fault: as `lay_out` does, or `unreadable_file`.
    """
    if _is_metaimage(path):
        header = metaimage.read_header(path)
        return volume.lay_out(header.geometry, path), metaimage.read_voxels(header)
    header = nifti.read_header(path)
    layout = volume.lay_out(header.geometry, path)
    if planes is None:
        return layout, nifti.read_voxels(path, header)
    return layout, nifti.read_planes(path, header, [int(share * header.geometry.shape[0]) for share in planes])


def _is_metaimage(path: Path) -> bool:
    return path.suffix.lower() in (".mhd", ".mha")
