"""DICOM CT: a tree of files to series, and their headers to `Slice`s, each or a named fault."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom.uid
from pydicom.dataelem import RawDataElement, convert_raw_data_element
from pydicom.dataset import FileDataset
from pydicom.errors import InvalidDicomError
from pydicom.tag import BaseTag, Tag
from tqdm import tqdm

from lungjax.ct import dicom_header, dicom_pixels, hounsfield, multiframe, source
from lungjax.ct.dicom_pixels import Pixels, unreadable
from lungjax.ct.series import Series, Slice, assemble
from lungjax.ct.source import Quarantined
from lungjax.errors import Fault

_PATIENT = Tag("PatientID")
_HEADER_TAGS = {int(tag): tag for tag in (Tag("Modality"), Tag("SeriesInstanceUID"))}
_UIDS = ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"]
_GEOMETRY = ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns"]
_VALUES = ["RescaleSlope", "RescaleIntercept", "BitsAllocated", "PixelRepresentation"]
_NEEDED = [*_UIDS, *_GEOMETRY, *_VALUES]
_PADDING = (Tag("PixelPaddingValue"), Tag("PixelPaddingRangeLimit"))
NAMES = ("Modality", *_NEEDED, "SamplesPerPixel")
"""What is read of an image's header."""
_TAGS = {name: Tag(name) for name in NAMES}
SLICE_TAGS = {int(tag): tag for tag in (*_TAGS.values(), *_PADDING, Tag("PixelData"))}
"""These, and what else is needed to find its pixels."""


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


@dataclasses.dataclass(frozen=True)
class Header:
    """What tells one series from another; an empty string where the file does not say."""

    modality: str
    series_uid: str


ReadHeader = Callable[[Path], Header | None]


def matches(folder: Path) -> bool:
    """Whether a folder holds any DICOM file; stops at the first."""
    return folder.is_dir() and any(fault is None and _is_dicom(path) for path, fault in _files(folder))


def find_series(folder: Path, read_header: ReadHeader) -> tuple[dict[str, tuple[str, list[Path]]], list[Quarantined]]:
    """Every series under a folder: SeriesInstanceUID -> modality and files.

    Quarantined are single files and folders: `unreadable_file`, `missing_tag`, `link`, `unreadable_folder`.
    """
    found: dict[str, tuple[str, list[Path]]] = {}
    quarantined: list[Quarantined] = []
    for path, fault in tqdm(list(_files(folder)), desc="finding series", unit="file", leave=False, disable=None):
        if fault:
            quarantined.append(source.not_entered(folder, path, fault))
            continue
        try:
            header = _header_of_series(path, read_header)
        except Fault as fault:
            key = path.relative_to(folder).as_posix()
            quarantined.append(Quarantined(key, str(path), fault.name, fault.message))
            continue
        if header is not None:
            found.setdefault(header.series_uid, (header.modality, []))[1].append(path)
    return found, quarantined


def read_header(path: Path) -> Header | None:
    """Which series a file belongs to, without its pixels; None where it is no DICOM image.

    Raises:
      Fault: `unreadable_file` where it cannot be opened, or is DICOM and cannot be parsed; `too_large`.
    """
    try:
        dataset = dicom_header.read(path, _HEADER_TAGS)
        found = Header(*(str(_value(dataset, tag) or "").strip() for tag in _HEADER_TAGS.values()))
        contents = dataset.file_meta.get("MediaStorageSOPClassUID") == pydicom.uid.MediaStorageDirectoryStorage
    except InvalidDicomError:
        return None
    except Fault:
        raise
    except Exception as error:  # pydicom raises whatever a broken file happens to provoke
        raise unreadable(path, error) from error
    return None if contents else found  # A DICOMDIR is the table of contents of a disc.


def read_patient_id(path: Path) -> str:
    """Whose image a file is.

    Raises:
      Fault: `unreadable_file`, or `missing_tag` where it does not say.
    """
    try:
        patient_id = str(_value(dicom_header.read(path, {int(_PATIENT): _PATIENT}), _PATIENT) or "").strip()
    except Exception as error:  # as in `read_header`
        raise unreadable(path, error) from error
    if not patient_id:
        raise Fault("missing_tag", f"{path} has no PatientID, so nobody can tell whose scan it is")
    return patient_id


