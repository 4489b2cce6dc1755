"""How far the borders of two masks lie apart, in mm: HD95 and surface Dice.

Sources: Nikolov et al., Deep learning to achieve clinically applicable segmentation of head and neck anatomy for
radiotherapy (arXiv:1809.04430, 2018), and DeepMind's surface-distance, which this equals in 2-D and, in 3-D, but for
the sizes of elements at corners: a border is made of elements at the corners of pixels, each with a size, so that a
share of a border is a share of its length or area and not of a number of pixels.

Found here and not by that package, whose only release, 0.1, fails on empty masks under NumPy 2
(findings/surface_distance_empty.sh); tests/evaluation/test_surface.py compares with it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

HAUSDORFF_SHARE = 0.95
TOLERANCES_MM = (1.0, 2.0)
NAMES = ("hd95_mm", *(f"surface_dice_{tolerance:g}mm" for tolerance in TOLERANCES_MM))
CONVENTIONS = (
    "The border of a mask is a set of elements at corners of pixels (2-D) or voxels (3-D), with lengths or areas in "
    "mm; the image's own border closes a mask that reaches it. hd95_mm: the distance within which 95 % of one mask's "
    "border lies from the other's, the larger of both directions; averaged where both masks are not empty, left_out "
    "tells how many of the others there are. surface_dice: the share of both borders that lies within 1 or 2 mm of "
    "the other (to 1e-6 mm); 1 where both masks are empty, 0 where one is; averaged where dice is. null where the "
    "source lost the spacing. 3-D: the slices of a nodule at their places, a slice between them that is not scored "
    "counting as empty."
)
_ROUNDING_MM = 1e-6


@dataclasses.dataclass(frozen=True)
class Border:
    """The border of one mask.

    Attributes:
      points_mm: float64 (elements, dimensions), where each element lies.
      sizes: float64 (elements,), in mm (2-D) or mm^2 (3-D).
    """

    points_mm: np.ndarray
    sizes: np.ndarray

    @property
    def empty(self) -> bool:
        return len(self.sizes) == 0


def border(mask: np.ndarray, spacing_mm: Sequence[float]) -> Border:
    """The elements of a mask's border, one at each corner whose surrounding pixels are not all alike.

    Of the pixels around a corner some pairs of neighbours differ along each axis; their share of all pairs along
    that axis, times the area of a pixel's side across it, is the element's extent across that axis, and its size
    the root of the sum of squares. In 2-D that is the length marching squares gives: half a diagonal at a corner,
    a side along a straight border, two half diagonals where pixels touch by a corner.

    Args:
      mask: bool (rows, columns) or (slices, rows, columns).
      spacing_mm: between the centres of pixels along each axis.

    Raises:
      ValueError: as many spacings as axes are wanted, or one is not above 0.
    """
    mask = np.asarray(mask, bool)
    spacing = np.asarray(spacing_mm, np.float64)
    if spacing.shape != (mask.ndim,) or not (spacing > 0).all():
        raise ValueError(f"a mask of shape {mask.shape} wants as many spacings above 0, got {spacing_mm}")
    if not mask.any():
        return Border(np.zeros((0, mask.ndim)), np.zeros(0))
    box = ndimage.find_objects(mask.astype(np.int8))[0]
    padded = np.pad(mask[box], 1)
    squares = np.zeros([side - 1 for side in padded.shape])
    for axis in range(mask.ndim):
        differ = np.diff(padded, axis=axis).astype(np.float64)
        for other in set(range(mask.ndim)) - {axis}:
            differ = (_start(differ, other) + _stop(differ, other)) / 2
        squares += (differ * spacing.prod() / spacing[axis]) ** 2
    cells = np.argwhere(squares)
    points = (cells + [side.start for side in box]) * spacing
    return Border(points, np.sqrt(squares[tuple(cells.T)]))


def compare(a: Border, b: Border) -> tuple[float, ...]:
    """HD95 in mm and the surface Dice at each of `TOLERANCES_MM`, in the order of `NAMES`.

    HD95 is NaN where a border is empty. The surface Dice is 1 where both are empty, 0 where one is.
    """
    if a.empty or b.empty:
        return math.nan, *[float(a.empty and b.empty)] * len(TOLERANCES_MM)
    away = (KDTree(b.points_mm).query(a.points_mm)[0], KDTree(a.points_mm).query(b.points_mm)[0])
    hausdorff = max(_percentile(*one) for one in zip(away, (a.sizes, b.sizes), strict=True))
    distances_mm, sizes = np.concatenate(away), np.concatenate([a.sizes, b.sizes])
    near = [sizes[distances_mm <= tolerance + _ROUNDING_MM].sum() / sizes.sum() for tolerance in TOLERANCES_MM]
    return hausdorff, *map(float, near)


def compare_pairs(
    masks: Sequence[np.ndarray], pairs: Sequence[tuple[int, int]], spacing_mm: Sequence[float]
) -> np.ndarray:
    """`compare` of pairs of masks, each border and each pair, either way round, found once.

    Args:
      masks: bool, of one shape.
      pairs: two places in `masks` each.
      spacing_mm: as for `border`; where it is NaN, nothing is known.

    Returns:
      float64 (pairs, len(NAMES)), all NaN without spacing.
    """
    if not np.isfinite(spacing_mm).all():
        return np.full((len(pairs), len(NAMES)), np.nan)
    borders = [border(mask, spacing_mm) for mask in masks]
    found = {pair: compare(borders[pair[0]], borders[pair[1]]) for pair in {(min(p), max(p)) for p in pairs}}
    return np.array([found[min(pair), max(pair)] for pair in pairs]).reshape(len(pairs), len(NAMES))


def _percentile(distances_mm: np.ndarray, sizes: np.ndarray) -> float:
    """The least distance within which `HAUSDORFF_SHARE` of the border lies."""
    order = np.argsort(distances_mm)
    covered = np.cumsum(sizes[order]) / sizes.sum()
    place = np.searchsorted(covered, HAUSDORFF_SHARE)
    return float(distances_mm[order][min(place, len(order) - 1)])


def _start(values: np.ndarray, axis: int) -> np.ndarray:
    return values[(slice(None),) * axis + (slice(None, -1),)]


def _stop(values: np.ndarray, axis: int) -> np.ndarray:
    return values[(slice(None),) * axis + (slice(1, None),)]
