"""The distance between the borders of two masks, in mm: HD95 and surface Dice.

Sources: Nikolov et al., Deep learning to achieve clinically applicable segmentation of head and neck anatomy for
radiotherapy (arXiv:1809.04430, 2018), and DeepMind's surface-distance. Results equal those of surface-distance in 2-D
and, except for the sizes of elements at corners, in 3-D. A border consists of elements at the corners of pixels, each
with a size, so that a share of a border is a share of its length or area and not of a number of pixels.

That package is not used here because its only release, 0.1, fails on empty masks under NumPy 2
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
    "The border of a mask is a set of elements at corners of pixels (2-D) or voxels (3-D), with lengths in mm or "
    "areas in mm^2; the edge of the image closes a mask that reaches it. hd95_mm: the distance within which 95 % of "
    "one mask's border lies from the other's, the larger of both directions; averaged where neither mask is empty, "
    "left_out is the number of the others. surface_dice: the share of both borders that lies within 1 or 2 mm of the "
    "other border (to 1e-6 mm); 1 where both masks are empty, 0 where one is; averaged over the same slices or "
    "nodules as dice. null where the source does not record the spacing. 3-D: the slices of a nodule in their "
    "positions; a slice between them that is not scored counts as empty."
)
_ROUNDING_MM = 1e-6


@dataclasses.dataclass(frozen=True)
class Border:
    """The border of one mask.

    Attributes:
      points_mm: float64 (elements, dimensions), the position of each element.
      sizes: float64 (elements,), lengths in mm (2-D) or areas in mm^2 (3-D).
    """

    points_mm: np.ndarray
    sizes: np.ndarray

    @property
    def empty(self) -> bool:
        return len(self.sizes) == 0


def border(mask: np.ndarray, spacing_mm: Sequence[float]) -> Border:
    """The elements of a mask's border, one at each corner whose surrounding pixels do not all have the same value.

    Along each axis, some pairs of neighbouring pixels around a corner differ. Their share of all pairs along that axis,
    times the area of a pixel's side across it, is the element's extent across that axis; its size is the root of the
    sum of squares. In 2-D this is the length that marching squares gives: half a diagonal at a corner, a side along a
    straight border, two half diagonals where pixels touch only at a corner.

    Args:
      mask: bool (rows, columns) or (slices, rows, columns).
      spacing_mm: between the centres of pixels along each axis.

    Raises:
      ValueError: there are not as many spacings as axes, or one is not above 0.
    """
    mask = np.asarray(mask, bool)
    spacing = np.asarray(spacing_mm, np.float64)
    if spacing.shape != (mask.ndim,) or not (spacing > 0).all():
        raise ValueError(f"a mask of shape {mask.shape} needs {mask.ndim} spacings above 0, got {spacing_mm}")
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

    HD95 is NaN where a border is empty. The surface Dice is 1 where both borders are empty, 0 where one is.
    """
    if a.empty or b.empty:
        return math.nan, *[float(a.empty and b.empty)] * len(TOLERANCES_MM)
    both_mm = (KDTree(b.points_mm).query(a.points_mm)[0], KDTree(a.points_mm).query(b.points_mm)[0])
    hausdorff = max(_percentile(*side) for side in zip(both_mm, (a.sizes, b.sizes), strict=True))
    distances_mm, sizes = np.concatenate(both_mm), np.concatenate([a.sizes, b.sizes])
    near = [sizes[distances_mm <= tolerance + _ROUNDING_MM].sum() / sizes.sum() for tolerance in TOLERANCES_MM]
    return hausdorff, *map(float, near)


def compare_pairs(
    masks: Sequence[np.ndarray], pairs: Sequence[tuple[int, int]], spacing_mm: Sequence[float]
) -> np.ndarray:
    """`compare` of pairs of masks; each border, and each pair whichever way round, is computed once.

    Args:
      masks: bool, all of the same shape.
      pairs: of positions in `masks`.
      spacing_mm: as for `border`; NaN where it is unknown.

    Returns:
      float64 (pairs, len(NAMES)), all NaN without spacing.
    """
    if not np.isfinite(spacing_mm).all():
        return np.full((len(pairs), len(NAMES)), np.nan)
    borders = [border(mask, spacing_mm) for mask in masks]
    by_pair = {pair: compare(borders[pair[0]], borders[pair[1]]) for pair in {(min(p), max(p)) for p in pairs}}
    return np.array([by_pair[min(pair), max(pair)] for pair in pairs]).reshape(len(pairs), len(NAMES))


def _percentile(distances_mm: np.ndarray, sizes: np.ndarray) -> float:
    """The smallest distance within which `HAUSDORFF_SHARE` of the border lies."""
    order = np.argsort(distances_mm)
    covered = np.cumsum(sizes[order]) / sizes.sum()
    place = np.searchsorted(covered, HAUSDORFF_SHARE)
    return float(distances_mm[order][min(place, len(order) - 1)])


def _start(values: np.ndarray, axis: int) -> np.ndarray:
    return values[(slice(None),) * axis + (slice(None, -1),)]


def _stop(values: np.ndarray, axis: int) -> np.ndarray:
    return values[(slice(None),) * axis + (slice(1, None),)]
