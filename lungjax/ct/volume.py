"""A single-file volume, MetaImage or NIfTI: its geometry from the header, turned to the axes of an axial CT."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lungjax.ct import hounsfield, orientation, size_limits
from lungjax.ct.faults import Note
from lungjax.ct.orientation import AXIAL, Turn
from lungjax.ct.scan import Nodule, Scan
from lungjax.ct.series import tilted
from lungjax.errors import Fault

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
      affine_ras: (4, 4) float64 of a NIfTI file, with the very numbers of its header; else None.
      notes: what is worth knowing about the header.
    """

    shape: tuple[int, int, int]
    steps_mm: np.ndarray
    origin_mm: np.ndarray
    directions: np.ndarray
    affine_ras: np.ndarray | None = None
    notes: tuple[Note, ...] = ()

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
          Fault: `not_3d`, `too_large`, `unreadable_file`, or `gantry_tilt` where axes are not at right angles.
        """
        if len(sizes) != 3 or min(sizes) < 2:
            shape = " x ".join(map(str, sizes[:8]))
            raise Fault("not_3d", f"{path} is not a volume with one number per voxel: {shape}")
        size_limits.check(max(sizes), size_limits.VOLUME_SIDE, f"{path}, by one side of its volume,")
        numbers = np.array([*spacing_mm, *origin_mm, *directions.flat], np.float64)
        if numbers.size != 15 or not (np.abs(numbers) < _MAX_MM).all() or not min(spacing_mm) > 0:
            what = f"spacing {tuple(spacing_mm[:4])} and origin {tuple(origin_mm[:4])}"
            raise Fault("unreadable_file", f"{path} has {what}, which is impossible; convert the original again")
        cosines = directions.T @ directions
        if not np.allclose(np.diag(cosines), 1, atol=_ORTHOGONAL_TOLERANCE):
            raise Fault("unreadable_file", f"{path} has axes without a direction; convert the original again")
        if (tilt := np.abs(cosines - np.diag(np.diag(cosines))).max()) > _ORTHOGONAL_TOLERANCE:
            raise tilted(math.degrees(math.asin(min(tilt, 1.0))), str(path))
        columns, rows, slices = sizes
        return cls((slices, rows, columns), numbers[:3], numbers[3:6], directions)


@dataclasses.dataclass(frozen=True, eq=False)
class Layout:
    """A volume's axes in the requested order and direction.

    Attributes:
      shape: (slices, rows, columns).
      z_mm: (slices,) float64, ascending, position along the slices' normal.
      spacing_mm: (slice, row, column) distance between voxel centres.
      turn: how the file's axes become these.
      affine_lps: as in `lungjax.ct.scan.Scan`.
      notes: those of the geometry.
    """

    shape: tuple[int, ...]
    z_mm: np.ndarray
    spacing_mm: tuple[float, float, float]
    turn: Turn
    affine_lps: np.ndarray
    notes: tuple[Note, ...]

    def hu(self, voxels: np.ndarray, where: str) -> tuple[np.ndarray, tuple[Note, ...]]:
        """int16 HU of a chest, turned, from the file's numbers; and notes on them, in addition to the header's.

        Raises:
          Fault: `not_finite`, `hu_out_of_range` or `not_hu`.
        """
        filled, note = hounsfield.fill_not_a_number(voxels, where)
        hu = hounsfield.to_int16(self.turn.forth(filled), where)
        hounsfield.check_scan(hu, where)
        return hu, (*self.notes, *([note] if note else []))

    def scan(
        self,
        hu: np.ndarray,
        *,
        key: str,
        patient_id: str,
        nodules: tuple[Nodule, ...] = (),
        notes: tuple[Note, ...] = (),
    ) -> Scan:
        """A scan from what `hu` returned; `key` takes the place of the missing UIDs."""
        filled = any(note.name == "not_a_number" for note in notes)
        return Scan(
            patient_id=patient_id,
            study_uid=key,
            series_uid=key,
            voxels=hu,
            intensity="hu",
            z_mm=self.z_mm,
            spacing_mm=self.spacing_mm,
            sop_uids=("",) * len(hu),
            padding_hu=hounsfield.padding(hu, hounsfield.FILL_HU if filled else None),
            nodules=nodules,
            affine_lps=self.affine_lps,
            turn=self.turn,
            notes=notes,
        )


def lay_out(geometry: Geometry, path: Path, *, axes: tuple[int, int, int] = AXIAL) -> Layout:
    """Swaps and reverses axes until columns, rows and slices run in the directions `axes` (see `AXIAL`).

    Raises:
      Fault: `oblique_orientation` where an axis is more than 10 degrees from the body's.
    """
    affine_lps = np.vstack(
        [np.column_stack([geometry.directions * geometry.steps_mm, geometry.origin_mm]), (0, 0, 0, 1)]
    )
    turn = orientation.turn_to(affine_lps, axes, affine_ras=geometry.affine_ras)
    if turn is None:
        message = f"{path} is not axial: its axes are more than 10 degrees from the body's; resample it"
        raise Fault("oblique_orientation", message)
    shape = tuple(geometry.shape[axis] for axis in turn.order)
    slice_mm, row_mm, column_mm = (float(geometry.steps_mm[2 - axis]) for axis in turn.order)
    turned_lps = turn.affine_of_scan(geometry.shape)
    return Layout(
        shape=shape,
        z_mm=float(turned_lps[:3, 3] @ turned_lps[:3, 2]) / slice_mm + slice_mm * np.arange(shape[0]),
        spacing_mm=(slice_mm, row_mm, column_mm),
        turn=turn,
        affine_lps=turned_lps,
        notes=geometry.notes,
    )
