"""Where in the lungs a nodule lies: its side, the zone of that lung, and how far it is from the pleura."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

from lungjax.ct import connected_components, lungs, morphology
from lungjax.ct.lungs import Lungs

Side = Literal["left", "right"]
Zone = Literal["upper", "middle", "lower"]

AT_PLEURA_MM = lungs.GRID_MM / 2
"""The border of the lungs is known to half a block of their grid: what is nearer to it than this may touch the pleura,
and its distance is given as 0."""

_AXIAL = 0.8
"""Least cosine between an axis of the scan and one of the patient for the one to stand for the other."""
_MOST_EROSIONS = 5
"""Blocks by which lungs that touch are eroded until they come apart."""
_EVERY = 20
"""Of that many points of a nodule one is looked at first."""
_SECOND_LUNG = 0.1
"""Least size of the second lung, as a share of the first."""
_ZONES: tuple[Zone, ...] = ("lower", "middle", "upper")
_LOW, _HIGH, _EITHER = 1, 2, 3
"""In a grid of sides: the lung in the lower columns, that in the higher ones, and one of which it is not known."""
_ASIDE_MM = 40.0
"""A single lung is on that side of the body's middle on which its own lies, if it is at least this far away: a field of
view that shows one lung alone has its middle in it."""


@dataclasses.dataclass(frozen=True)
class Location:
    """Where a nodule lies.

    Attributes:
      side: the patient's left or right; None where the scan's orientation is not known, or it shows one lung alone and
        not which.
      zone: the third of the height of that lung in which its centre lies; no lobe. None likewise. Where the scan cuts
        the lung off, of what is seen.
      pleura_mm: from the nodule's border to the nearest border of the lungs, at the chest wall, the diaphragm or the
        mediastinum; 0 where they touch. Fissures are not looked for. None where no lungs were found.
    """

    side: Side | None
    zone: Zone | None
    pleura_mm: float | None


class LungMap:
    """Locates nodules of one scan.

    Args:
      lung: the scan's lungs, not empty.
      affine_lps: (4, 4) as of `lungjax.ct.scan.Scan`, or None where the source has lost it.
    """

    def __init__(self, lung: Lungs, affine_lps: np.ndarray | None):
        self._lung = lung
        self._leftwards = _towards(affine_lps, patient_axis=0, scan_axis=0)
        self._headwards = _towards(affine_lps, patient_axis=2, scan_axis=2)
        self._sides = _sides(lung)
        self._heights = {}
        for side in (_LOW, _HIGH, _EITHER):
            slices = np.flatnonzero((self._sides == side).any(axis=(1, 2)))
            if len(slices):
                self._heights[side] = (int(slices[0]), int(slices[-1]) + 1)
        self._mask = lung.mask()
        self._border = KDTree(_border(self._mask) * lung.spacing_mm)

    def locate(self, voxels: np.ndarray) -> Location:
        """The place of a nodule, by its voxels (n, 3): slice, row and column."""
        side = self._side_at(voxels)
        is_known = self._leftwards is not None and side != _EITHER
        left = (side == _HIGH) == (self._leftwards == 1) if is_known else None
        return Location(
            side=None if left is None else ("left" if left else "right"),
            zone=self._zone(side, float(voxels[:, 0].mean())),
            pleura_mm=self._pleura_mm(voxels),
        )

    def _side_at(self, voxels: np.ndarray) -> int:
        """That of the block in which the centre lies; outside the lungs, of their block nearest to it."""
        at = (voxels.mean(axis=0) + 0.5) / self._lung.step  # In blocks, from the corner of the first.
        block = np.minimum(at.astype(int), np.array(self._sides.shape) - 1)
        if not self._sides[tuple(block)]:
            block_mm = np.multiply(self._lung.step, self._lung.spacing_mm)
            blocks = np.argwhere(self._sides > 0)
            block = blocks[(((blocks + 0.5 - at) * block_mm) ** 2).sum(axis=1).argmin()]
        return int(self._sides[tuple(block)])

    def _zone(self, side: int, at: float) -> Zone | None:
        if self._headwards is None:
            return None
        first, end = (edge * self._lung.step[0] - 0.5 for edge in self._heights[side])
        share = min(max((at - first) / (end - first), 0.0), 1.0)
        return _ZONES[min(int(3 * (share if self._headwards > 0 else 1 - share)), 2)]

    def _pleura_mm(self, voxels: np.ndarray) -> float:
        if not self._mask[tuple(voxels.T)].all():
            return 0.0
        # From centre to centre of a voxel at the one border and one at the other: half a voxel too much at one of them
        # and half a voxel too little at the other.
        distance_mm = self._to_border_mm(voxels * self._lung.spacing_mm)
        return 0.0 if distance_mm < AT_PLEURA_MM else distance_mm

    def _to_border_mm(self, points_mm: np.ndarray) -> float:
        """The least distance of any of the points; the first few bound the search of the others, most of which end at
        once."""
        nearest_mm = float(self._border.query(points_mm[::_EVERY])[0].min())
        others_mm, _ = self._border.query(points_mm, distance_upper_bound=nearest_mm)  # Infinite beyond it.
        return min(nearest_mm, float(others_mm.min()))


def _border(mask: np.ndarray) -> np.ndarray:
    """(n, 3) voxels of the lungs next to what is no lung; where the scan ends, the lungs may go on."""
    box = _box(mask, margin=1)
    inner = mask[box]
    return np.argwhere(inner & ~morphology.erode(inner, 0, 1, 2)) + [part.start for part in box]


def _towards(affine_lps: np.ndarray | None, *, patient_axis: int, scan_axis: int) -> float | None:
    """1 where a scan's axis runs along the patient's, -1 where it runs against it, None where neither is known."""
    if affine_lps is None:
        return None
    step = affine_lps[:3, scan_axis]
    cosine = step[patient_axis] / max(float(np.linalg.norm(step)), 1e-9)
    return float(np.sign(cosine)) if abs(cosine) >= _AXIAL else None


def _sides(lung: Lungs) -> np.ndarray:
    """uint8 of the grid's shape: `_LOW` and `_HIGH`, or `_EITHER`; 0 outside the lungs.

    Lungs that touch are eroded until they are two; every block then belongs to the one that is nearest. Where they stay
    one, the body's middle parts them. A single lung is not parted.
    """
    if lung.is_one():
        per_column = lung.grid.sum(axis=(0, 1))
        aside = float(per_column @ np.arange(len(per_column))) / per_column.sum() - lung.middle
        if abs(aside) * lung.step[2] * lung.spacing_mm[2] < _ASIDE_MM:
            return _EITHER * lung.grid.astype(np.uint8)
        return (_HIGH if aside > 0 else _LOW) * lung.grid.astype(np.uint8)
    eroded = lung.grid
    for _ in range(_MOST_EROSIONS + 1):
        components = connected_components.find_components(eroded, 0, 1)
        largest = np.argsort(-components.sizes)[:2]
        if len(largest) == 2 and components.sizes[largest[1]] >= _SECOND_LUNG * components.sizes[largest[0]]:
            largest = largest[np.argsort(components.mean_columns()[largest])]
            numbers = np.arange(len(components.sizes))
            seeds = sum(
                side * components.mask(numbers == number).astype(np.uint8)
                for side, number in zip((_LOW, _HIGH), largest, strict=True)
            )
            return _nearest(np.asarray(seeds), lung)
        eroded = morphology.erode(eroded, 0, 1, 2)
    columns = np.arange(lung.grid.shape[2])
    return np.where(columns < lung.middle, _LOW, _HIGH).astype(np.uint8) * lung.grid


def _nearest(seeds: np.ndarray, lung: Lungs) -> np.ndarray:
    """Each block of the lungs gets the side of the nearest seed."""
    if (seeds > 0).sum() == lung.grid.sum():
        return seeds
    block_mm = np.multiply(lung.step, lung.spacing_mm)
    box = _box(lung.grid)
    near = seeds[box]
    nearest = ndimage.distance_transform_edt(near == 0, sampling=block_mm, return_distances=False, return_indices=True)
    sides = np.zeros(lung.grid.shape, np.uint8)
    sides[box] = near[tuple(np.asarray(nearest))] * lung.grid[box]
    return sides


def _box(mask: np.ndarray, margin: int = 0) -> tuple[slice, ...]:
    """The smallest box around a mask that is not empty, and a margin around it, as far as there is one."""
    box = []
    for across, size in zip(((1, 2), (0, 2), (0, 1)), mask.shape, strict=True):
        lines = np.flatnonzero(mask.any(axis=across))
        box.append(slice(max(int(lines[0]) - margin, 0), min(int(lines[-1]) + 1 + margin, size)))
    return tuple(box)
