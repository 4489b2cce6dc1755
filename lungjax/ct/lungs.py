"""Finds the lungs in a CT scan: a mask, and the area and bounding box of the lungs in each slice.

    soft tissue -> body -> enclosed air -> airways removed -> one or two lungs -> closing

It works on a grid of block means about 3 mm wide, which takes a fraction of a second and averages noise away.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from lungjax.ct import connected_components, morphology
from lungjax.ct.scan import Scan

GRID_MM = 3.0
AIR_HU = -400
"""Halfway between lung and soft tissue: a voxel below it is more than half air."""
GAS_HU = -960
"""Pure gas, as in stomach, bowel and airways, lies below it; lung, even with emphysema, mostly above."""
CLOSED_MM = 20.0
"""Radius of the closing of each lung, so that vessels, and nodules at the pleura, lie inside."""
AIRWAY_MM2 = 800.0
"""In each slice the cross-section of the trachea or of a main bronchus is smaller than this ..."""
AIRWAY_HEIGHT_MM = 30.0
"""... and it continues from slice to slice over at least this height ..."""
AIRWAY_ASIDE_MM = 30.0
"""... within this distance of the body's middle."""
LUNG_MM3 = 1e5
LUNG_SHARE = 0.05
"""A component of air is a lung if it has at least this volume, and at least this share of the larger lung's volume."""
EDGE_MM = 12.0
"""Air counts as lung up to this distance from lung that is at least three voxels thick and not pure gas."""

_BETWEEN = 0.2
"""In some column between two lungs there is less lung than this share of that in the fullest one."""

_ALL = (0, 1, 2)


@dataclasses.dataclass(frozen=True, eq=False)
class Lungs:
    """The lungs of one scan.

    Attributes:
      grid: bool; element [s, r, c] stands for the block of `step` voxels that begins at voxel [s, r, c] * step.
      step: (slices, rows, columns) of a block.
      shape: (slices, rows, columns) of the scan.
      spacing_mm: (slice, row, column) distance between the scan's voxel centres.
      middle: the column of the grid in which the body's middle lies.
    """

    grid: np.ndarray
    step: tuple[int, int, int]
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    middle: float

    def mask(self) -> np.ndarray:
        """bool (slices, rows, columns): lungs with their vessels and nodules, without trachea and main bronchi."""
        mask = np.zeros(self.shape, bool)
        rows, columns = (
            morphology.interpolation_weights(self.grid.shape[n], self.shape[n], self.step[n]) for n in (1, 2)
        )
        for number, blocks in enumerate(self.grid):
            high, wide = (np.flatnonzero(blocks.any(axis=axis)) for axis in (1, 0))  # Most blocks hold no lung.
            part = blocks[np.ix_(high, wide)].astype(np.float32)
            mask[number * self.step[0] :][: self.step[0]] = rows[:, high] @ part @ columns[:, wide].T > 0.5
        return mask

    def area_mm2(self) -> np.ndarray:
        """float64 (slices,): the area of lung in each slice."""
        block_mm2 = math.prod(self.step[1:]) * math.prod(self.spacing_mm[1:])
        return self._per_slice(self.grid.sum(axis=(1, 2)) * block_mm2)

    def boxes_px(self) -> np.ndarray:
        """int64 (slices, 4): row_min, row_max, column_min, column_max of the lungs, inclusive; -1 where none."""
        boxes = np.full((len(self.grid), 4), -1)
        has_lung = self.grid.any(axis=(1, 2))
        for place, (across, step) in enumerate(zip((2, 1), self.step[1:], strict=True)):
            lines = np.asarray(self.grid[has_lung].any(axis=across))  # (slices, rows), then (slices, columns)
            boxes[has_lung, 2 * place] = lines.argmax(axis=1) * step
            boxes[has_lung, 2 * place + 1] = (lines.shape[1] - lines[:, ::-1].argmax(axis=1)) * step - 1
        return self._per_slice(boxes)

    def is_one(self) -> bool:
        """Whether lung is found on one side of the body only: no gap parts it into a left and a right one."""
        per_column = self.grid.sum(axis=(0, 1))
        columns = np.flatnonzero(per_column)
        if not len(columns):
            return False
        quarter = (columns[-1] - columns[0]) // 4
        return bool(per_column[columns[0] + quarter : columns[-1] - quarter + 1].min() > _BETWEEN * per_column.max())

    def _per_slice(self, values: np.ndarray) -> np.ndarray:
        return np.repeat(values, self.step[0], axis=0)[: self.shape[0]]


