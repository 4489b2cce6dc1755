"""Which files of a DICOM series make up a scan: one patient, study, frame of reference and reconstruction.

What else lies in the series (a localizer, a capture, a copy) is left out and listed.
"""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage

from lungjax.ct import series
from lungjax.ct.source import Quarantined
from lungjax.errors import Fault

X_RAYS = ("CR", "DX")
DERIVED = ("SEG", "SR", "RTSTRUCT", "RTPLAN", "RTDOSE", "PR", "KO", "REG")
"""Modalities of what programs, lungjax among them, derive from a CT and store next to it."""

_CT_CLASSES = ("", CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)
_MOST_LISTED = 3
"""UIDs in a sentence: some anonymisers give every file one of its own."""
_LEAST_SCATTERED = 5
"""Images of a folder, each in a series of its own."""
_SCOUTS = ("LOCALIZER", "SCOUT", "TOPOGRAM", "SCANOGRAM")


@dataclasses.dataclass(frozen=True)
class Header:
    """What tells files apart; empty, or None, where a file has no value.

    Attributes:
      modality, series_uid, study_uid, patient_id, frame_uid, sop_class, sop_uid: as in the file.
      image_type: its words.
      samples: numbers per pixel.
      kernel, thickness: of the reconstruction, as text.
      acquisition: its number, as text.
      position_mm, orientation: as in `lungjax.ct.series.Slice`.
    """

    modality: str
    series_uid: str
    study_uid: str = ""
    patient_id: str = ""
    frame_uid: str = ""
    sop_class: str = ""
    sop_uid: str = ""
    image_type: tuple[str, ...] = ()
    samples: int = 1
    kernel: str = ""
    thickness: str = ""
    acquisition: str = ""
    position_mm: tuple[float, ...] | None = None
    orientation: tuple[float, ...] | None = None


File = tuple[Header, Path]


@dataclasses.dataclass(frozen=True)
class Group:
    """The files of one scan.

    Attributes:
      key: the SeriesInstanceUID; of several reconstructions in one series, with what tells this one from the others.
      patient_id, study_uid: of its files; empty where they have none.
      paths: its files.
    """

    key: str
    patient_id: str
    study_uid: str
    paths: tuple[Path, ...]

    @property
    def where(self) -> str:
        """The folder of its first file."""
        return str(self.paths[0].parent)


def modality(files: Sequence[File]) -> str:
    """That of a series: CT where any file is one."""
    modalities = [header.modality for header, _ in files]
    return "CT" if "CT" in modalities else modalities[0]


def scattered(all_series: Mapping[str, Sequence[File]]) -> dict[Path, list[str]]:
    """Folders of single CT images that are each a series of their own, and their SeriesInstanceUIDs.

    Some anonymisers give every file new UIDs. Which images are one scan cannot be known then: a study may have several.
    """
    by_folder: dict[Path, list[str]] = collections.defaultdict(list)
    for series_uid, files in all_series.items():
        header, path = files[0]
        if len(files) == 1 and header.modality == "CT" and header.sop_class in ("", CTImageStorage):
            by_folder[path.parent].append(series_uid)
    return {folder: uids for folder, uids in by_folder.items() if len(uids) >= _LEAST_SCATTERED}


def groups(folder: Path, series_uid: str, files: Sequence[File]) -> tuple[list[Group], list[Quarantined]]:
    """The scans in the files of one CT series, and notes on what is left out.

    Args:
      folder: the source, to which keys of notes are relative.
      series_uid: their SeriesInstanceUID.
      files: of the series, in a fixed order.

    Raises:
      Fault: `several_patients` or `several_studies`.
    """
    images, notes = without_strays(folder, files)
    reconstructions = _reconstructions(images)
    scans = []
    for label, some in reconstructions.items():
        key = f"{series_uid}-{re.sub(r'[^A-Za-z0-9.]+', '_', label)}" if label else series_uid
        patients, studies = (sorted({get(header) for header, _ in some} - {""}) for get in (_patient, _study))
        paths = tuple(path for _, path in some)
        scans.append(Group(key, patients[0] if patients else "", studies[0] if studies else "", paths))
    if len(scans) > 1:
        listed = " and ".join(f"{label} ({len(some)} files)" for label, some in reconstructions.items())
        what = f"holds several reconstructions or acquisitions, {listed}; each is a scan of its own"
        message = f"the series in {scans[0].where} {what}"
        notes.append(Quarantined(f"{series_uid}/", scans[0].where, "several_reconstructions", message))
    return scans, notes


def without_strays(folder: Path, files: Sequence[File]) -> tuple[list[File], list[Quarantined]]:
    """The files of one CT series that are images of its scan, and a note on the others of each kind.

    Raises:
      Fault: `several_patients` or `several_studies` where the images name more than one.
    """
    strays: dict[tuple[str, Path], list[Path]] = collections.defaultdict(list)
    images = _sifted(files, _why_no_image, strays)
    if not images:  # Reading one tells what is wrong with all of them; a class of captures, say, need not matter.
        images = list(files)
        strays.clear()
    images = _sifted(images, _why_other_orientation(images), strays)
    images = _sifted(images, _why_copy(), strays)
    if several := _several(images, _patient, "patients"):
        raise Fault("several_patients", several)
    frames = _several(images, lambda header: header.frame_uid, "frames of reference")
    if several := _several(images, _study, "studies") or frames:
        raise Fault("several_studies", several)
    return images, [_left_out(folder, why, paths) for (why, _), paths in strays.items()]