def read_slice(path: Path) -> Slice:
    """One image: its place, and where its pixels are.

    Raises:
      Fault: `unreadable_file`, `too_large`, `short_pixels`, `no_decoder`, `missing_tag`, `wrong_rescale` or
        `not_ct`; each names the file.
    """
    try:
        return _image(dicom_header.read(path, SLICE_TAGS), path)
    except Fault:
        raise
    except Exception as error:  # as in `read_header`
        raise unreadable(path, error) from error


def read_slices(path: Path) -> list[Slice]:
    """The images of a file, in its order: one, or the frames of an enhanced CT.

    Raises:
      Fault: as `read_slice` does.
    """
    try:
        dataset = dicom_header.read(path, SLICE_TAGS | multiframe.TAGS)
        if multiframe.PER_FRAME not in dataset:
            return [_image(dataset, path)]
        frames = multiframe.values(dataset, NAMES)
        for values in frames:
            check_values(values, dataset, path)
        first = frames[0]
        whole = dicom_pixels.locate(dataset, first, path, frames=len(frames))
        frame_bytes = whole.shape[0] * whole.shape[1] * int(first["BitsAllocated"]) // 8
        slices = []
        for number, values in enumerate(frames):
            rescale = {"slope": float(values["RescaleSlope"]), "intercept": float(values["RescaleIntercept"])}
            offset = whole.offset + number * frame_bytes
            pixels = dataclasses.replace(whole, frame=number, offset=offset, **rescale)
            slices.append(slice_of(dataset, values, path, pixels))
        return slices
    except Fault:
        raise
    except Exception as error:  # as in `read_header`
        raise unreadable(path, error) from error


def _image(dataset: FileDataset, path: Path) -> Slice:
    values = {name: _value(dataset, tag) for name, tag in _TAGS.items()}
    check_values(values, dataset, path)
    return slice_of(dataset, values, path, dicom_pixels.locate(dataset, values, path))


def slice_of(dataset: FileDataset, values: Mapping[str, Any], path: Path, where: Pixels) -> Slice:
    """An image of which `values` by `NAMES`, checked by `check_values`, and the place of its pixels are known."""
    return Slice(
        path=path,
        study_uid=str(values["StudyInstanceUID"]).strip(),
        series_uid=str(values["SeriesInstanceUID"]).strip(),
        sop_uid=str(values["SOPInstanceUID"]).strip(),
        pixels=where,
        position_mm=_floats(values["ImagePositionPatient"], 3),
        orientation=_floats(values["ImageOrientationPatient"], 6),
        spacing_mm=tuple(_floats(values["PixelSpacing"], 2).tolist()),
        padding_hu=_declared_padding_hu(dataset, values),
    )


def read_headers(paths: Sequence[Path], sop_uids: Sequence[str]) -> list[FileDataset]:
    """All that files say but their pixels, in the order of their SOPInstanceUIDs, for whoever refers to them.

    Raises:
      Fault: `unreadable_file` where one cannot be read, or has changed since its series was read.
    """
    found: dict[str, FileDataset] = {}
    for path in paths:
        try:
            dataset = pydicom.dcmread(path, stop_before_pixels=True)
            found[str(dataset.SOPInstanceUID).strip()] = dataset
        except Exception as error:  # as in `read_header`
            raise unreadable(path, error) from error
    if missing := [uid for uid in sop_uids if uid not in found]:
        raise Fault("unreadable_file", f"{paths[0].parent} has changed while it was read: {missing[0]} is gone")
    return [found[uid] for uid in sop_uids]


def read_both(path: Path) -> tuple[Header | None, Slice | Fault]:
    """What `read_header` and `read_slice` find, or the fault of the latter; a sound file is read once.

    Raises:
      Fault: as `read_header` does.
    """
    try:
        found = read_slice(path)
    except Fault as fault:
        return read_header(path), fault
    return Header("CT", found.series_uid), found


