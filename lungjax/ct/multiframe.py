"""Enhanced CT: one DICOM file that holds many images (DICOM PS3.3, A.38 and C.7.6.16)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from lungjax.ct.series import normal

PER_FRAME, _SHARED = "PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"
"""A file that has the first holds many images."""
_OF_GROUP = {
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
}
"""What differs from the header of a single image: where a frame's values stand."""
TAGS = {int(Tag(name)): Tag(name) for name in ("NumberOfFrames", PER_FRAME, _SHARED)}
"""What is read of a header to find the frames."""


def is_enhanced(dataset: Dataset) -> bool:
    """Whether a file holds many images."""
    return PER_FRAME in dataset


def order(dataset: Dataset) -> np.ndarray:
    """The frames of an enhanced CT in the order of `Series`, counted from 0: (frames,) int."""
    frames = values(dataset, ("ImagePositionPatient", "ImageOrientationPatient"))
    positions_mm = np.array([frame["ImagePositionPatient"] for frame in frames], np.float64)
    along = normal(np.array(frames[0]["ImageOrientationPatient"], np.float64))
    return np.argsort(positions_mm @ along)


def values(dataset: Any, names: Sequence[str]) -> list[dict[str, Any]]:
    """Of each frame, in the file's order, what a single image's header says under these names; None where unsaid.

    Raises:
      ValueError: not as many frames are described as there are.
    """
    frames = [_of_frame(dataset, frame, names) for frame in dataset[PER_FRAME].value]
    count = dataset["NumberOfFrames"].value if "NumberOfFrames" in dataset else None
    if not frames or count is None or len(frames) != int(count):
        raise ValueError(f"{len(frames)} frames are described of {count}")
    return frames


def _of_frame(dataset: Any, frame: Dataset, names: Sequence[str]) -> dict[str, Any]:
    (shared,) = dataset[_SHARED].value if _SHARED in dataset else (Dataset(),)
    found = {name: dataset[name].value if name in dataset else None for name in names}
    for name, group in _OF_GROUP.items():
        own = frame if group in frame else shared
        if name in found:
            found[name] = own[group].value[0].get(name) if own.get(group) else None
    return found
