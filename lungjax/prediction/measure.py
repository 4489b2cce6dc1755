"""Diameters of a candidate in its slices, by RECIST 1.1 (Eisenhauer et al. 2009)."""

from __future__ import annotations

import numpy as np
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist, squareform

_MIDDLES = np.array([(-0.5, 0.0), (0.5, 0.0), (0.0, -0.5), (0.0, 0.5)])
"""Of a pixel's four sides: where the border between it and a neighbour runs, if that is outside."""


def recist(voxels: np.ndarray, spacing_mm: tuple[float, float, float]) -> tuple[int, float, float]:
    """The slice in which a candidate is widest, its longest diameter there, and the longest at right angles to that.

    Args:
      voxels: (n, 3) integers: slice, row and column.
      spacing_mm: (slice, row, column) distance between voxel centres.

    Returns:
      Slice, mm, mm; of the convex hull of its pixels in that slice.
    """
    slices = voxels[:, 0]
    best = (int(slices[0]), 0.0, 0.0)
    for number in np.unique(slices):
        longest_mm, perpendicular_mm = in_slice(voxels[slices == number, 1:], spacing_mm[1:])
        if longest_mm > best[1]:
            best = int(number), longest_mm, perpendicular_mm
    return best


def in_slice(pixels: np.ndarray, spacing_mm: tuple[float, ...]) -> tuple[float, float]:
    """As `recist`, of the pixels (n, 2), row and column, of one slice."""
    points_mm = ((pixels[:, None] + _MIDDLES) * spacing_mm).reshape(-1, 2)
    corners_mm = points_mm[ConvexHull(points_mm).vertices]  # Around the hull.
    apart_mm = squareform(pdist(corners_mm))
    first, second = np.unravel_index(apart_mm.argmax(), apart_mm.shape)
    longest_mm = float(apart_mm[first, second])
    along = (corners_mm[second] - corners_mm[first]) / longest_mm
    x = (corners_mm - corners_mm[first]) @ along
    y = (corners_mm - corners_mm[first]) @ (-along[1], along[0])
    # Both sides of the hull run from one end of the longest diameter to the other; between corners they are straight,
    # so the widest place is at a corner.
    sides = [np.argsort(np.where(side, x, np.inf))[: side.sum()] for side in (y >= -1e-9, y <= 1e-9)]
    upper, lower = (np.interp(x, x[side], y[side]) for side in sides)
    return longest_mm, float((upper - lower).max())
