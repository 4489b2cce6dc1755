"""DICOM CT: finds the series in a tree of files and reads their headers into `Slice`s; failures are named faults."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom.charset
import pydicom.config
import pydicom.uid
from pydicom.dataelem import RawDataElement, convert_raw_data_element
from pydicom.dataset import FileDataset
from pydicom.errors import InvalidDicomError
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag, Tag
from tqdm import tqdm

from lungjax.ct import dicom_header, dicom_pixels, hounsfield, multiframe, source
from lungjax.ct.dicom_pixels import Pixels, unreadable
from lungjax.ct.grouping import File, Header
from lungjax.ct.series import Series, Slice, assemble
from lungjax.ct.source import Quarantined
from lungjax.errors import Fault

_DATES = {int(tag): tag for tag in (Tag("StudyDate"), Tag("AcquisitionDate"))}
_DATE = re.compile(r"(\d{4})\.?(\d\d)\.?(\d\d)")
_HEADER = {
    "Modality": "modality",
    "SeriesInstanceUID": "series_uid",
    "StudyInstanceUID": "study_uid",
    "PatientID": "patient_id",
    "FrameOfReferenceUID": "frame_uid",
    "SOPClassUID": "sop_class",
    "SOPInstanceUID": "sop_uid",
    "ConvolutionKernel": "kernel",
    "SliceThickness": "thickness",
    "AcquisitionNumber": "acquisition",
}
"""What `Header` has of a file as text, and what it calls it."""
_HEADER_TAGS = {
    int(tag): tag
    for tag in map(
        Tag,
        (
            *_HEADER,
            "ImageType",
            "SamplesPerPixel",
            "ImagePositionPatient",
            "ImageOrientationPatient",
            "SpecificCharacterSet",
        ),
    )
}
_GEOMETRY = ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns"]
_VALUES = ["RescaleSlope", "RescaleIntercept", "BitsAllocated", "PixelRepresentation"]
_UIDS = ["StudyInstanceUID", "SOPInstanceUID"]
"""Missing in some public data: nothing but what refers to the images needs them."""
_COUNTS = {
    "ImagePositionPatient": 3,
    "ImageOrientationPatient": 6,
    "PixelSpacing": 2,
    "RescaleSlope": 1,
    "RescaleIntercept": 1,
}
"""How many numbers an attribute has."""
_NEEDED = ["SeriesInstanceUID", *_GEOMETRY, *_VALUES]
_PADDING = (Tag("PixelPaddingValue"), Tag("PixelPaddingRangeLimit"))
NAMES = ("Modality", *_NEEDED, *_UIDS, "SamplesPerPixel", "BitsStored", "HighBit", "GantryDetectorTilt")
"""The attributes that are read from an image's header."""
_TAGS = {name: Tag(name) for name in NAMES}
SLICE_TAGS = {int(tag): tag for tag in (*_TAGS.values(), *_PADDING, Tag("PixelData"))}
"""The tags of `NAMES`, and those needed to find the pixels."""

