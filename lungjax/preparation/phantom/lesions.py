"""Nodules of the phantom: turns readers' real masks into cover and HU on the grid of the images."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from lungjax.ct.scan import RATING_NAMES, READERS, Nodule
from lungjax.lidc.annotations import MATRIX

_TEXTURE, _CALCIFICATION = RATING_NAMES.index("texture"), RATING_NAMES.index("calcification")
_STRUCTURE = RATING_NAMES.index("internalStructure")
_GROUND_HU = (-600.0, -520.0, -420.0, -160.0, 30.0)
"""HU for the texture ratings 1 (ground glass) to 5 (solid)."""
_LEAST_HU = -700.0
"""Of tissue; what has less is the air of a cavity."""
_CORE_HU = 30.0
_NO_CALCIUM = 6
_AIR = 4
_AIR_HU = -950.0
_WALL = 0.35
"""Thickness of a cavity's wall, as a share of the nodule's greatest depth."""


@dataclasses.dataclass(frozen=True)
class Lesion:
    """One nodule, ready to be painted.

    Attributes:
      origin: (slice, row, column) of the box in the image grid.
      cover: float32 (slices, rows, columns): the share of the four readers who include the voxel.
      hu: float32, the value of the voxel where the cover is 1.
    """

    origin: tuple[int, int, int]
    cover: np.ndarray
    hu: np.ndarray

    def paint(self, hu: np.ndarray, slice_index: int) -> None:
        """Paints the lesion over one slice; vessels and chest wall are denser and stay visible, except in a cavity."""
        k = slice_index - self.origin[0]
        if not 0 <= k < len(self.cover):
            return
        rows, columns = self.cover.shape[1:]
        part = hu[self.origin[1] : self.origin[1] + rows, self.origin[2] : self.origin[2] + columns]
        change = self.hu[k] - part
        part += self.cover[k] * np.where(self.hu[k] < _LEAST_HU, np.minimum(change, 0), np.maximum(change, 0))


def paint(nodule: Nodule, spacing_mm: Sequence[float], matrix: int) -> Lesion:
    """A nodule as the readers drew and rated it, for images of `matrix` pixels per side.

    Args:
      nodule: a nodule with masks on the 512x512 grid.
      spacing_mm: (slice, row, column) on that grid.
      matrix: a divisor of 512; each pixel takes the mean over the area it covers.
    """
    block = MATRIX // matrix
    low, high = _extent(nodule, block)
    count = np.zeros(high - low, np.float32)
    for reading in nodule.readings:
        start = np.array(reading.origin) - low
        box = tuple(slice(a, a + size) for a, size in zip(start, reading.mask.shape, strict=True))
        count[box] += reading.mask
    cover = np.minimum(count / READERS, 1)
    hu = _densities(nodule, count, spacing_mm)
    if block > 1:
        shape = (len(cover), cover.shape[1] // block, block, cover.shape[2] // block, block)
        weight = cover.reshape(shape).mean((2, 4))
        hu = (cover * hu).reshape(shape).mean((2, 4)) / np.maximum(weight, 1e-6)
        cover = weight
    origin = (int(low[0]), int(low[1]) // block, int(low[2]) // block)
    return Lesion(origin, cover, hu.astype(np.float32))


def _extent(nodule: Nodule, block: int) -> tuple[np.ndarray, np.ndarray]:
    """First and one past the last (slice, row, column) of all readings, extended to whole blocks of pixels."""
    low = np.min([reading.origin for reading in nodule.readings], axis=0)
    high = np.max([np.add(reading.origin, reading.mask.shape) for reading in nodule.readings], axis=0)
    low[1:] -= low[1:] % block
    high[1:] += -high[1:] % block
    return low, high


def _densities(nodule: Nodule, count: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """HU from the readers' mean texture: part-solid nodules get a solid core, calcified ones a dense core. Where at
    least half of the readers rated the inside as air there is a cavity."""
    ratings = np.array([reading.ratings for reading in nodule.readings], float)
    texture = ratings[:, _TEXTURE][ratings[:, _TEXTURE] > 0]
    texture = float(texture.mean()) if len(texture) else 5.0
    hu = np.full(count.shape, np.interp(texture, [1, 2, 3, 4, 5], _GROUND_HU), np.float32)
    inside = count * 2 >= len(ratings)
    if np.mean(ratings[:, _STRUCTURE] == _AIR) >= 0.5:
        closed = _depth(np.pad(inside, 1), spacing_mm)[1:-1, 1:-1, 1:-1]  # Outside the box, too, is no nodule.
        return np.where(closed > _WALL, np.float32(_AIR_HU), hu)
    core = np.clip((_depth(inside, spacing_mm) - 0.45) * 5, 0, 1).astype(np.float32)
    if 2 < texture < 5:
        hu += core * (_CORE_HU - hu)
    if np.median(ratings[:, _CALCIFICATION]) < _NO_CALCIUM:
        hu += 350 * core
    return hu


def _depth(inside: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """How far each voxel lies inside, from 0 to 1."""
    depth = ndimage.distance_transform_edt(inside, sampling=spacing_mm)
    assert isinstance(depth, np.ndarray)
    return depth / max(float(depth.max()), 1e-6)
