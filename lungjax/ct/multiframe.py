"""Enhanced CT: one DICOM file with many images, its frames (DICOM PS3.3, A.38 and C.7.6.16)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from lungjax.ct import dicom_header
from lungjax.ct.series import normal

PER_FRAME, _SHARED = "PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"
"""A file that has the first of these is an enhanced CT."""
_GROUP_OF = {
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
}
"""The functional group that holds an attribute which a single image has at the top level of its header."""
TAGS = {int(Tag(name)): Tag(name) for name in ("NumberOfFrames", PER_FRAME, _SHARED)}
"""The tags that are read from a header to find the frames."""


def is_enhanced(dataset: Dataset) -> bool:
    """Whether a file is an enhanced CT, with one or more frames."""
    return PER_FRAME in dataset


def frame_order(dataset: Dataset) -> np.ndarray:
    """(frames,) int: the frames of an enhanced CT, counted from 0, in the order of `Series`."""
    frames = frame_values(dataset, ("ImagePositionPatient", "ImageOrientationPatient"))
    positions_mm = np.array([frame["ImagePositionPatient"] for frame in frames], np.float64)
    along = normal(np.array(frames[0]["ImageOrientationPatient"], np.float64))
    return np.argsort(positions_mm @ along)


def frame_values(dataset: Any, names: Sequence[str]) -> list[dict[str, Any]]:
    """The attributes `names` of each frame, in the file's order, as in a single image's header; None where missing.

    Raises:
      ValueError: the number of frames described is not the number of frames.
    """
    frames = [_values_of_frame(dataset, frame, names) for frame in dataset[PER_FRAME].value]
    count = dataset["NumberOfFrames"].value if "NumberOfFrames" in dataset else None
    if not frames or count is None or len(frames) != int(count):
        raise ValueError(f"its header describes {len(frames)} of {count} frames")
    return frames


def _values_of_frame(dataset: Any, frame: Dataset, names: Sequence[str]) -> dict[str, Any]:
    (shared,) = dataset[_SHARED].value if _SHARED in dataset else (Dataset(),)
    values = {name: dicom_header.value_of(dataset, name) for name in names}
    for name, group in _GROUP_OF.items():
        holder = frame if group in frame else shared
        if name in values:
            values[name] = dicom_header.value_of(holder[group].value[0], name) if holder.get(group) else None
    return values