def read_series(paths: Sequence[Path]) -> Series:
    """One series from its files, given in any order.

    Raises:
      Fault: as `read_slice` and `lungjax.ct.series.assemble` do.
    """
    return assemble([read_slice(path) for path in paths])


def _files(folder: Path) -> Iterator[tuple[Path, Fault | None]]:
    """Files that may be DICOM, in a fixed order; hidden ones (`._000001.dcm` of macOS) are not; else `source.walk`."""
    for path, fault in source.walk(folder):
        if fault or not (path.name.startswith(".") or path.suffix.lower() in _OTHER_FILES):
            yield path, fault


def _is_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _header_of_series(path: Path, read_header: ReadHeader) -> Header | None:
    header = read_header(path)
    if header is None and path.suffix.lower() == ".dcm":
        raise Fault("unreadable_file", f"{path} is named like DICOM and is not; fetch it again")
    if header is not None and not header.series_uid:
        raise Fault("missing_tag", f"{path} has no SeriesInstanceUID, so it belongs to no scan")
    return header


def _value(dataset: FileDataset, tag: BaseTag) -> Any:
    element = dataset.get_item(tag)
    if isinstance(element, RawDataElement):
        return _converted(element._replace(value_tell=0))  # pyright: ignore[reportArgumentType]
    return None if element is None else element.value


@functools.lru_cache(maxsize=256)
def _converted(element: RawDataElement) -> Any:
    """Remembered, for the slices of a series say the same of nearly everything and pydicom checks each value anew."""
    return convert_raw_data_element(element).value


def check_values(values: Mapping[str, Any], dataset: FileDataset, path: Path) -> None:
    """Whether an image is CT and has all that makes HU and a place of it.

    Raises:
      Fault: `not_ct`, `unreadable_file`, `missing_tag` or `wrong_rescale`.
    """
    modality = values["Modality"]
    if modality != "CT":
        raise Fault("not_ct", f"{path} has modality {modality or 'unknown'}, not CT")
    if dicom_header.PIXELS not in dataset:
        # A file cut before its pixels parses without complaint.
        raise Fault("unreadable_file", f"{path} ends before its pixels; fetch the series again")
    for name in _NEEDED:
        if values[name] in (None, ""):
            raise Fault("missing_tag", f"{path} has no {name}; without it the image has no HU or no place")
    _check_rescale(values, path)


def _check_rescale(values: Mapping[str, Any], path: Path) -> None:
    """What the stored bits can hold must become air at one end and tissue at the other."""
    slope, intercept, bits = (float(values[name]) for name in ("RescaleSlope", "RescaleIntercept", "BitsAllocated"))
    lowest = -(2 ** (bits - 1)) if values["PixelRepresentation"] == 1 else 0
    low_hu, high_hu = (stored * slope + intercept for stored in (lowest, lowest + 2**bits - 1))
    if not hounsfield.is_chest(low_hu, high_hu):  # neither with a slope of 0 or less, nor of NaN
        held = f"slope {slope:g} and intercept {intercept:g}, which make {low_hu:g} to {high_hu:g} HU at most"
        raise Fault("wrong_rescale", f"{path} has {held} of its {bits:g} bits; fetch the series again")


def _declared_padding_hu(dataset: FileDataset, values: Mapping[str, Any]) -> float | None:
    # Through the data set, for the VR of these depends on other elements.
    declared = [dataset[tag].value for tag in _PADDING if tag in dataset]
    stored = [int(value) for value in declared if value not in (None, "")]
    if not stored:
        return None
    bits = int(values["BitsAllocated"])
    if values["PixelRepresentation"] == 1:
        # Written with the VR of unsigned values in some files: 63536 is -2000.
        stored = [value - (1 << bits) if value >= 1 << (bits - 1) else value for value in stored]
    return max(stored) * float(values["RescaleSlope"]) + float(values["RescaleIntercept"])


def _floats(values: Sequence[float], count: int) -> np.ndarray:
    floats = np.array([float(value) for value in values], np.float64)
    if floats.shape != (count,) or not all(map(math.isfinite, floats)):
        raise ValueError(f"expected {count} numbers, found {list(values)}")
    return floats
