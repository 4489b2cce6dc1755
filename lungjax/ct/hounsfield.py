"""Hounsfield units: numbers of any type to int16, the one check of them, and voxels that are no measurement."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from lungjax.errors import Fault

LEAST_AIR_HU, LEAST_TISSUE_HU = -500, -100
"""A CT of the chest has voxels below the one, air, and above the other: fat at least."""

_LOWEST, _HIGHEST = -32768.5, 32767.5
"""What int16 holds once it is rounded, both excluded."""
_LEAST_SPAN_HU = 100
"""Air and tissue are 1000 HU apart: less than this is no CT any more, but scaled by someone."""
_AIR_HU = -1000
"""A declared padding value above air would turn lung into padding; such a header is not believed."""
_NOT_AIR_HU = -1500
"""Scanners fill the outside of the reconstruction circle with -2048, -3024 and the like."""
_PLATEAU_SHARE = 1e-3
"""Share of a series' voxels that makes one value below `_NOT_AIR_HU` a fill value, not a streak artefact."""


def to_int16(values: np.ndarray, where: str) -> np.ndarray:
    """int16 HU of the same shape, from numbers of any type, rounded.

    Raises:
      Fault: `not_finite`, `hu_out_of_range`, or `not_hu` where the numbers span too little to be HU.
    """
    low, high = float(values.min()), float(values.max())  # NaN if any voxel is
    if not (math.isfinite(low) and math.isfinite(high)):
        raise Fault("not_finite", f"{where} holds NaN or infinite numbers; fetch it again")
    check_fits_int16(low, high, where)
    if high - low < _LEAST_SPAN_HU:
        raise Fault("not_hu", f"{where} holds {low:g} to {high:g}, which are no HU; use it as it was before scaling")
    if values.dtype.kind == "f":
        values = np.rint(values)
    return values.astype(np.int16, copy=False)


def check_fits_int16(low_hu: float, high_hu: float, where: str) -> None:
    """A Fault `hu_out_of_range` where int16 cannot hold the lowest or the highest value."""
    if not _LOWEST < low_hu <= high_hu < _HIGHEST:
        held = f"{low_hu:g} to {high_hu:g} HU, which int16 cannot hold"
        raise Fault("hu_out_of_range", f"{where} has {held}; its rescale tags or its pixels are wrong")


def is_chest(low_hu: float, high_hu: float) -> bool:
    """Whether the lowest and the highest HU reach from air to tissue, as in every CT of a chest; False of NaN."""
    return low_hu <= LEAST_AIR_HU and high_hu >= LEAST_TISSUE_HU


def check_chest(range_hu: tuple[float, float], where: str) -> None:
    """HU of a chest, lowest and highest, reach from air to tissue; a Fault `wrong_rescale` otherwise."""
    if not is_chest(*range_hu):
        held = f"{range_hu[0]:g} to {range_hu[1]:g} HU, which is no CT of a chest"
        raise Fault("wrong_rescale", f"{where} has {held}: its rescale tags are wrong; fetch the series again")


def padding(voxels: np.ndarray, declared_hu: float | None) -> int | None:
    """The largest value that means "no measurement here", or None.

    What the header declares is believed if voxels hold it and it is not above air. Many headers declare
    another value than their scanner wrote, so one value below -1500 HU that fills a share of the volume
    counts as well.

    Args:
      voxels: (slices, rows, columns) int16 HU.
      declared_hu: from the header, or None.
    """
    return padding_of_filled(voxels, [lowest(plane) for plane in voxels], declared_hu)


def padding_of_filled(
    voxels: np.ndarray, filled: Sequence[tuple[int, int, int]], declared_hu: float | None
) -> int | None:
    """As `padding`; `filled` are each slice's `lowest`."""
    found = []
    lowest_hu = min(low_hu for low_hu, _, _ in filled)
    if declared_hu is not None and lowest_hu <= declared_hu <= _AIR_HU:
        found.append(math.floor(declared_hu))
    if lowest_hu <= _NOT_AIR_HU:
        fill_hu, count = lowest_hu, sum(count for low_hu, count, _ in filled if low_hu == lowest_hu)
        if 2 * count < sum(below for _, _, below in filled):  # Rarely is the lowest not the commonest.
            counts = np.bincount(voxels[voxels <= _NOT_AIR_HU].astype(np.int32) + 32768)
            fill_hu, count = int(counts.argmax()) - 32768, int(counts.max())
        if count >= _PLATEAU_SHARE * voxels.size:
            found.append(fill_hu)
    return max(found, default=None)


def lowest(plane: np.ndarray) -> tuple[int, int, int]:
    """The lowest value of a slice, and how many voxels hold it, and how many any value up to `_NOT_AIR_HU`."""
    low_hu = int(plane.min())
    if low_hu > _NOT_AIR_HU:
        return low_hu, 0, 0
    return low_hu, int(np.count_nonzero(plane == low_hu)), int(np.count_nonzero(plane <= _NOT_AIR_HU))
