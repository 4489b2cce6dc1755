"""Square tiles over a slice, each trusted in its core: where they lie, and the mean where they overlap."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from lungjax.models.encoder import ResNet
from lungjax.tasks.task import Config

Corner = tuple[int, int]
"""Row and column of a tile's upper left pixel; below 0 where it begins outside the slice."""

STORED_PX = 128
"""Side of the tiles of a network that was trained on slices as they were stored, if its run did not record theirs."""
LEAST_REACH = 0.125
"""Share of a tile's side from its middle to the core's edge, at least: a finer grid takes too long."""
ANYWHERE, LARGER = 0.5, 4 / 3
"""A network that was shown nodules anywhere in its crops may be given larger tiles, which cut off fewer of them: with
tiles of 128 px, not 96, the bundled detector's Dice per slice on val slices is 0.584, not 0.532, and 0.538, not 0.495,
where these are moved by 32 px."""
MOST_REACH = 0.375
"""At most: what lies at a tile's edge is cut off, wherever nodules lay in training."""


@dataclasses.dataclass(frozen=True)
class Tiling:
    """How a network is given slices that are larger than those of its training.

    A network that was shown nodules in the middle of crops finds them in the middle only. So tiles lie as densely as
    nodules lay about the middle, and each counts for what lies near its own middle.

    Attributes:
      tile_px: side of a tile.
      core_px: distance of neighbouring tiles.
      inside: whether tiles are moved into the slice, as crops were in training; else they are filled beyond it.
    """

    tile_px: int
    core_px: int
    inside: bool

    @classmethod
    def of(cls, config: Config, stored_px: int | None) -> Tiling:
        """As the network of a configuration was trained, on slices whose side is `stored_px` where that is known."""
        tile_px = int(config.data.crop_px) or stored_px or STORED_PX
        if config.data.crop_px and reach(config) >= ANYWHERE:
            stride_px = ResNet(**config.model.encoder).total_stride
            tile_px = stride_px * round(LARGER * tile_px / stride_px)
        return cls(
            tile_px, round(2 * tile_px * min(max(reach(config), LEAST_REACH), MOST_REACH)), bool(config.data.crop_px)
        )

    def corners(self, region: np.ndarray) -> list[Corner]:
        """Tiles in whose cores the region, bool (rows, columns), has pixels; from the top, in rows."""
        rows, columns = (self._cores(size) for size in region.shape)
        return [
            (self._start(row, region.shape[0]), self._start(column, region.shape[1]))
            for row in rows
            for column in columns
            if region[max(row, 0) : row + self.core_px, max(column, 0) : column + self.core_px].any()
        ]

    def _cores(self, size: int) -> list[int]:
        """Where cores begin along an axis of `size` pixels; together they cover it, and stick out evenly."""
        count = math.ceil(size / self.core_px)
        return [(size - count * self.core_px) // 2 + number * self.core_px for number in range(count)]

    def _start(self, core: int, size: int) -> int:
        start = core + (self.core_px - self.tile_px) // 2
        spare = size - self.tile_px
        return min(max(start, min(spare // 2, 0)), max(spare // 2, spare)) if self.inside else start


def reach(config: Config) -> float:
    """How far nodules lay off the middle in training, at most, as a share of a tile's side: 0.5 for anywhere."""
    share = float(config.augment.shift)
    if config.data.crop_px:
        share += 0.25 if config.data.crop_at == "nodule" else 0.5  # See `lungjax.data.crop.crop_corner`.
    return min(share, 0.5)


class Blend:
    """The mean of one slice's tiles, weighted by how near a pixel is to their middles; 0 where there is none."""

    def __init__(self, shape: tuple[int, ...], tiling: Tiling):
        off_px = np.abs(np.arange(tiling.tile_px) - (tiling.tile_px - 1) / 2)
        line = np.maximum(1 - off_px / tiling.core_px, 1e-3)  # Between two middles: linear from one to the other.
        self._weights = np.outer(line, line).astype(np.float32)
        self._sum, self._weight = np.zeros(shape, np.float32), np.zeros(shape, np.float32)

    def add(self, tile: np.ndarray, corner: Corner) -> None:
        """Adds a tile, float32 (tile, tile); what of it lies outside the slice is left out."""
        (rows, inner_rows), (columns, inner_columns) = (
            _overlap(start, len(tile), size) for start, size in zip(corner, self._sum.shape, strict=True)
        )
        weight = self._weights[inner_rows, inner_columns]
        self._sum[rows, columns] += weight * tile[inner_rows, inner_columns]
        self._weight[rows, columns] += weight

    def mean(self, rows: slice = slice(None), columns: slice = slice(None)) -> np.ndarray:
        """float32 (rows, columns), of the slice or a part of it."""
        weight = self._weight[rows, columns]
        return self._sum[rows, columns] / np.where(weight > 0, weight, 1)


def _overlap(start: int, length: int, size: int) -> tuple[slice, slice]:
    """Of `length` pixels from `start` on those within `size`: where in the slice, and where in the tile."""
    begin, end = max(start, 0), min(start + length, size)
    return slice(begin, end), slice(begin - start, end - start)