def _sifted(
    files: Sequence[File], why: Callable[[File], str | None], strays: dict[tuple[str, Path], list[Path]]
) -> list[File]:
    kept = []
    for file in files:
        reason = why(file)
        if reason is None:
            kept.append(file)
        else:
            strays[reason, file[1].parent].append(file[1])
    return kept


def _left_out(folder: Path, why: str, paths: Sequence[Path]) -> Quarantined:
    count = f"and {len(paths) - 1} more files are" if len(paths) > 1 else "is"
    message = f"{paths[0]} {count} left out: {why}"
    return Quarantined(paths[0].relative_to(folder).as_posix(), str(paths[0]), "left_out", message)


def _patient(header: Header) -> str:
    return header.patient_id


def _study(header: Header) -> str:
    return header.study_uid


def _several(files: Sequence[File], get: Callable[[Header], str], what: str) -> str | None:
    """A sentence that lists the values where files have more than one."""
    values = sorted({get(header) for header, _ in files} - {""})
    if len(values) < 2:
        return None
    more = f" and {len(values) - _MOST_LISTED} more" if len(values) > _MOST_LISTED else ""
    listed = f"{', '.join(values[:_MOST_LISTED])}{more}"
    return f"the series in {files[0][1].parent} is of several {what}, {listed}; separate their files"


def _why_no_image(file: File) -> str | None:
    header, _ = file
    if header.modality != "CT":
        return f"its modality is {header.modality or 'unknown'}, in a series of CT"
    if any(word.upper() in _SCOUTS for word in header.image_type):
        return "it is a localizer"
    if header.sop_class not in _CT_CLASSES:
        return "it is no CT image but, for example, a capture of a screen"
    if header.samples != 1:
        return "it is a picture in colour"
    return None


def _why_other_orientation(files: Sequence[File]) -> Callable[[File], str | None]:
    """Images of another orientation than most of the axial ones, or most of all where none is axial."""
    counts = collections.Counter(_directions(header) for header, _ in files if header.orientation)
    axial = {key: count for key, count in counts.items() if key[0] in ("x", "y") and key[1] in ("x", "y")}
    usual = max(axial or counts, key=lambda key: counts[key], default=None)

    def why(file: File) -> str | None:
        if file[0].orientation is None or _directions(file[0]) == usual:
            return None
        return "its orientation is not that of the scan, as of a localizer or a reformatted plane"

    return why


def _directions(header: Header) -> tuple[str, str]:
    """The patient's axes that rows and columns are closest to."""
    assert header.orientation is not None
    row, column = np.abs(header.orientation).reshape(2, 3)
    return "xyz"[int(row.argmax())], "xyz"[int(column.argmax())]


def _why_copy() -> Callable[[File], str | None]:
    first_paths: dict[tuple, Path] = {}

    def why(file: File) -> str | None:
        header, path = file
        identity = (header.sop_uid, header.position_mm, header.kernel, header.thickness)
        first = first_paths.setdefault(identity, path)
        if first == path or not (header.sop_uid or _same_bytes(first, path)):
            return None
        return f"it is a copy of an image in {first.parent}"

    return why


def _same_bytes(first: Path, second: Path) -> bool:
    try:
        return first.stat().st_size == second.stat().st_size and first.read_bytes() == second.read_bytes()
    except OSError:
        return False


def _reconstructions(files: Sequence[File]) -> dict[str, list[File]]:
    """Files by a label; one empty label where they make up one even stack, or do not differ in what a label names.

    A label names kernel and thickness where they differ, else the acquisition, as of phases of contrast: but only where
    that tells apart images of one place, for a long scan may be acquired in parts.
    """
    kernels, thicknesses = ({get(header) for header, _ in files} for get in (_kernel, _thickness))
    alike = len(kernels) == 1 and len(thicknesses) == 1
    by_acquisition = _by_label(files, lambda header: f"acquisition {header.acquisition or 'without number'}")
    if alike and len(by_acquisition) > 1 and _overlap(files) and not any(map(_overlap, by_acquisition.values())):
        return by_acquisition
    if alike or _is_one_stack(files):
        return {"": list(files)}

    def label(header: Header) -> str:
        parts = [header.kernel or "no kernel"] if len(kernels) > 1 else []
        parts += [f"{header.thickness or '?'} mm"] if len(thicknesses) > 1 else []
        return " ".join(parts)

    return _by_label(files, label)


def _by_label(files: Sequence[File], label: Callable[[Header], str]) -> dict[str, list[File]]:
    by_label: dict[str, list[File]] = collections.defaultdict(list)
    for header, path in files:
        by_label[label(header)].append((header, path))
    return dict(sorted(by_label.items()))


def _overlap(files: Sequence[File]) -> bool:
    """Whether two images lie at the same place."""
    z_mm = _places_mm(files)
    return z_mm is not None and bool(np.diff(z_mm).min(initial=np.inf) < series.SAME_MM)


def _kernel(header: Header) -> str:
    return header.kernel


def _thickness(header: Header) -> str:
    return header.thickness


def _is_one_stack(files: Sequence[File]) -> bool:
    """Whether positions are even, so that files of different kernels or thicknesses are one scan all the same."""
    z_mm = _places_mm(files)
    if z_mm is None or len(z_mm) < 2:
        return True
    return not _overlap(files) and series.regular(z_mm) is not None


def _places_mm(files: Sequence[File]) -> np.ndarray | None:
    """Where images lie along the normal of their planes, ascending; None where that is not known."""
    positions = [header.position_mm for header, _ in files]
    orientation = files[0][0].orientation
    if orientation is None or None in positions:
        return None
    try:
        along = series.normal(np.array(orientation))
    except ValueError:
        return None
    return np.sort(np.array(positions) @ along)
