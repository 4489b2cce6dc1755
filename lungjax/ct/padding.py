"""Voxels that are no measurement: what scanners write outside their reconstruction circle."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

_AIR_HU = -1000
"""A declared padding value above air would turn lung into padding; such a header is not believed."""
_NOT_AIR_HU = -1500
"""Scanners fill the outside of the reconstruction circle with -2048, -3024 and the like."""
_PLATEAU_SHARE = 1e-3
"""Share of a series' voxels that makes one value below `_NOT_AIR_HU` a fill value, not a streak artefact."""


def find(voxels: np.ndarray, declared_hu: float | None) -> int | None:
    """The largest value that means "no measurement here", or None.

    What the header declares is believed if voxels hold it and it is not above air. Many headers declare
    another value than their scanner wrote, so one value below -1500 HU that fills a share of the volume
    counts as well.

    Args:
      voxels: (slices, rows, columns) int16 HU.
      declared_hu: from the header, or None.
    """
    return of_filled(voxels, [lowest(plane) for plane in voxels], declared_hu)


def of_filled(voxels: np.ndarray, filled: Sequence[tuple[int, int, int]], declared_hu: float | None) -> int | None:
    """As `find`; `filled` are each slice's `lowest`."""
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
