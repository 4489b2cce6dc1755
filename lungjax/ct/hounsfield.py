"""Hounsfield units: conversion to int16, the check for a chest's range, and padding (voxels without a measurement)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from lungjax.errors import Fault

LEAST_AIR_HU, LEAST_TISSUE_HU = -500, -100
"""A CT of the chest has voxels below the first value (air) and above the second (at least fat)."""

_LOWEST, _HIGHEST = -32768.5, 32767.5
"""Values between these bounds, both excluded, fit into int16 once rounded."""
_LEAST_SPAN_HU = 100
"""Air and tissue are 1000 HU apart: values that span less than this have been scaled and are no longer HU."""
_AIR_HU = -1000
"""A declared padding value above air would turn lung into padding; such a header is ignored."""
_NOT_AIR_HU = -1500
"""Scanners fill the area outside the reconstruction circle with -2048, -3024 and similar values."""
_PLATEAU_SHARE = 1e-3
"""A value below `_NOT_AIR_HU` held by this share of a series' voxels is a fill value, not a streak artefact."""


def to_int16(values: np.ndarray, where: str) -> np.ndarray:
    """Rounds numbers of any type to int16 HU of the same shape.

    Raises:
      Fault: `not_finite`, `hu_out_of_range`, or `not_hu` where the numbers span too little to be HU.
    """
    low, high = float(values.min()), float(values.max())  # NaN if any voxel is NaN
    if not (math.isfinite(low) and math.isfinite(high)):
        raise Fault("not_finite", f"{where} holds NaN or infinite numbers; fetch it again")
    check_fits_int16(low, high, where)
    if high - low < _LEAST_SPAN_HU:
        raise Fault(
            "not_hu", f"{where} holds {low:g} to {high:g}, which are not HU; use the image as it was before scaling"
        )
    if values.dtype.kind == "f":
        values = np.rint(values)
    return values.astype(np.int16, copy=False)


def check_fits_int16(low_hu: float, high_hu: float, where: str) -> None:
    """Raises the Fault `hu_out_of_range` where int16 cannot hold the lowest or the highest value."""
    if not _LOWEST < low_hu <= high_hu < _HIGHEST:
        range_text = f"{low_hu:g} to {high_hu:g} HU, which int16 cannot hold"
        raise Fault("hu_out_of_range", f"{where} has {range_text}; its rescale tags or its pixels are wrong")


def is_chest(low_hu: float, high_hu: float) -> bool:
    """Whether the lowest and the highest HU reach from air to tissue, as in every CT of a chest; False for NaN."""
    return low_hu <= LEAST_AIR_HU and high_hu >= LEAST_TISSUE_HU


def check_chest(range_hu: tuple[float, float], where: str) -> None:
    """Raises the Fault `wrong_rescale` unless the lowest and the highest HU reach from air to tissue."""
    if not is_chest(*range_hu):
        range_text = f"{range_hu[0]:g} to {range_hu[1]:g} HU, which is not a CT of a chest"
        raise Fault("wrong_rescale", f"{where} has {range_text}: its rescale tags are wrong; fetch the series again")


def padding(voxels: np.ndarray, declared_hu: float | None) -> int | None:
    """The largest value that means "no measurement", or None.

    The value that the header declares counts if voxels hold it and it is not above air. Many headers declare another
    value than the one their scanner wrote, so a value below -1500 HU that fills a share of the volume counts as well.

    Args:
      voxels: (slices, rows, columns) int16 HU.
      declared_hu: the header's value, or None.
    """
    return padding_from_minima(voxels, [slice_minimum(plane) for plane in voxels], declared_hu)


def padding_from_minima(
    voxels: np.ndarray, minima: Sequence[tuple[int, int, int]], declared_hu: float | None
) -> int | None:
    """As `padding`; `minima` holds the `slice_minimum` of each slice."""
    paddings_hu = []
    lowest_hu = min(low_hu for low_hu, _, _ in minima)
    if declared_hu is not None and lowest_hu <= declared_hu <= _AIR_HU:
        paddings_hu.append(math.floor(declared_hu))
    if lowest_hu <= _NOT_AIR_HU:
        fill_hu, count = lowest_hu, sum(count for low_hu, count, _ in minima if low_hu == lowest_hu)
        if 2 * count < sum(below for _, _, below in minima):  # The lowest is rarely not the most common.
            counts = np.bincount(voxels[voxels <= _NOT_AIR_HU].astype(np.int32) + 32768)
            fill_hu, count = int(counts.argmax()) - 32768, int(counts.max())
        if count >= _PLATEAU_SHARE * voxels.size:
            paddings_hu.append(fill_hu)
    return max(paddings_hu, default=None)


def slice_minimum(plane: np.ndarray) -> tuple[int, int, int]:
    """A slice's lowest value, the number of voxels that hold it, and the number at or below `_NOT_AIR_HU`.

    Both numbers are 0 where the lowest value is above `_NOT_AIR_HU`.
    """
    low_hu = int(plane.min())
    if low_hu > _NOT_AIR_HU:
        return low_hu, 0, 0
    return low_hu, int(np.count_nonzero(plane == low_hu)), int(np.count_nonzero(plane <= _NOT_AIR_HU))
