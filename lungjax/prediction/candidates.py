"""From probabilities to findings: connected pieces in 3-D, measured and ranked."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from lungjax.ct import connected_components
from lungjax.prediction import measure

VOXEL_THRESHOLD = 0.5
"""A voxel more probable than this is a nodule's: at least two of four readers would rather mark it than not."""
LEAST_MM3 = math.pi / 6 * 3**3
"""LIDC's readers outlined nodules from 3 mm on; what is smaller than a ball of that diameter is left out."""
LEAST_IN_LUNG = 0.25
"""Share of a finding that lies in the lungs themselves, at least: the rest may reach into the wall."""


@dataclasses.dataclass(frozen=True, eq=False)
class Candidate:
    """One connected piece.

    Attributes:
      voxels: (n, 3) int64, slice, row and column of each.
      score: see `score`; the higher, the rather a nodule.
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


def find(
    probability: np.ndarray, hu: np.ndarray, lungs: np.ndarray, spacing_mm: tuple[float, float, float]
) -> list[Candidate]:
    """Every piece of a scan that may be a nodule, from the highest score to the lowest.

    Args:
      probability: (slices, rows, columns) floats.
      hu: int16 of that shape.
      lungs: bool of that shape, `lungjax.ct.lungs.Lungs.mask`.
      spacing_mm: (slice, row, column) distance between voxel centres.
    """
    found = []
    for voxels in _pieces(probability > VOXEL_THRESHOLD):
        volume_mm3 = len(voxels) * math.prod(spacing_mm)
        at = tuple(voxels.T)
        if volume_mm3 < LEAST_MM3 or lungs[at].mean() < LEAST_IN_LUNG:
            continue
        widest, longest_mm, perpendicular_mm = measure.recist(voxels, spacing_mm)
        found.append(
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
    return sorted(found, key=lambda one: -one.score)


def score(probability: np.ndarray, volume_mm3: float, longest_mm: float) -> float:
    """The mean probability of a finding's voxels, (n,): what ranks nodules above vessels.

    No probability that it is a nodule: the network has been trained where there was one.
    """
    del volume_mm3, longest_mm
    return float(probability.mean(dtype=np.float64))


def _pieces(mask: np.ndarray) -> list[np.ndarray]:
    """(n, 3) voxels of each piece, ascending; voxels that share a face touch."""
    if not mask.any():
        return []
    found = connected_components.find(mask, 0, 1)
    lengths = found.ends - found.starts
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    places = np.unravel_index(np.repeat(found.starts, lengths) + within, found.shape)
    voxels = np.stack(places, axis=1) - (0, 1, 1)  # The margin that `pieces` puts before rows and columns.
    number = np.repeat(found.number, lengths)
    order = np.argsort(number, kind="stable")
    return np.split(voxels[order], np.cumsum(np.bincount(number))[:-1])