_MAY_BE_EMPTY = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)
"""Attributes of type 2 that what refers to images takes over from them."""
_REFERRED_BY = ("SOPInstanceUID", "SOPClassUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
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
"""Never DICOM, so not worth opening; LIDC-IDRI has an XML file with each series."""


ReadHeader = Callable[[Path], Header | None]


def matches(folder: Path) -> bool:
    """Whether a folder holds any DICOM file; stops at the first."""
    return folder.is_dir() and any(fault is None and _is_dicom(path) for path, fault in _files(folder))


def find_series(folder: Path, read_header: ReadHeader) -> tuple[dict[str, list[File]], list[Quarantined]]:
    """Every series under a folder: SeriesInstanceUID -> headers and files.

    Quarantined are single files and folders: `unreadable_file`, `missing_tag`, `link`, `unreadable_folder`.
    """
    series: dict[str, list[File]] = {}
    quarantined: list[Quarantined] = []
    for path, fault in tqdm(list(_files(folder)), desc="finding series", unit="file", leave=False, disable=None):
        if fault:
            quarantined.append(source.quarantine_path(folder, path, fault))
            continue
        try:
            header = _series_header(path, read_header)
        except Fault as fault:
            key = path.relative_to(folder).as_posix()
            quarantined.append(Quarantined(key, str(path), fault.name, fault.message))
            continue
        if header is not None:
            series.setdefault(header.series_uid, []).append((header, path))
    return series, quarantined


def read_header(path: Path) -> Header | None:
    """What tells a file from others, read without its pixels; None where the file is not a DICOM image.

    Raises:
      Fault: `unreadable_file` where it cannot be opened, or is DICOM and cannot be parsed; `too_large`.
    """
    try:
        dataset = dicom_header.read(path, _HEADER_TAGS)
        header = _header(dataset)
        is_dicomdir = dataset.file_meta.get("MediaStorageSOPClassUID") == pydicom.uid.MediaStorageDirectoryStorage
    except InvalidDicomError:
        return None
    except Fault:
        raise
    except Exception as error:  # A broken file can make pydicom raise anything.
        raise unreadable(path, error) from error
    return None if is_dicomdir else header  # A DICOMDIR is the table of contents of a disc.


def _header(dataset: FileDataset) -> Header:
    charset = tuple(_several(_value(dataset, Tag("SpecificCharacterSet"))))
    texts = {name: _written(dataset, _HEADER_TAGS[int(Tag(tag))], charset) for tag, name in _HEADER.items()}
    words, samples = (_value(dataset, Tag(name)) for name in ("ImageType", "SamplesPerPixel"))
    return Header(
        **texts,
        image_type=tuple(_several(words)),
        samples=1 if samples is None else int(samples),
        position_mm=_place(dataset, "ImagePositionPatient", 3),
        orientation=_place(dataset, "ImageOrientationPatient", 6),
    )


def _written(dataset: FileDataset, tag: BaseTag, charset: tuple[str, ...]) -> str:
    """A value as text; a damaged one, as a thickness that is no number, as it stands."""
    try:
        return "\\".join(_several(_value(dataset, tag, charset))).strip()
    except ValueError:
        return _text(dataset, tag)


def _several(value: Any) -> list[str]:
    """The values of an element, of which there may be none, one or several, as text."""
    return list(map(str, value)) if isinstance(value, MultiValue) else [] if value is None else [str(value)]


def _place(dataset: FileDataset, name: str, count: int) -> tuple[float, ...] | None:
    """So many numbers; None where they are missing or damaged, which reading the image tells."""
    with contextlib.suppress(ValueError, TypeError):
        return tuple(_floats(_value(dataset, Tag(name)), count).tolist())
    return None


def read_study_date(path: Path) -> datetime.date | None:
    """When the study of an image file was made, or else the image; None where the file has no date, or one of no day.

    Raises:
      Fault: `unreadable_file`.
    """
    try:
        dataset = dicom_header.read(path, _DATES)
        values = [_text(dataset, tag) for tag in _DATES.values()]
    except Exception as error:  # as in `read_header`
        raise unreadable(path, error) from error
    for value in values:
        with contextlib.suppress(ValueError):
            if written := _DATE.fullmatch(value):
                return datetime.date(*map(int, written.groups()))
    return None


def read_slice(path: Path) -> Slice:
    """One image: its position, and where its pixels are.

    Raises:
      Fault: `unreadable_file`, `too_large`, `short_pixels`, `no_decoder`, `missing_tag`, `wrong_bits`,
        `wrong_rescale` or `not_ct`; each names the file.
    """
    try:
        return _single_image(dicom_header.read(path, SLICE_TAGS), path)
    except Fault:
        raise
    except Exception as error:  # as in `read_header`
        raise unreadable(path, error) from error


def read_slices(path: Path) -> list[Slice]:
    """The images of a file, in the file's order: a single one, or the frames of an enhanced CT.

    Raises:
      Fault: as `read_slice` does.
    """
    try:
        dataset = dicom_header.read(path, SLICE_TAGS | multiframe.TAGS)
        if multiframe.PER_FRAME not in dataset:
            if (count := int(_value(dataset, Tag("NumberOfFrames")) or 1)) > 1:
                message = f"{path} holds {count} images in one file but does not say where each lies"
                raise Fault("missing_tag", f"{message} ({multiframe.PER_FRAME}); fetch the original")
            return [_single_image(dataset, path)]
        frames = multiframe.frame_values(dataset, NAMES)
        for values in frames:
            check_values(values, dataset, path)
        first = frames[0]
        all_pixels = dicom_pixels.locate(dataset, first, path, frames=len(frames))
        frame_bytes = all_pixels.shape[0] * all_pixels.shape[1] * int(first["BitsAllocated"]) // 8
        slices = []
        for number, values in enumerate(frames):
            rescale = {"slope": float(values["RescaleSlope"]), "intercept": float(values["RescaleIntercept"])}
            offset = all_pixels.offset + number * frame_bytes
            pixels = dataclasses.replace(all_pixels, frame=number, offset=offset, **rescale)
            slices.append(make_slice(dataset, values, path, pixels))
        return slices
    except Fault:
        raise
    except Exception as error:  # as in `read_header`
        raise unreadable(path, error) from error


def _single_image(dataset: FileDataset, path: Path) -> Slice:
    values = {name: _checked_value(dataset, name, path) for name in NAMES}
    check_values(values, dataset, path)
    return make_slice(dataset, values, path, dicom_pixels.locate(dataset, values, path))


def make_slice(dataset: FileDataset, values: Mapping[str, Any], path: Path, pixels: Pixels) -> Slice:
    """A `Slice` from header values by name (`NAMES`), checked by `check_values`, and the location of its pixels."""
    padding, padding_hu = _declared_padding(dataset, values), None
    if padding is not None:
        padding_hu = padding[1] * pixels.slope + pixels.intercept
        if not hounsfield.fits_int16(padding_hu, padding_hu):
            padding_hu = hounsfield.FILL_HU
    return Slice(
        path=path,
        study_uid=str(values["StudyInstanceUID"] or "").strip(),
        series_uid=str(values["SeriesInstanceUID"]).strip(),
        sop_uid=str(values["SOPInstanceUID"] or "").strip(),
        pixels=dataclasses.replace(pixels, padding=padding),
        position_mm=_numbers(values, "ImagePositionPatient", path),
        orientation=_numbers(values, "ImageOrientationPatient", path),
        spacing_mm=tuple(_numbers(values, "PixelSpacing", path).tolist()),
        padding_hu=padding_hu,
        tilt_degrees=_tilt_degrees(values["GantryDetectorTilt"]),
    )


def read_headers(paths: Sequence[Path], sop_uids: Sequence[str]) -> list[FileDataset]:
    """The complete headers of files without their pixels, in the order of `sop_uids`, for outputs that refer to them.

    Raises:
      Fault: `unreadable_file` where one cannot be read, or has changed since its series was read.
    """
    datasets: dict[str, FileDataset] = {}
    for path in paths:
        try:
            dataset = dicom_header.read_all(path, stop_before_pixels=True)
            datasets[str(dataset.get("SOPInstanceUID") or "").strip()] = dataset
        except Exception as error:  # as in `read_header`
            raise unreadable(path, error) from error
    for keyword in _MAY_BE_EMPTY:  # Anonymisers delete what DICOM allows to be empty, not to be missing.
        for dataset in datasets.values():
            if keyword not in dataset:
                setattr(dataset, keyword, "")
    if missing := [uid for uid in sop_uids if uid not in datasets]:
        raise Fault("unreadable_file", f"{paths[0].parent} changed while it was being read: {missing[0]} is gone")
    return [datasets[uid] for uid in sop_uids]


def why_not_referred(datasets: Sequence[FileDataset]) -> str | None:
    """Why no DICOM object can refer to these images; None where one can."""
    for keyword in _REFERRED_BY:
        values = [str(dataset.get(keyword) or "") for dataset in datasets]
        if "" in values:
            return f"its images have no {keyword}, by which they are referred to"
        if keyword.endswith("UID") and not all(pydicom.uid.UID(value).is_valid for value in set(values)):
            return f"its images have a {keyword} that is no UID, so they cannot be referred to"
        if keyword == "SOPClassUID" and not all(pydicom.uid.UID(value).type == "SOP Class" for value in set(values)):
            return "its images have a SOPClassUID that DICOM does not know, so they cannot be referred to"
        if keyword == "SOPInstanceUID" and (why := _why_not_referred_one_by_one(datasets, set(values))):
            return why
    return None


def _why_not_referred_one_by_one(datasets: Sequence[FileDataset], sop_uids: set[str]) -> str | None:
    if any(map(multiframe.is_enhanced, datasets)):
        return "its frames lie in several files, and a segmentation can refer to one" if len(sop_uids) > 1 else None
    same = "several of its images have the same SOPInstanceUID, by which they are referred to"
    return same if len(sop_uids) < len(datasets) else None


def read_header_and_slice(path: Path) -> tuple[Header | None, Slice | Fault]:
    """The results of `read_header` and `read_slice`, or the fault of the latter; a valid file is read only once.

    Raises:
      Fault: as `read_header` does.
    """
    try:
        dataset = dicom_header.read(path, SLICE_TAGS | _HEADER_TAGS)
        return _header(dataset), _single_image(dataset, path)
    except Fault as fault:
        return read_header(path), fault
    except Exception as error:  # as in `read_header`
        return read_header(path), unreadable(path, error)


def read_series(paths: Sequence[Path]) -> Series:
    """Reads one series from its files, in any order.

    Raises:
      Fault: as `read_slice` and `lungjax.ct.series.assemble` do.
    """
    return assemble([read_slice(path) for path in paths])


def _files(folder: Path) -> Iterator[tuple[Path, Fault | None]]:
    """As `source.walk`, but only files that may be DICOM; hidden files (`._000001.dcm` of macOS) are left out."""
    for path, fault in source.walk(folder):
        if fault or not (path.name.startswith(".") or path.suffix.lower() in _OTHER_FILES):
            yield path, fault


def _is_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return dicom_header.is_dicom(file.read(132))
    except OSError:
        return False


def _series_header(path: Path, read_header: ReadHeader) -> Header | None:
    header = read_header(path)
    if header is None and path.suffix.lower() == ".dcm":
        raise Fault("unreadable_file", f"{path} is named like a DICOM file but is none; fetch it again")
    if header is not None and not header.series_uid:
        raise Fault("missing_tag", f"{path} has no SeriesInstanceUID, so it belongs to no scan")
    return header


def _value(dataset: FileDataset, tag: BaseTag, charset: tuple[str, ...] = ()) -> Any:
    element = dataset.get_item(tag)
    if isinstance(element, RawDataElement):
        element = dicom_header.mend_number(element)
        raw = element.value or b""
        plain = raw.isascii() and b"\x1b" not in raw  # Text that is the same in every character set.
        return _converted(element._replace(value_tell=0), () if plain else charset)  # pyright: ignore[reportArgumentType]
    return None if element is None else element.value


def _checked_value(dataset: FileDataset, name: str, path: Path) -> Any:
    """A value; None where it is missing, or is damaged and not needed."""
    try:
        return _value(dataset, _TAGS[name])
    except ValueError as error:
        if name not in _NEEDED:
            return None
        raise Fault("unreadable_file", f"{path} has a damaged {name} ({error}); use the original") from error


def _text(dataset: FileDataset, tag: BaseTag) -> str:
    """A value of digits as it is written, where pydicom would complain of one that is none."""
    element = dataset.get_item(tag)
    value = "" if element is None or element.value is None else element.value
    return (value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)).strip("\0 ")


