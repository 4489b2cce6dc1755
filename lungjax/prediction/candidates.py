"""From probabilities to candidates: connected components in 3-D, pieces of one joined, measured, ranked."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from lungjax.ct import connected_components
from lungjax.prediction import measure

VOXEL_THRESHOLD = 0.5
"""A voxel more probable than this is a nodule's: at least two of four readers would rather mark it than not."""
JOIN_THRESHOLD = 0.2
"""Components between which every voxel on some way is more probable than this are pieces of one candidate: a large
ground-glass nodule falls to pieces at `VOXEL_THRESHOLD`. This is hysteresis thresholding (Canny 1986)."""
LEAST_MM3 = math.pi / 6 * 3**3
"""LIDC's readers outlined nodules from 3 mm on: what is smaller than a ball of that diameter is no candidate."""
LEAST_IN_LUNG = 0.25
"""Share of a candidate that lies in the lungs themselves, at least: the rest may reach into the wall."""


@dataclasses.dataclass(frozen=True, eq=False)
class Candidate:
    """One connected component that may be a nodule.

    Attributes:
      voxels: (n, 3) int64, slice, row and column of each.
      score: see `score`; the higher, the likelier a nodule.
      volume_mm3: of its voxels.
      longest_mm, perpendicular_mm: RECIST, see `lungjax.prediction.measure`; in slice `widest`.
      mean_hu: of its voxels.
    """

    voxels: np.ndarray
    score: float
    volume_mm3: float
    longest_mm: float
    perpendicular_mm: float
    widest: int
    mean_hu: float

    @property
    def centre_voxel(self) -> np.ndarray:
        """(3,) float64: mean slice, row and column."""
        return self.voxels.mean(axis=0)

    @property
    def slices(self) -> tuple[int, int]:
        """The first slice and the last."""
        return int(self.voxels[0, 0]), int(self.voxels[-1, 0])


def ranked_candidates(
    probability: np.ndarray,
    hu: np.ndarray,
    lungs: np.ndarray | None,
    spacing_mm: tuple[float, float, float],
    *,
    voxel_threshold: float = VOXEL_THRESHOLD,
) -> list[Candidate]:
    """Every candidate of a scan, by falling mean probability.

    Args:
      probability: (slices, rows, columns) floats.
      hu: int16 of that shape.
      lungs: bool of that shape, `lungjax.ct.lungs.Lungs.mask`; None where they are not known, as of crops.
      spacing_mm: (slice, row, column) distance between voxel centres.
      voxel_threshold: a voxel more probable than this is a candidate's.
    """
    candidates = []
    for voxels in _joined_components(probability, voxel_threshold):
        volume_mm3 = len(voxels) * math.prod(spacing_mm)
        at = tuple(voxels.T)
        if volume_mm3 < LEAST_MM3 or (lungs is not None and lungs[at].mean() < LEAST_IN_LUNG):
            continue
        widest, longest_mm, perpendicular_mm = measure.recist(voxels, spacing_mm)
        candidates.append(
            Candidate(
                voxels=voxels,
                score=score(probability[at], volume_mm3, longest_mm),
                volume_mm3=volume_mm3,
                longest_mm=longest_mm,
                perpendicular_mm=perpendicular_mm,
                widest=widest,
                mean_hu=float(hu[at].mean()),
            )
        )
    return sorted(candidates, key=lambda candidate: -candidate.score)


def score(probability: np.ndarray, volume_mm3: float, longest_mm: float) -> float:
    """The mean probability of a candidate's voxels, (n,): it ranks nodules above vessels.

    It is no probability that this is a nodule, for the network was trained where there was one; the candidate
    classifier's is.
    """
    del volume_mm3, longest_mm
    return float(probability.mean(dtype=np.float64))


def _joined_components(probability: np.ndarray, threshold: float) -> list[np.ndarray]:
    """(n, 3) voxels above a threshold, ascending, of each component of those above `JOIN_THRESHOLD`; voxels that
    share a face are connected."""
    joined = []
    for voxels in connected_components.voxels_of_each(_is_above(probability, min(JOIN_THRESHOLD, threshold))):
        sure = voxels[probability[tuple(voxels.T)] > threshold]
        if len(sure):
            joined.append(sure)
    return joined


def _is_above(probability: np.ndarray, threshold: float) -> np.ndarray:
    """`probability > threshold`. Without a sign float16 are ordered as their bits, which NumPy compares much faster."""
    if probability.dtype != np.float16:
        return probability > threshold
    return probability.view(np.uint16) > np.float16(threshold).view(np.uint16)
