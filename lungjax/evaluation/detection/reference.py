"""What the readers of a whole scan marked, as detection is scored by it."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from lungjax.ct.scan import Nodule, Scan

LEAST_READERS = 3
LEAST_MM = 3.0
"""LUNA16's: a nodule to be found is one that at least three of four readers outlined, and that is 3 mm wide."""


@dataclasses.dataclass(frozen=True, eq=False)
class ReferenceNodule:
    """One nodule.

    Attributes:
      index: `lungjax.ct.scan.Nodule.index`.
      readers: how many outlined it.
      centre_voxel: (3,) float64 slice, row and column: the mean of the readers' centres.
      diameter_mm: of a ball of the volume that a reader outlined, the mean of the readers; LUNA16 has it so.
      votes: (slices, rows, columns) uint8, how many marked each voxel, in a box of its own.
      origin: (slice, row, column) of `votes[0, 0, 0]` in the scan.
    """

    index: int
    readers: int
    centre_voxel: np.ndarray
    diameter_mm: float
    votes: np.ndarray
    origin: tuple[int, int, int]

    @property
    def middle(self) -> int:
        """The slice in which most was marked."""
        return self.origin[0] + int(self.votes.sum(axis=(1, 2), dtype=np.int64).argmax())

    @property
    def box(self) -> tuple[slice, slice, slice]:
        """The part of the scan that `votes` covers."""
        first, second, third = (slice(at, at + size) for at, size in zip(self.origin, self.votes.shape, strict=True))
        return first, second, third

    def in_slices(self, slices: int) -> np.ndarray:
        """bool (slices,): where anybody marked it."""
        found = np.zeros(slices, bool)
        found[self.box[0]] = self.votes.any(axis=(1, 2))
        return found

    def wanted(self, least_readers: int = LEAST_READERS) -> bool:
        """Whether it is to be found; what is not is no false positive either."""
        return self.readers >= least_readers and self.diameter_mm >= LEAST_MM


def reference_nodules(scan: Scan) -> list[ReferenceNodule]:
    """Every nodule that a reader of a scan outlined."""
    return [_marked(one, scan.spacing_mm) for one in scan.nodules if any(part.mask.any() for part in one.readings)]


def _marked(nodule: Nodule, spacing_mm: tuple[float, float, float]) -> ReferenceNodule:
    readings = [one for one in nodule.readings if one.mask.any()]
    origin = np.min([one.origin for one in readings], axis=0)
    ends = np.max([np.add(one.origin, one.mask.shape) for one in readings], axis=0)
    votes = np.zeros(ends - origin, np.uint8)
    centres, widths_mm = [], []
    for one in readings:
        start = np.subtract(one.origin, origin)
        votes[tuple(slice(at, at + size) for at, size in zip(start, one.mask.shape, strict=True))] += one.mask
        voxels = np.argwhere(one.mask) + one.origin
        centres.append(voxels.mean(axis=0))
        widths_mm.append((6 / math.pi * len(voxels) * math.prod(spacing_mm)) ** (1 / 3))
    first, second, third = origin.tolist()
    return ReferenceNodule(
        nodule.index, len(readings), np.mean(centres, axis=0), float(np.mean(widths_mm)), votes, (first, second, third)
    )
