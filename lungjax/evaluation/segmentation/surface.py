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
import functools
import math
from collections.abc import Sequence

import numpy as np
from scipy.spatial import KDTree, distance

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
_FEW = 2**16
"""Up to so many distances it is faster to compute all of them than to search for the smallest."""


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

    @functools.cached_property
    def tree(self) -> KDTree:
        return KDTree(self.points_mm, leafsize=32, compact_nodes=False, balanced_tree=False)


def border(mask: np.ndarray, spacing_mm: Sequence[float]) -> Border:
    """The elements of a mask's border: `borders` of one mask, bool (rows, columns) or (slices, rows, columns)."""
    return borders(np.asarray(mask, bool)[None], spacing_mm)[0]


def borders(masks: np.ndarray, spacing_mm: Sequence[float], start: Sequence[int] | None = None) -> list[Border]:
    """The elements of each mask's border, one at each corner whose surrounding pixels do not all have the same value.

    Along each axis, some pairs of neighbouring pixels around a corner differ. Their share of all pairs along that axis,
    times the area of a pixel's side across it, is the element's extent across that axis; its size is the root of the
    sum of squares. In 2-D this is the length that marching squares gives: half a diagonal at a corner, a side along a
    straight border, two half diagonals where pixels touch only at a corner.

    Args:
      masks: bool (masks, rows, columns) or (masks, slices, rows, columns).
      spacing_mm: between the centres of pixels along each axis.
      start: where the masks begin, in pixels along each axis; None for 0.

    Raises:
      ValueError: there are not as many spacings as axes, or one is not above 0.
    """
    masks = np.asarray(masks, bool)
    dimensions = masks.ndim - 1
    spacing = np.asarray(spacing_mm, np.float64)
    if spacing.shape != (dimensions,) or not (spacing > 0).all():
        shape = masks.shape[1:]
        raise ValueError(f"a mask of shape {shape} needs {dimensions} spacings above 0, got {spacing_mm}")
    padded = np.zeros((len(masks), *(side + 2 for side in masks.shape[1:])), bool)
    padded[:, *[slice(1, -1)] * dimensions] = masks
    squares = np.zeros((len(masks), *(side + 1 for side in masks.shape[1:])))
    for axis in range(dimensions):
        differ = np.diff(padded, axis=1 + axis).astype(np.float64)
        for other in set(range(dimensions)) - {axis}:
            differ = (_start(differ, 1 + other) + _stop(differ, 1 + other)) / 2
        squares += (differ * spacing.prod() / spacing[axis]) ** 2
    number, *cells = np.nonzero(squares)
    points_mm = (np.stack(cells, axis=-1) + (np.zeros(dimensions, int) if start is None else start)) * spacing
    sizes = np.sqrt(squares[number, *cells])
    ends = np.searchsorted(number, np.arange(1, len(masks)))
    return [Border(*parts) for parts in zip(np.split(points_mm, ends), np.split(sizes, ends), strict=True)]


def compare(a: Border, b: Border) -> tuple[float, ...]:
    """HD95 in mm and the surface Dice at each of `TOLERANCES_MM`, in the order of `NAMES`.

    HD95 is NaN where a border is empty. The surface Dice is 1 where both borders are empty, 0 where one is.
    """
    if a.empty or b.empty:
        return math.nan, *[float(a.empty and b.empty)] * len(TOLERANCES_MM)
    both_mm = _nearest_mm(a, b)
    hausdorff = max(_percentile(*side) for side in zip(both_mm, (a.sizes, b.sizes), strict=True))
    distances_mm, sizes = np.concatenate(both_mm), np.concatenate([a.sizes, b.sizes])
    near = [sizes[distances_mm <= tolerance + _ROUNDING_MM].sum() / sizes.sum() for tolerance in TOLERANCES_MM]
    return hausdorff, *map(float, near)


def compare_pairs(
    masks: np.ndarray,
    pairs: Sequence[tuple[int, int]],
    spacing_mm: Sequence[float],
    *,
    start: Sequence[int] | None = None,
) -> np.ndarray:
    """`compare` of pairs of masks; each border, and each pair whichever way round, is computed once, also of masks that
    are equal.

    Args:
      masks: bool (masks, rows, columns) or (masks, slices, rows, columns).
      pairs: of positions in `masks`.
      spacing_mm, start: as for `borders`; the spacing is NaN where it is unknown.

    Returns:
      float64 (pairs, len(NAMES)), all NaN without spacing.
    """
    if not np.isfinite(spacing_mm).all():
        return np.full((len(pairs), len(NAMES)), np.nan)
    first: dict[bytes, int] = {}
    same_as = [first.setdefault(mask.tobytes(), number) for number, mask in enumerate(masks)]
    each_border = borders(masks, spacing_mm, start)
    asked = [(same_as[min(pair)], same_as[max(pair)]) for pair in pairs]
    compared = {(a, b): compare(each_border[a], each_border[b]) for a, b in dict.fromkeys(asked)}
    return np.array([compared[pair] for pair in asked]).reshape(len(pairs), len(NAMES))


def _nearest_mm(a: Border, b: Border) -> tuple[np.ndarray, np.ndarray]:
    """How far each element of `a` is from the nearest of `b`, and each of `b` from the nearest of `a`."""
    if len(a.sizes) * len(b.sizes) > _FEW:
        return b.tree.query(a.points_mm)[0], a.tree.query(b.points_mm)[0]
    squares = distance.cdist(a.points_mm, b.points_mm, "sqeuclidean")
    return np.sqrt(squares.min(axis=1)), np.sqrt(squares.min(axis=0))


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
