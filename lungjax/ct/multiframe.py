"""Enhanced CT: one DICOM file that holds many images (DICOM PS3.3, A.38 and C.7.6.16), to the same `Slice`s."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from lungjax.ct import dicom, dicom_header, dicom_pixels
from lungjax.ct.dicom_pixels import unreadable
from lungjax.ct.series import Slice, normal
from lungjax.errors import Fault

_GROUPS = ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence")
_OF_GROUP = {
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
}
"""What differs from the header of a single image: where a frame's values stand."""
_FRAME_TAGS = {int(Tag(name)): Tag(name) for name in ("NumberOfFrames", *_GROUPS)}


def read_slices(path: Path) -> list[Slice]:
    """The images of a file, in its order: one, or the frames of an enhanced CT.

    Raises:
      Fault: as `dicom.read_slice` does.
    """
    try:
        if not is_enhanced(dicom_header.read(path, _FRAME_TAGS)):
            return [dicom.read_slice(path)]
        dataset = dicom_header.read(path, dicom.SLICE_TAGS | _FRAME_TAGS)
        values = [_values(dataset, frame) for frame in dataset[_GROUPS[0]].value]
        if len(values) != int(dataset["NumberOfFrames"].value) or not values:
            raise ValueError(f"{len(values)} frames are described of {dataset['NumberOfFrames'].value}")
        return list(_slices(dataset, values, path))
    except Fault:
        raise
    except Exception as error:  # pydicom raises whatever a broken file happens to provoke
        raise unreadable(path, error) from error


def is_enhanced(dataset: Dataset) -> bool:
    """Whether a file holds many images."""
    return _GROUPS[0] in dataset


def order(dataset: Dataset) -> np.ndarray:
    """The frames of an enhanced CT in the order of `Series`, counted from 0: (frames,) int."""
    frames = [_values(dataset, frame) for frame in dataset[_GROUPS[0]].value]
    positions_mm = np.array([frame["ImagePositionPatient"] for frame in frames], np.float64)
    along = normal(np.array(frames[0]["ImageOrientationPatient"], np.float64))
    return np.argsort(positions_mm @ along)


def _slices(dataset: Any, values: Sequence[dict[str, Any]], path: Path) -> Iterator[Slice]:
    for frame in values:
        dicom.check_values(frame, dataset, path)
    first = values[0]
    whole = dicom_pixels.locate(dataset, first, path, frames=len(values))
    frame_bytes = whole.shape[0] * whole.shape[1] * int(first["BitsAllocated"]) // 8
    for number, frame in enumerate(values):
        rescaled = {"slope": float(frame["RescaleSlope"]), "intercept": float(frame["RescaleIntercept"])}
        offset = whole.offset + number * frame_bytes
        yield dicom.slice_of(dataset, frame, path, dataclasses.replace(whole, frame=number, offset=offset, **rescaled))


def _values(dataset: Any, frame: Dataset) -> dict[str, Any]:
    """What `dicom` reads of the header of one image, of a frame."""
    (shared,) = dataset[_GROUPS[1]].value if _GROUPS[1] in dataset else (Dataset(),)
    values = {name: dataset[name].value if name in dataset else None for name in dicom.NAMES}
    for name, group in _OF_GROUP.items():
        own = frame if group in frame else shared
        values[name] = own[group].value[0].get(name) if own.get(group) else None
    return values