@functools.lru_cache(maxsize=256)
def _converted(element: RawDataElement, charset: tuple[str, ...]) -> Any:
    """Cached: the slices of a series share nearly all values, and pydicom would check each value again.

    Text in another character set than the file says is read as Latin-1: each byte is a letter, so that names which
    differ stay different.
    """
    with pydicom.config.disable_value_validation():  # Whether a UID is a valid one, say, is nothing to warn of.
        if charset:
            with contextlib.suppress(Warning, ValueError, LookupError), warnings.catch_warnings(action="error"):
                encodings = pydicom.charset.convert_encodings(list(charset))
                return convert_raw_data_element(element, encoding=encodings).value
        with warnings.catch_warnings(action="ignore"):
            return convert_raw_data_element(element).value


def check_values(values: Mapping[str, Any], dataset: FileDataset, path: Path) -> None:
    """Checks that an image is CT and has all values that its HU and its position need.

    Raises:
      Fault: `not_ct`, `unreadable_file`, `missing_tag`, `wrong_bits` or `wrong_rescale`.
    """
    modality = values["Modality"]
    if modality != "CT":
        raise Fault("not_ct", f"{path} has modality {modality or 'unknown'}, not CT")
    if dicom_header.PIXELS not in dataset:
        # A file cut before its pixels parses without complaint.
        raise Fault("unreadable_file", f"{path} ends before its pixels; fetch the series again")
    for name in _NEEDED:
        if values[name] in (None, ""):
            raise Fault("missing_tag", f"{path} has no {name}; without it the image has no HU or no position")
    if not min(pixel_mm := _numbers(values, "PixelSpacing", path).tolist()) > 0:
        what = f"pixels of {pixel_mm[0]:g} x {pixel_mm[1]:g} mm"
        raise Fault("unreadable_file", f"{path} has {what}, which is impossible; use the original")
    _check_rescale(values, path)