def index_columns(scan: Scan) -> list[tuple[float, int, int, int, int]]:
    """Each slice's lung area in mm2 and box, as in `Lungs`; NaN and -1 where the source has lost HU or spacing."""
    if scan.intensity != "hu" or not np.isfinite(scan.spacing_mm).all():
        return [(math.nan, -1, -1, -1, -1)] * len(scan.voxels)
    lungs = find_lungs(scan.voxels, scan.spacing_mm)
    boxes = lungs.boxes_px().tolist()
    return [(area_mm2, *box) for area_mm2, box in zip(lungs.area_mm2().tolist(), boxes, strict=True)]


def find_lungs(voxels: np.ndarray, spacing_mm: tuple[float, float, float]) -> Lungs:
    """Finds the lungs of a scan; the grid is empty where there are none.

    A nodule at the pleura that is about as wide as `CLOSED_MM` or wider lies only partly inside. Lung that the field of
    view cuts off is not found in that slice.

    Args:
      voxels: (slices, rows, columns) int16 HU, from the feet to the head. Padding lies below -1000 HU and so counts as
        air outside the body.
      spacing_mm: (slice, row, column) distance between voxel centres.

    Raises:
      ValueError: a spacing is not a positive number.
    """
    if not all(math.isfinite(mm) and mm > 0 for mm in spacing_mm):
        raise ValueError(f"spacing_mm is {spacing_mm}: lungs are measured in mm, which needs positive spacings")
    slices, rows, columns = voxels.shape
    step = tuple(
        min(max(round(GRID_MM / mm), 1), morphology.LARGEST_STEP, size)
        for mm, size in zip(spacing_mm, voxels.shape, strict=True)
    )
    step = step[0], step[1], step[2]
    voxel_mm = np.multiply(spacing_mm, step)
    hu = morphology.block_means(voxels, step)
    soft = hu > AIR_HU
    body = body_mask(soft, voxel_mm)
    weights = body.sum(axis=(0, 1))
    middle = float(weights @ np.arange(len(weights)) / max(weights.sum(), 1))  # column
    air = enclosed_by(body) & ~soft
    grid = np.zeros_like(air)
    if air.any():
        box = _box(air)
        grid[box] = _lungs_in(air[box], hu[box] < GAS_HU, middle - box[2].start, voxel_mm)
    return Lungs(grid, step, (slices, rows, columns), spacing_mm, middle)


def _lungs_in(air: np.ndarray, gas: np.ndarray, middle: float, voxel_mm: np.ndarray) -> np.ndarray:
    """The lungs within the air that the body encloses; `gas`: pure gas, `middle`: the body's middle column."""
    airways = _airways(air, middle, voxel_mm)
    lungs = _largest(air & ~airways, gas, voxel_mm)
    if lungs.any():
        box = _box(lungs)
        lungs[box] = _close(lungs[box], middle - box[2].start, voxel_mm)
    return lungs & ~morphology.dilate(airways, 1, 2)  # The airways with their walls.


def body_mask(soft: np.ndarray, voxel_mm: np.ndarray) -> np.ndarray:
    """The largest component of tissue, after erosion of thin flat layers: table, blankets, clothes."""
    for _ in range(round(GRID_MM / voxel_mm[1])):
        soft = morphology.erode(soft, 1)
    tissue = connected_components.find_components(soft, 0, 1)
    return tissue.mask(tissue.sizes == tissue.sizes.max(initial=0))


