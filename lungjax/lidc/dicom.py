"""DICOM CT files to `Slice` and `Series`, or a named fault."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
import pydicom.uid
from pydicom.dataset import FileDataset
from pydicom.errors import InvalidDicomError

from lungjax.lidc.scan import Fault
from lungjax.lidc.series import Series, Slice, assemble

_HEADER_TAGS = ["Modality", "PatientID", "StudyInstanceUID", "SeriesInstanceUID"]
_UIDS = ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"]
_GEOMETRY = ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns"]
_VALUES = ["RescaleSlope", "RescaleIntercept", "BitsAllocated", "PixelRepresentation"]
_NEEDED = [*_UIDS, *_GEOMETRY, *_VALUES]
_PADDING = ["PixelPaddingValue", "PixelPaddingRangeLimit"]
_DECODING = ["SamplesPerPixel", "PhotometricInterpretation", "BitsStored", "HighBit", "PixelData"]
_SLICE_TAGS = ["Modality", *_NEEDED, *_PADDING, *_DECODING]
_PLAIN = (pydicom.uid.ImplicitVRLittleEndian, pydicom.uid.ExplicitVRLittleEndian)


@dataclasses.dataclass(frozen=True)
class Header:
    """What tells one series from another; an empty string where the file does not say."""

    modality: str
    patient_id: str
    study_uid: str
    series_uid: str


def read_header(path: Path) -> Header | None:
    """Which series a file belongs to, without its pixels; None where it is no DICOM image.

    Raises:
      Fault: `unreadable_file` where it cannot be opened, or is DICOM and cannot be parsed.
    """
    try:
        dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_HEADER_TAGS))
    except InvalidDicomError:
        return None
    except Exception as error:  # pydicom raises whatever a broken file happens to provoke
        raise _unreadable(path, error) from error
    if dataset.file_meta.get("MediaStorageSOPClassUID") == pydicom.uid.MediaStorageDirectoryStorage:
        return None  # a DICOMDIR: the table of contents of a disc
    return Header(*(str(dataset.get(tag) or "").strip() for tag in _HEADER_TAGS))


def read_slice(path: Path) -> Slice:
    """One image, in HU.

    Raises:
      Fault: `unreadable_file`, `missing_tag`, `not_ct` or `hu_out_of_range`; each names the file.
    """
    try:
        dataset = pydicom.dcmread(path, specific_tags=list(_SLICE_TAGS))
        _check_tags(dataset, path)
        return Slice(
            path=path,
            study_uid=str(dataset.StudyInstanceUID).strip(),
            series_uid=str(dataset.SeriesInstanceUID).strip(),
            sop_uid=str(dataset.SOPInstanceUID).strip(),
            voxels=_voxels_hu(dataset, path),
            position_mm=_floats(dataset.ImagePositionPatient, 3),
            orientation=_floats(dataset.ImageOrientationPatient, 6),
            spacing_mm=tuple(_floats(dataset.PixelSpacing, 2).tolist()),
            padding_hu=_declared_padding_hu(dataset),
        )
    except Fault:
        raise
    except Exception as error:  # as in `read_header`
        raise _unreadable(path, error) from error


def read_series(paths: Sequence[Path]) -> Series:
    """One series from its files, given in any order.

    Raises:
      Fault: as `read_slice` and `lungjax.lidc.series.assemble` do.
    """
    return assemble([read_slice(path) for path in paths])


def _check_tags(dataset: FileDataset, path: Path) -> None:
    modality = dataset.get("Modality")
    if modality != "CT":
        raise Fault("not_ct", f"{path} has modality {modality or 'unknown'}, not CT")
    if "PixelData" not in dataset:
        # A file cut before its pixels parses without complaint.
        raise Fault("unreadable_file", f"{path} ends before its pixels; fetch the series again")
    for tag in _NEEDED:
        if dataset.get(tag) in (None, ""):
            raise Fault("missing_tag", f"{path} has no {tag}; without it the image has no HU or no place")


def _voxels_hu(dataset: FileDataset, path: Path) -> np.ndarray:
    """int16 (rows, columns): stored values by slope and intercept."""
    stored = _stored_values(dataset, path)
    slope, intercept = float(dataset.RescaleSlope), float(dataset.RescaleIntercept)
    ends_hu = sorted(float(end) * slope + intercept for end in (stored.min(), stored.max()))
    if not -32768.5 < ends_hu[0] <= ends_hu[1] < 32767.5:
        held = f"{ends_hu[0]:g} to {ends_hu[1]:g} HU, which int16 cannot hold"
        raise Fault("hu_out_of_range", f"{path} has {held}; its rescale tags or its pixels are wrong")
    if slope == 1 and intercept.is_integer() and stored.dtype.itemsize == 2:
        # Every result fits int16, so arithmetic modulo 2**16 is exact, and much faster than in floats.
        return (stored.view(np.uint16) + np.uint16(int(intercept) % 65536)).view(np.int16)
    return np.rint(stored * slope + intercept).astype(np.int16)


def _stored_values(dataset: FileDataset, path: Path) -> np.ndarray:
    """(rows, columns) as stored, in the machine's byte order."""
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    plain = dataset.file_meta.TransferSyntaxUID in _PLAIN and dataset.BitsAllocated == 16
    if not plain or dataset.get("SamplesPerPixel", 1) != 1:
        stored = dataset.pixel_array
        if stored.shape != (rows, columns):
            raise Fault("unreadable_file", f"{path} is no single grey image: its pixels are {stored.shape}")
        return stored
    # The same as `pixel_array`, without its three copies; they would take most of the time.
    content: bytes = dataset.PixelData
    if len(content) < 2 * rows * columns:
        have = f"{len(content)} of {2 * rows * columns} bytes of pixels"
        raise Fault("unreadable_file", f"{path} is cut short: it has {have}; fetch the series again")
    kind = np.dtype("<i2" if dataset.PixelRepresentation == 1 else "<u2")
    stored = np.frombuffer(content, kind, rows * columns).reshape(rows, columns)
    return stored.astype(kind.newbyteorder("="), copy=False)


def _declared_padding_hu(dataset: FileDataset) -> float | None:
    stored = [int(dataset[tag].value) for tag in _PADDING if dataset.get(tag) not in (None, "")]
    if not stored:
        return None
    bits = int(dataset.BitsAllocated)
    if dataset.PixelRepresentation == 1:
        # Written with the VR of unsigned values in some files: 63536 is -2000.
        stored = [value - (1 << bits) if value >= 1 << (bits - 1) else value for value in stored]
    return max(stored) * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)


def _floats(values: Sequence[float], count: int) -> np.ndarray:
    floats = np.array([float(value) for value in values], np.float64)
    if floats.shape != (count,) or not all(map(math.isfinite, floats)):
        raise ValueError(f"expected {count} numbers, found {list(values)}")
    return floats


def _unreadable(path: Path, error: Exception) -> Fault:
    return Fault("unreadable_file", f"{path} cannot be read ({error or type(error).__name__}); fetch it again")
