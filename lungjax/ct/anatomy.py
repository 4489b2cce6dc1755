"""Whether a chest lies as its affine says: the trachea at the head, the spine at the back, the heart on the left.

An affine that lies is noticed where the body speaks clearly; where it does not, nothing is said.
"""

from __future__ import annotations

import math

import numpy as np

from lungjax.ct import lungs, morphology
from lungjax.ct.lungs import Lungs

_MIDDLE_MM = 25.0
"""Trachea, spine and sternum lie within this distance of the middle between the lungs."""
_AROUND_MM = 60.0
"""How far in front of the lungs and behind them bone is looked for."""
_RIM = 0.2
"""Share of the lungs' depth, from their front and from their back, within which bone counts: not the heart, which with
contrast is as dense."""
_GAS_HU, _BONE_HU = -700, 180
_LEAST_TRACHEA_MM3, _LEAST_BONE_MM3 = 3000.0, 10000.0
_HEART_SLICES, _WHOLE_LUNGS_MM = (0.4, 0.6), 180.0
"""Where the heart lies, from the lower end of lungs that are not cut off to the upper: above the liver, which lies on
the right."""
_HEART_HU = -30
"""What is denser: contrast may make it denser than bone."""
_LEAST_HEART_MM3, _ON_THE_RIGHT = 1e5, 0.55
"""Share of the heart, about a third of which lies right of the middle: 0.24 in a healthy chest, 0.37 in
LIDC-IDRI-0003."""
_CLEARLY = 4.0
"""The wrong end has so many times more than the right one. In LIDC-IDRI-0003 and a Siemens scan, the right end has 130
and 20 times more gas."""


def contradictions(voxels: np.ndarray, lung: Lungs) -> list[str]:
    """Sentences on what lies elsewhere than in a scan from the feet to the head, with rows from front to back and
    columns from the patient's right to the left.

    Args:
      voxels: (slices, rows, columns) int16 HU.
      lung: its lungs.
    """
    if not lung.grid.any():
        return []
    hu = morphology.block_means(voxels, lung.step)
    block_mm = np.multiply(lung.step, lung.spacing_mm)
    slices, rows, columns = (np.flatnonzero(lung.grid.any(axis=across)) for across in ((1, 2), (0, 2), (0, 1)))
    lung_slices = slice(int(slices[0]), int(slices[-1]) + 1)
    middle = (columns[0] + columns[-1]) / 2
    strip = np.abs(np.arange(lung.grid.shape[2]) - middle) * block_mm[2] <= _MIDDLE_MM
    sentences = []
    gas = (hu < _GAS_HU) & lungs.enclosed_by(lungs.body_mask(hu > lungs.AIR_HU, block_mm)) & ~lung.grid
    per_slice_mm3 = gas[lung_slices][:, :, strip].sum(axis=(1, 2)) * math.prod(block_mm)
    third = max(len(per_slice_mm3) // 3, 1)
    if _is_clear(per_slice_mm3[:third].sum(), per_slice_mm3[-third:].sum(), _LEAST_TRACHEA_MM3):
        sentences.append(
            "The trachea seems to lie at the lower end of the lungs: the scan may be upside down, its affine wrong."
        )
    around, depth = round(_AROUND_MM / block_mm[1]), int(rows[-1] - rows[0])
    rim = round(_RIM * depth)
    bone = (hu[lung_slices][:, :, strip] > _BONE_HU).sum(axis=(0, 2)) * math.prod(block_mm)
    front = bone[max(rows[0] - around, 0) : rows[0] + rim].sum()
    back = bone[rows[-1] - rim + 1 : rows[-1] + around + 1].sum()
    if _is_clear(front, back, _LEAST_BONE_MM3):
        sentences.append(
            "The spine seems to lie in front of the lungs: front and back may be exchanged, the affine wrong."
        )
    is_whole = len(per_slice_mm3) * block_mm[0] >= _WHOLE_LUNGS_MM
    if is_whole and not sentences and _heart_is_on_the_right(hu, lung.grid, lung_slices, rows, middle, block_mm):
        sentences.append(
            "The heart seems to lie on the right: left and right may be exchanged, the affine wrong, unless disease "
            "has moved it there."
        )
    return sentences


def _heart_is_on_the_right(
    hu: np.ndarray, grid: np.ndarray, slices: slice, rows: np.ndarray, middle: float, block_mm: np.ndarray
) -> bool:
    """Whether most of what is dense between the lungs, above the diaphragm and without the spine, lies on the right."""
    low, high = (slices.start + round(share * (slices.stop - slices.start)) for share in _HEART_SLICES)
    front = slice(rows[0], rows[-1] - round(_RIM * (rows[-1] - rows[0])))
    air, dense = grid[low:high, front], hu[low:high, front]
    between = np.logical_or.accumulate(air, axis=2) & np.logical_or.accumulate(air[..., ::-1], axis=2)[..., ::-1]
    heart = (between & (dense > _HEART_HU)).sum(axis=(0, 1)) * math.prod(block_mm)
    right = np.arange(grid.shape[2]) < middle
    return bool(heart.sum() >= _LEAST_HEART_MM3 and heart[right].sum() > _ON_THE_RIGHT * heart.sum())


def _is_clear(wrong_mm3: float, right_mm3: float, least_mm3: float) -> bool:
    return bool(wrong_mm3 >= least_mm3 and wrong_mm3 > _CLEARLY * right_mm3)
