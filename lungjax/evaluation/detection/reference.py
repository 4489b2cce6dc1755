"""The reference nodules of a whole scan, from its readers' outlines."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from lungjax.ct.scan import RATING_NAMES, Nodule, Scan

_TEXTURE = RATING_NAMES.index("texture")
LEAST_READERS = 3
LEAST_MM = 3.0
"""LUNA16's rule: a reference nodule is one of at least 3 mm that at least three of four readers outlined."""


@dataclasses.dataclass(frozen=True, eq=False)
class ReferenceNodule:
    """A nodule that at least one reader outlined.

    Attributes:
      index: `lungjax.ct.scan.Nodule.index`.
      readers: how many readers outlined it.
      centre_voxel: (3,) float64 slice, row and column: the mean of the readers' centres.
      diameter_mm: of a sphere with the volume that a reader outlined, mean over readers, as in LUNA16.
      texture: median of the readers' ratings, 1 (ground glass) to 5 (solid); None where nobody rated it.
      votes: (slices, rows, columns) uint8, how many readers marked each voxel of the nodule's box.
      origin: (slice, row, column) of `votes[0, 0, 0]` in the scan.
    """

    index: int
    readers: int
    centre_voxel: np.ndarray
    diameter_mm: float
    texture: float | None
    votes: np.ndarray
    origin: tuple[int, int, int]

    @property
    def middle(self) -> int:
        """The slice in which the readers marked most."""
        return self.origin[0] + int(self.votes.sum(axis=(1, 2), dtype=np.int64).argmax())

    @property
    def box(self) -> tuple[slice, slice, slice]:
        """The part of the scan that `votes` covers."""
        first, second, third = (slice(at, at + size) for at, size in zip(self.origin, self.votes.shape, strict=True))
        return first, second, third

    def in_slices(self, slices: int) -> np.ndarray:
        """Whether any reader marked it in each slice of the scan: bool (slices,)."""
        marked = np.zeros(slices, bool)
        marked[self.box[0]] = self.votes.any(axis=(1, 2))
        return marked

    def wanted(self, least_readers: int = LEAST_READERS) -> bool:
        """Whether a detector should find it; a nodule that it need not find is no false positive either."""
        return self.readers >= least_readers and self.diameter_mm >= LEAST_MM


def reference_nodules(scan: Scan) -> list[ReferenceNodule]:
    """Every nodule of a scan that a reader outlined."""
    outlined = [nodule for nodule in scan.nodules if any(reading.mask.any() for reading in nodule.readings)]
    return [_reference(nodule, scan.spacing_mm) for nodule in outlined]


def _reference(nodule: Nodule, spacing_mm: tuple[float, float, float]) -> ReferenceNodule:
    readings = [reading for reading in nodule.readings if reading.mask.any()]
    origin = np.min([reading.origin for reading in readings], axis=0)
    ends = np.max([np.add(reading.origin, reading.mask.shape) for reading in readings], axis=0)
    votes = np.zeros(ends - origin, np.uint8)
    centres, diameters_mm = [], []
    for reading in readings:
        mask, start = reading.mask, np.subtract(reading.origin, origin)
        votes[tuple(slice(at, at + size) for at, size in zip(start, mask.shape, strict=True))] += mask
        voxels = np.argwhere(mask) + reading.origin
        centres.append(voxels.mean(axis=0))
        diameters_mm.append((6 / math.pi * len(voxels) * math.prod(spacing_mm)) ** (1 / 3))
    first, second, third = origin.tolist()
    textures = [rating for reading in readings if (rating := reading.ratings[_TEXTURE])]
    return ReferenceNodule(
        index=nodule.index,
        readers=len(readings),
        centre_voxel=np.mean(centres, axis=0),
        diameter_mm=float(np.mean(diameters_mm)),
        texture=float(np.median(textures)) if textures else None,
        votes=votes,
        origin=(first, second, third),
    )
