"""A volume of one file, MetaImage or NIfTI: where its header says it lies, turned to the axes of an axial CT."""

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
"""Columns go to the patient's left, rows to the back, slices to the head: nearly every chest CT. -1 turns one round."""

_NEAR_AXIAL = math.cos(math.radians(10))
_MOST_MM = 1e6
_RIGHT_ANGLES = 1e-3


@dataclasses.dataclass(frozen=True, eq=False)
class Geometry:
    """How a volume lies in the patient, in DICOM's coordinates: to the left, to the back, to the head.

    Attributes:
      shape: (slices, rows, columns), as the file has them.
      steps_mm: (3,) float64, from one voxel to the next along columns' index, rows' and slices'.
      origin_mm: (3,) float64, centre of voxel [0, 0, 0].
      directions: (3, 3) float64, columns: where the three indices go.
    """

    shape: tuple[int, int, int]
    steps_mm: np.ndarray
    origin_mm: np.ndarray
    directions: np.ndarray

    @classmethod
    def of(
        cls,
        *,
        sizes: Sequence[int],
        spacing_mm: Sequence[float],
        origin_mm: Sequence[float],
        directions: np.ndarray,
        path: Path,
    ) -> Geometry:
        """What the header of `path` says, if that can be; sizes and spacing of columns', rows' and slices' index.

        Raises:
          Fault: `not_3d`, `too_large` or `unreadable_file`.
        """
        if len(sizes) != 3 or min(sizes) < 2:
            raise Fault("not_3d", f"{path} is no volume of one number a voxel: {' x '.join(map(str, sizes[:8]))}")
        size_limits.check(max(sizes), size_limits.VOLUME_SIDE, f"{path}, by one side of its volume,")
        place = np.array([*spacing_mm, *origin_mm, *directions.flat], np.float64)
        if place.size != 15 or not (np.abs(place) < _MOST_MM).all() or not min(spacing_mm) > 0:
            what = f"spacing {tuple(spacing_mm[:4])} and origin {tuple(origin_mm[:4])}"
            raise Fault("unreadable_file", f"{path} has {what}, which cannot be; fetch it again")
        if not np.allclose(directions.T @ directions, np.eye(3), atol=_RIGHT_ANGLES):
            raise Fault("unreadable_file", f"{path} has axes that are not at right angles; fetch it again")
        columns, rows, slices = sizes
        return cls((slices, rows, columns), place[:3], place[3:6], directions)


@dataclasses.dataclass(frozen=True, eq=False)
class Layout:
    """A volume's axes in the order and direction that they were asked for.

    Attributes:
      shape: (slices, rows, columns).
      z_mm: (slices,) float64, ascending, position along the slices' normal.
      spacing_mm: (slice, row, column) distance between voxel centres.
      position_mm: (3,) float64, centre of voxel [0, 0, 0].
      order: which axes of the file's voxels become slices, rows and columns.
      reversed: which of those then run the other way.
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
        """The file's voxels, as this layout has them; none is interpolated."""
        steps = tuple(slice(None, None, -1 if turned else 1) for turned in self.reversed)
        return np.ascontiguousarray(voxels.transpose(self.order)[steps])

    def scan(self, hu: np.ndarray, *, key: str, patient_id: str, nodules: tuple[Nodule, ...] = ()) -> Scan:
        """The scan of turned voxels, int16 HU (slices, rows, columns); `key` names it, for there are no UIDs."""
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
    """Axes swapped and reversed until columns, rows and slices go where `axes` says (see `AXIAL`).

    Raises:
      Fault: `oblique_orientation` where one of them is more than 10 degrees from the body's.
    """
    along = np.abs(geometry.directions).argmax(axis=1)  # For left, back and head the index that goes there most.
    cosines = geometry.directions[(0, 1, 2), along] * axes
    if np.abs(cosines).min() < _NEAR_AXIAL:
        message = f"{path} is no axial volume: its axes are more than 10 degrees from the body's; resample it"
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