def enclosed_by(body: np.ndarray) -> np.ndarray:
    """Voxels that have the body in front, behind, on the left and on the right within their slice.

    Where the erosion has opened a thin wall, only the rays through the gap are lost; filling holes would lose the lung.
    """
    inside = np.ones_like(body)
    for axis in (1, 2):
        size = body.shape[axis]
        first = np.where(body.any(axis), body.argmax(axis), size).astype(np.int16)
        last = (size - 1 - np.flip(body, axis).argmax(axis)).astype(np.int16)
        place = np.arange(size, dtype=np.int16).reshape((-1, 1) if axis == 1 else (-1,))
        inside &= (place > np.expand_dims(first, axis)) & (place < np.expand_dims(last, axis))
    return inside


def _box(mask: np.ndarray) -> tuple[slice, ...]:
    """The smallest box that contains a non-empty mask."""
    lines = [np.flatnonzero(mask.any(axis=across)) for across in ((1, 2), (0, 2), (0, 1))]
    return tuple(slice(int(line[0]), int(line[-1]) + 1) for line in lines)


def _airways(air: np.ndarray, middle: float, voxel_mm: np.ndarray) -> np.ndarray:
    """Trachea and main bronchi: small in every slice, tall, and near the middle. Gas in the oesophagus is, too."""
    sections = connected_components.find_components(air, 1)
    tubes = connected_components.find_components(
        sections.mask(sections.sizes * voxel_mm[1] * voxel_mm[2] < AIRWAY_MM2), 0, 1
    )
    tall = tubes.heights() * voxel_mm[0] >= AIRWAY_HEIGHT_MM
    return tubes.mask(tall & (np.abs(tubes.mean_columns() - middle) * voxel_mm[2] <= AIRWAY_ASIDE_MM))


def _largest(air: np.ndarray, gas: np.ndarray, voxel_mm: np.ndarray) -> np.ndarray:
    """Air as large as a lung: not a fold at arm or neck, nor the gas of stomach and bowel below a lung."""
    # After erosion, components do not touch through a gap in the diaphragm. The dilation below restores gas and rims.
    components = connected_components.find_components(morphology.erode(air, *_ALL) & ~gas, 0, 1)
    min_size = max(LUNG_SHARE * components.sizes.max(initial=0), LUNG_MM3 / math.prod(voxel_mm))
    slices = np.arange(len(air))[:, None, None]
    kept = np.zeros_like(air)
    for number in np.argsort(-components.sizes)[: np.count_nonzero(components.sizes >= min_size)]:
        component = components.mask(np.arange(len(components.sizes)) == number)
        top = np.where(
            kept.any(axis=0), len(kept) - kept[::-1].argmax(axis=0), 0
        )  # of the lung, at each row and column
        if np.count_nonzero(component & (slices < top)) < 0.5 * components.sizes[number]:
            kept |= component
    for _ in range(round(EDGE_MM / GRID_MM)):
        kept = morphology.dilate(kept, *_ALL) & air
    return kept


def _close(lungs: np.ndarray, middle: float, voxel_mm: np.ndarray) -> np.ndarray:
    """Closes each side on its own, so that the space between the lungs stays open, then fills holes (large nodules)."""
    radius_px = CLOSED_MM / math.sqrt(voxel_mm[1] * voxel_mm[2])
    parts = np.split(lungs, [round(min(max(middle, 0), lungs.shape[2]))], axis=2)
    both = np.concatenate([morphology.close(part, radius_px) for part in parts], axis=2)
    gaps = connected_components.find_components(np.pad(~both, 1, constant_values=True), 0, 1)
    # The first component surrounds the lungs; all others are holes.
    return ~gaps.mask(np.arange(len(gaps.sizes)) == gaps.number[0])[1:-1, 1:-1, 1:-1]
