"""A single-file volume, MetaImage or NIfTI: its geometry from the header, turned to the axes of an axial CT."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lungjax.ct import hounsfield, size_limits
from lungjax.ct.scan import Nodule, Scan
from lungjax.errors import Fault

AXIAL = (1, 1, 1)
"""Columns run to the patient's left, rows to the back, slices to the head, as in nearly every chest CT. -1 reverses."""

_NEAR_AXIAL = math.cos(math.radians(10))
_MAX_MM = 1e6
_ORTHOGONAL_TOLERANCE = 1e-3


@dataclasses.dataclass(frozen=True, eq=False)
class Geometry:
    """How a volume lies in the patient, in DICOM's coordinates: towards the left, the back and the head.

    Attributes:
      shape: (slices, rows, columns) of the file.
      steps_mm: (3,) float64, distance from one voxel to the next along the column, row and slice index.
      origin_mm: (3,) float64, centre of voxel [0, 0, 0].
      directions: (3, 3) float64, whose columns are the directions of the column, row and slice index.
    """

    shape: tuple[int, int, int]
    steps_mm: np.ndarray
    origin_mm: np.ndarray
    directions: np.ndarray

    @classmethod
    def from_header(
        cls,
        *,
        sizes: Sequence[int],
        spacing_mm: Sequence[float],
        origin_mm: Sequence[float],
        directions: np.ndarray,
        path: Path,
    ) -> Geometry:
        """Checks the values of the header of `path`; sizes and spacing are those of column, row and slice index.

        Raises:
          Fault: `not_3d`, `too_large` or `unreadable_file`.
        """
        if len(sizes) != 3 or min(sizes) < 2:
            shape = " x ".join(map(str, sizes[:8]))
            raise Fault("not_3d", f"{path} is not a volume with one number per voxel: {shape}")
        size_limits.check(max(sizes), size_limits.VOLUME_SIDE, f"{path}, by one side of its volume,")
        numbers = np.array([*spacing_mm, *origin_mm, *directions.flat], np.float64)
        if numbers.size != 15 or not (np.abs(numbers) < _MAX_MM).all() or not min(spacing_mm) > 0:
            what = f"spacing {tuple(spacing_mm[:4])} and origin {tuple(origin_mm[:4])}"
            raise Fault("unreadable_file", f"{path} has {what}, which is impossible; fetch it again")
        if not np.allclose(directions.T @ directions, np.eye(3), atol=_ORTHOGONAL_TOLERANCE):
            raise Fault("unreadable_file", f"{path} has axes that are not at right angles; fetch it again")
        columns, rows, slices = sizes
        return cls((slices, rows, columns), numbers[:3], numbers[3:6], directions)


@dataclasses.dataclass(frozen=True, eq=False)
class Layout:
    """A volume's axes in the requested order and direction.

    Attributes:
      shape: (slices, rows, columns).
      z_mm: (slices,) float64, ascending, position along the slices' normal.
      spacing_mm: (slice, row, column) distance between voxel centres.
      position_mm: (3,) float64, centre of voxel [0, 0, 0].
      order: the axes of the file's voxels that become slices, rows and columns.
      reversed: which of these are then reversed.
      affine_lps: as in `lungjax.ct.scan.Scan`.
    """

    shape: tuple[int, ...]
    z_mm: np.ndarray
    spacing_mm: tuple[float, float, float]
    position_mm: np.ndarray
    order: tuple[int, ...]
    reversed: tuple[bool, ...]
    affine_lps: np.ndarray

    def turn(self, voxels: np.ndarray) -> np.ndarray:
        """The file's voxels in this layout; none is interpolated."""
        steps = tuple(slice(None, None, -1 if is_reversed else 1) for is_reversed in self.reversed)
        return np.ascontiguousarray(voxels.transpose(self.order)[steps])

    def scan(self, hu: np.ndarray, *, key: str, patient_id: str, nodules: tuple[Nodule, ...] = ()) -> Scan:
        """A scan from turned voxels, int16 HU (slices, rows, columns); `key` takes the place of the missing UIDs."""
        return Scan(
            patient_id=patient_id,
            study_uid=key,
            series_uid=key,
            voxels=hu,
            intensity="hu",
            z_mm=self.z_mm,
            spacing_mm=self.spacing_mm,
            sop_uids=("",) * len(hu),
            padding_hu=hounsfield.padding(hu, None),
            nodules=nodules,
            affine_lps=self.affine_lps,
        )


def lay_out(geometry: Geometry, path: Path, *, axes: tuple[int, int, int] = AXIAL) -> Layout:
    """Swaps and reverses axes until columns, rows and slices run in the directions `axes` (see `AXIAL`).

    Raises:
      Fault: `oblique_orientation` where an axis is more than 10 degrees from the body's.
    """
    along = np.abs(geometry.directions).argmax(axis=1)  # For left, back and head, the index closest to that direction.
    cosines = geometry.directions[(0, 1, 2), along] * axes
    if np.abs(cosines).min() < _NEAR_AXIAL:
        message = f"{path} is not axial: its axes are more than 10 degrees from the body's; resample it"
        raise Fault("oblique_orientation", message)
    sizes = np.array(geometry.shape[::-1])[along]
    steps_mm, directions = geometry.steps_mm[along], geometry.directions[:, along] * np.sign(cosines)
    position_mm = geometry.origin_mm.copy()
    for index in np.flatnonzero(cosines < 0):
        position_mm -= directions[:, index] * steps_mm[index] * (sizes[index] - 1)
    columns_mm, rows_mm, slices_mm = steps_mm.tolist()
    return Layout(
        shape=tuple(sizes[::-1].tolist()),
        z_mm=float(position_mm @ directions[:, 2]) + slices_mm * np.arange(sizes[2]),
        spacing_mm=(slices_mm, rows_mm, columns_mm),
        position_mm=position_mm,
        order=tuple((2 - along[::-1]).tolist()),
        reversed=tuple((cosines[::-1] < 0).tolist()),
        affine_lps=np.vstack([np.column_stack([directions * steps_mm, position_mm]), (0, 0, 0, 1)]),
    )