def _check_rescale(values: Mapping[str, Any], path: Path) -> None:
    """Checks that the range of the stored bits, rescaled, reaches from air to tissue."""
    slope, intercept = (float(_numbers(values, name, path)[0]) for name in ("RescaleSlope", "RescaleIntercept"))
    bits = dicom_pixels.bits_stored(values, path)
    lowest = -(2 ** (bits - 1)) if values["PixelRepresentation"] == 1 else 0
    low_hu, high_hu = (stored * slope + intercept for stored in (lowest, lowest + 2**bits - 1))
    if not hounsfield.is_chest(low_hu, high_hu):  # A slope of 0 or less, or NaN, fails here, too.
        rescale = f"slope {slope:g} and intercept {intercept:g}, which turn its {bits} bits into"
        message = f"{path} has {rescale} {low_hu:g} to {high_hu:g} HU at most; use the original"
        raise Fault("wrong_rescale", message)


def _declared_padding(dataset: FileDataset, values: Mapping[str, Any]) -> tuple[int, int] | None:
    """The lowest and the highest stored value that the header declares to be padding."""
    # Read through the data set, because the VR of these tags depends on other elements.
    declared = [dataset[tag].value for tag in _PADDING if tag in dataset]
    stored = [int(value) for value in declared if value not in (None, "")]
    if not stored:
        return None
    # Of a pixel only these bits are read, so of padding, too. With an unsigned VR, 63536 may mean -2000.
    bits = dicom_pixels.bits_stored(values, Path())
    sign = 1 << (bits - 1) if values["PixelRepresentation"] == 1 else 0
    stored = [((value + sign) & ((1 << bits) - 1)) - sign for value in stored]
    return min(stored), max(stored)


def _numbers(values: Mapping[str, Any], name: str, path: Path) -> np.ndarray:
    """As many finite numbers as an attribute has; a Fault where there are others."""
    found = values[name]
    try:
        return _floats(found if isinstance(found, MultiValue) else [found], _COUNTS[name])
    except (ValueError, TypeError) as error:
        raise Fault("unreadable_file", f"{path} has a damaged {name} ({error}); use the original") from error


def _tilt_degrees(value: Any) -> float:
    """The tilt of the gantry; 0 where it is missing or damaged, for positions tell it, too."""
    with contextlib.suppress(ValueError, TypeError):
        return float(_floats([value or 0], 1)[0])
    return 0.0


def _floats(values: Sequence[float], count: int) -> np.ndarray:
    floats = np.array([float(value) for value in values], np.float64)
    if floats.shape != (count,) or not all(map(math.isfinite, floats)):
        found = ", ".join(f"{number:g}" for number in floats)
        raise ValueError(f"{count} finite number{'s' * (count > 1)} expected, found {found}")
    return floats
