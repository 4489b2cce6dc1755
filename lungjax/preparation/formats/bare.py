"""A scan from a source with only pixels and masks: no HU, positions, spacing, slice IDs or ratings."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from lungjax.ct.scan import RATING_NAMES, Intensity, Nodule, Reading, Scan
from lungjax.errors import Fault

_ROUNDING = 1e-6
"""How far a fraction may lie outside [0, 1]: subtracting 0.5 and adding it again rounds."""


def bare_scan(
    *,
    patient_id: str,
    study_uid: str,
    series_uid: str,
    voxels: np.ndarray,
    masks: Sequence[np.ndarray],
    intensity: Intensity = "unit",
) -> Scan:
    """A scan from one stack of images and the masks of slots 0, 1, ... as one nodule; empty masks give no reading.

    Args:
      patient_id, study_uid, series_uid: as in `Scan`.
      voxels: (slices, rows, columns), dtype by `intensity`.
      masks: bool, one per slot, each of the shape of `voxels`.
      intensity: see `Intensity`; never `hu`.
    """
    slices = len(voxels)
    readings = tuple(unrated_reading(slot, mask) for slot, mask in enumerate(masks) if mask.any())
    return Scan(
        patient_id=patient_id,
        study_uid=study_uid,
        series_uid=series_uid,
        voxels=voxels,
        intensity=intensity,
        z_mm=np.full(slices, np.nan),
        spacing_mm=(math.nan, math.nan, math.nan),
        sop_uids=("",) * slices,
        padding_hu=None,
        nodules=(Nodule(0, readings),) if readings else (),
    )


def to_fractions(images: np.ndarray, where: str) -> np.ndarray:
    """Converts images of any type to float32 in [0, 1]; rounding errors are clipped.

    Raises:
      Fault: `not_finite`, or `fraction_out_of_range`.
    """
    if not np.isfinite(images).all():
        raise Fault("not_finite", f"{where} holds NaN or infinite numbers; use the original")
    low, high = float(images.min()), float(images.max())
    if low < -_ROUNDING or high > 1 + _ROUNDING:
        raise Fault(
            "fraction_out_of_range",
            f"{where} holds {low:g} to {high:g}, not 0 to 1; use the image before it was rescaled",
        )
    return images.clip(0, 1).astype(np.float32)


def unrated_reading(slot: int, mask: np.ndarray) -> Reading:
    """An unrated reading from a mask, bool (slices, rows, columns) and not empty, cropped to its bounding box."""
    box = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        marked = np.flatnonzero(mask.any(axis=others))
        box.append(slice(int(marked[0]), int(marked[-1]) + 1))
    origin = (box[0].start, box[1].start, box[2].start)
    return Reading(slot, -1, (0,) * len(RATING_NAMES), mask[tuple(box)].copy(), origin)
