"""Hounsfield units: conversion to int16, the check for a chest's range, and padding (voxels without a measurement)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from lungjax.ct import connected_components
from lungjax.ct.faults import Note
from lungjax.errors import Fault

LEAST_AIR_HU, LEAST_TISSUE_HU = -500, -100
"""A CT of the chest has voxels below the first value (air) and above the second (at least fat)."""

_LOWEST, _HIGHEST = -32768.5, 32767.5
"""Values between these bounds, both excluded, fit into int16 once rounded."""
FILL_HU = -2048
"""What scanners write outside the field of view, and what NaN there are read as."""
_LEAST_SPAN_HU = 100
"""Air and tissue are 1000 HU apart: values that span less than this have been scaled and are no longer HU."""
_AIR_HU = -1000
"""A declared padding value above air would turn lung into padding; such a header is ignored."""
_NOT_AIR_HU = -1500
"""Scanners fill the area outside the reconstruction circle with -2048, -3024 and similar values."""
_MOST_8_BIT = 255
_SAMPLED_SIDE = 96
"""About so many planes along each side are looked at."""
_HARDLY_ANY, _MANY = 0.005, 0.05
"""Shares of a scan. Of LIDC-IDRI-0001, -0003 and a Siemens scan, 22 to 29 % are as dense as lung, 30 to 58 % as
soft tissue, and less than 0.5 % denser than 600 HU."""
_PLATEAU_SHARE = 1e-3
"""A value below `_NOT_AIR_HU` held by this share of a series' voxels is a fill value, not a streak artefact."""


def to_int16(values: np.ndarray, where: str) -> np.ndarray:
    """Rounds numbers of any type to int16 of the same shape.

    Raises:
      Fault: `not_finite`, `hu_out_of_range`, or `not_hu` where the numbers span too little to be HU.
    """
    low, high = float(values.min()), float(values.max())  # NaN if any voxel is NaN
    if not (math.isfinite(low) and math.isfinite(high)):
        raise Fault("not_finite", f"{where} holds NaN or infinite numbers; use the original")
    check_fits_int16(low, high, where)
    if high - low < _LEAST_SPAN_HU:  # Looked at before rounding, which fractions would not survive.
        check_scan(values, where, range_hu=(low, high))
    if values.dtype.kind == "f":
        values = np.rint(values)
    return values.astype(np.int16, copy=False)


def fill_not_a_number(values: np.ndarray, where: str) -> tuple[np.ndarray, Note | None]:
    """Gives voxels that are NaN outside the field of view a value of padding, as scanners write it.

    Args:
      values: (slices, rows, columns) numbers of any type.
      where: what they are, for messages.

    Returns:
      The values, and a note where some were NaN.

    Raises:
      Fault: `not_finite` where voxels are NaN that no others connect with the volume's border.
    """
    if values.dtype.kind != "f" or not (missing := np.isnan(values)).any():
        return values, None
    labels = connected_components.label(missing)
    faces = [labels.take(index, axis) for axis in range(3) for index in (0, -1)]
    outer = np.unique(np.concatenate([face.ravel() for face in faces]))
    inner = int(labels.max()) - np.count_nonzero(outer)
    if inner or missing.all():
        problem = "nothing but NaN" if missing.all() else "NaN within the field of view"
        raise Fault("not_finite", f"{where} holds {problem}; use the original")
    message = (
        f"{100 * missing.mean():.3g} % of the voxels of {where}, outside the field of view, are NaN: read as padding"
    )
    return np.where(missing, values.dtype.type(FILL_HU), values), Note("not_a_number", message)


def fits_int16(low_hu: float, high_hu: float) -> bool:
    """Whether int16 can hold the lowest and the highest value."""
    return _LOWEST < low_hu <= high_hu < _HIGHEST


def check_fits_int16(low_hu: float, high_hu: float, where: str) -> None:
    """Raises the Fault `hu_out_of_range` where int16 cannot hold the lowest or the highest value."""
    if not fits_int16(low_hu, high_hu):
        range_text = f"{low_hu:g} to {high_hu:g} HU, which int16 cannot hold"
        raise Fault("hu_out_of_range", f"{where} has {range_text}; its rescale tags or its pixels are wrong")


def is_chest(low_hu: float, high_hu: float) -> bool:
    """Whether the lowest and the highest HU reach from air to tissue, as in every CT of a chest; False for NaN."""
    return low_hu <= LEAST_AIR_HU and high_hu >= LEAST_TISSUE_HU


def why_no_chest(voxels: np.ndarray, range_hu: tuple[float, float] | None = None) -> str | None:
    """Why numbers cannot be the HU of a chest, as a clause with "it" as its subject; None where they can.

    They span a range from air to tissue, and neither lack lung nor soft tissue, as do HU to which 1024 was added, or
    from which it was subtracted twice, in a scan whose padding alone is as low as air.

    Args:
      voxels: (slices, rows, columns) of a whole scan, or some of its planes.
      range_hu: the lowest and the highest of them, if they are known.
    """
    low_hu, high_hu = range_hu or (float(voxels.min()), float(voxels.max()))
    held = f"it holds {low_hu:g} to {high_hu:g} HU"
    if not high_hu - low_hu >= _LEAST_SPAN_HU:
        return f"{held}, too little a span, as after scaling or a window of 8 bits: these are no HU"
    if not low_hu <= LEAST_AIR_HU:
        offset = "; perhaps 1024 was added" if high_hu > _MOST_8_BIT else ""
        return f"{held}, without air: these are no HU of a chest{offset}"
    if not high_hu >= LEAST_TISSUE_HU:
        return f"{held}, without tissue: these are no HU of a chest"
    steps = [max(size // _SAMPLED_SIDE, 1) for size in voxels.shape]
    sample = voxels[tuple(slice(step // 2, None, step) for step in steps)]
    if _share(sample, -950, -150) < _HARDLY_ANY and _share(sample, 600, math.inf) > _MANY:
        return f"{held}, but hardly any that are lung, and many above bone: perhaps 1024 was added"
    if _share(sample, -200, 600) < _HARDLY_ANY and _share(sample, -math.inf, -1100) > _MANY:
        return f"{held}, but hardly any that are soft tissue, and many below air: perhaps 1024 was subtracted twice"
    return None


def _share(voxels: np.ndarray, low_hu: float, high_hu: float) -> float:
    """The share of voxels between two values, both excluded."""
    return float(np.mean((voxels > low_hu) & (voxels < high_hu)))


def check_scan(voxels: np.ndarray, where: str, *, range_hu: tuple[float, float] | None = None) -> None:
    """Checks that a scan's numbers are HU of a chest; arguments as for `why_no_chest`.

    Raises:
      Fault: `not_hu`; the message calls the scan `where`.
    """
    if why := why_no_chest(voxels, range_hu):
        raise Fault("not_hu", f"{where} is not used: {why}; use the image as it was before it was changed")


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
