"""The images of one CT series, in any order, to one volume with its geometry, or a named fault.

Positions, not instance numbers or the nominal thickness, give order and spacing (DICOM PS3.3, C.7.6.2).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lungjax.ct import hounsfield, size_limits
from lungjax.ct.dicom_pixels import Pixels, read_hu
from lungjax.ct.scan import Nodule, Scan
from lungjax.errors import Fault

_NEAR_AXIAL = math.cos(math.radians(10))
_EVEN = 0.02
"""Distances of neighbours may differ from their median by this share of it; LIDC's even scans: by < 2e-4."""
_SAME_MM = 1e-3
"""Slices closer than this lie at one position."""


@dataclasses.dataclass(frozen=True)
class Slice:
    """One image of a CT series.

    Attributes:
      path: its file, for messages.
      study_uid, series_uid, sop_uid: DICOM UIDs.
      pixels: where its pixels are, still to be read.
      position_mm: (3,) float64, centre of voxel [0, 0] in patient coordinates.
      orientation: (6,) float64, directions of a row and of a column in patient coordinates.
      spacing_mm: (row, column) distance between voxel centres.
      padding_hu: the largest value that the header declares to be padding, or None.
    """

    path: Path
    study_uid: str
    series_uid: str
    sop_uid: str
    pixels: Pixels
    position_mm: np.ndarray
    orientation: np.ndarray
    spacing_mm: tuple[float, float]
    padding_hu: float | None


@dataclasses.dataclass(frozen=True)
class Stack:
    """The images of one CT series in order, none of their pixels read.

    Attributes:
      slices: by increasing `z_mm`.
      z_mm, spacing_mm: as in `Series`.
    """

    slices: tuple[Slice, ...]
    z_mm: np.ndarray
    spacing_mm: tuple[float, float, float]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(slices, rows, columns)."""
        return (len(self.slices), *self.slices[0].pixels.shape)


@dataclasses.dataclass(frozen=True)
class Series:
    """One CT series in order.

    Attributes:
      study_uid, series_uid: DICOM UIDs; `sop_uids`: one a slice.
      voxels: (slices, rows, columns) int16 HU as the scanner wrote them, padding included.
      range_hu: the lowest and the highest of them.
      z_mm: (slices,) float64, ascending: positions along the slice normal, which here always points towards
        the head (left or back where slices are not axial), whichever way rows and columns run.
      spacing_mm: (slice, row, column) distance between voxel centres.
      padding_hu: voxels at or below it are padding; None where the series has none.
      affine_lps: as in `lungjax.ct.scan.Scan`.
    """

    study_uid: str
    series_uid: str
    sop_uids: tuple[str, ...]
    voxels: np.ndarray
    range_hu: tuple[float, float]
    z_mm: np.ndarray
    spacing_mm: tuple[float, float, float]
    padding_hu: int | None
    affine_lps: np.ndarray

    def scan(self, *, patient_id: str, where: str, nodules: tuple[Nodule, ...] = ()) -> Scan:
        """The scan of a patient, with what readers marked.

        Raises:
          Fault: `wrong_rescale` where its HU are not those of a chest; `where` names it.
        """
        hounsfield.check_chest(self.range_hu, where)
        return Scan(
            patient_id=patient_id,
            study_uid=self.study_uid,
            series_uid=self.series_uid,
            voxels=self.voxels,
            intensity="hu",
            z_mm=self.z_mm,
            spacing_mm=self.spacing_mm,
            sop_uids=self.sop_uids,
            padding_hu=self.padding_hu,
            nodules=nodules,
            affine_lps=self.affine_lps,
        )


def assemble(slices: Sequence[Slice]) -> Series:
    """`order`, then `read`."""
    return read(order(slices))


def is_even(z_mm: np.ndarray) -> bool:
    """Whether ascending positions (slices,) are spaced alike."""
    gaps_mm = np.diff(z_mm)
    median_mm = float(np.median(gaps_mm))
    return bool(np.abs(gaps_mm - median_mm).max() <= _EVEN * median_mm)


def order(slices: Sequence[Slice], *, uneven: bool = False) -> Stack:
    """Orders slices along their normal and measures the spacing, from their headers alone.

    Args:
      slices: in any order.
      uneven: they are known not to be spaced alike; their spacing is then the median.

    Raises:
      Fault: `mixed_geometry`, `too_large`, `incomplete_series` (one slice), `duplicate_positions` or
        `uneven_spacing`.
    """
    if not slices:
        raise ValueError("order: a series has at least one slice")
    first = slices[0]
    _check_alike(slices)
    need = sum(2 * image.pixels.shape[0] * image.pixels.shape[1] for image in slices)
    if need > size_limits.SCAN_BYTES:
        raise size_limits.too_large(
            need, size_limits.SCAN_BYTES, f"the series in {first.path.parent}, by the bytes of its pixels,"
        )
    if len(slices) == 1:
        raise Fault("incomplete_series", f"{first.path} is the only slice of its series; fetch the rest")
    along = _along(first)
    ordered = sorted(slices, key=lambda one: (float(one.position_mm @ along), one.path))
    positions_mm = np.stack([one.position_mm for one in ordered])  # (slices, 3)
    z_mm = positions_mm @ along
    _check_apart(ordered, z_mm)
    if not uneven:
        _check_even(ordered, z_mm)
    drift_mm = positions_mm - np.outer(z_mm, along)
    if np.ptp(drift_mm, axis=0).max() > max(first.spacing_mm):
        raise Fault("mixed_geometry", f"the slices in {first.path.parent} do not lie above one another")
    gap_mm = float(np.median(np.diff(z_mm))) if uneven else float(z_mm[-1] - z_mm[0]) / (len(z_mm) - 1)
    return Stack(tuple(ordered), z_mm, (gap_mm, *first.spacing_mm))


def check_axial(orientation: np.ndarray, where: str) -> None:
    """Rows of the images, (6,) as in `Slice.orientation`, run along the shoulders and columns from front to back.

    Raises:
      Fault: `oblique_orientation` where one is more than 10 degrees from that, whichever way it runs.
    """
    if min(abs(orientation[0]), abs(orientation[4])) < _NEAR_AXIAL:
        message = f"{where} is no axial series: its rows or columns are more than 10 degrees from the body's axes"
        raise Fault("oblique_orientation", message)


def read(stack: Stack) -> Series:
    """Reads the pixels of a series.

    Raises:
      Fault: as `lungjax.ct.dicom_pixels.read_hu` does.
    """
    first = stack.slices[0]
    voxels = np.empty(stack.shape, np.int16)
    ends_hu, filled = [], []
    for one, plane in zip(stack.slices, voxels, strict=True):
        ends_hu.append(read_hu(one.pixels, plane))
        filled.append(hounsfield.lowest(plane))  # Now, while the slice is in the cache.
    range_hu = min(low for low, _ in ends_hu), max(high for _, high in ends_hu)
    sop_uids = tuple(one.sop_uid for one in stack.slices)
    padding_hu = hounsfield.padding_of_filled(voxels, filled, declared_padding_hu(stack.slices))
    return Series(
        study_uid=first.study_uid,
        series_uid=first.series_uid,
        sop_uids=sop_uids,
        voxels=voxels,
        range_hu=range_hu,
        z_mm=stack.z_mm,
        spacing_mm=stack.spacing_mm,
        padding_hu=padding_hu,
        affine_lps=_affine_lps(stack),
    )


def _affine_lps(stack: Stack) -> np.ndarray:
    """Slices lie above one another along their normal, whichever way the gantry was tilted: by less than a pixel."""
    first = stack.slices[0]
    slice_mm, row_mm, column_mm = stack.spacing_mm
    along_row, along_column = np.split(first.orientation, 2)
    steps_mm = (along_row * column_mm, along_column * row_mm, _along(first) * slice_mm, first.position_mm)
    return np.vstack([np.stack(steps_mm, axis=1), (0, 0, 0, 1)])


def declared_padding_hu(slices: Sequence[Slice]) -> float | None:
    """The largest value that any header declares to be padding, or None."""
    return max((one.padding_hu for one in slices if one.padding_hu is not None), default=None)


def _along(one: Slice) -> np.ndarray:
    try:
        return normal(one.orientation)
    except ValueError as error:
        raise Fault("mixed_geometry", f"{one.path} says {error}") from None


def normal(orientation: np.ndarray) -> np.ndarray:
    """(3,) the unit vector that slices of this orientation (6,) are put in order along: see `Series.z_mm`.

    Raises:
      ValueError: rows and columns are not at right angles.
    """
    along = np.cross(orientation[:3], orientation[3:])
    length = np.linalg.norm(along)
    if not 0.9 < length < 1.1:
        raise ValueError("its rows and columns are not at right angles")
    along = along / length
    return along * np.sign(along[np.abs(along).argmax()])


def _check_alike(slices: Sequence[Slice]) -> None:
    first = slices[0]
    alike = (
        np.array([one.series_uid == first.series_uid and one.pixels.shape == first.pixels.shape for one in slices])
        & np.isclose([one.spacing_mm for one in slices], first.spacing_mm, rtol=1e-3).all(axis=1)
        & np.isclose([one.orientation for one in slices], first.orientation, atol=1e-3).all(axis=1)
    )
    if not alike.all():
        stray = slices[int(alike.argmin())]
        message = f"{stray.path} differs from {first.path} in series, matrix, pixel spacing or orientation"
        raise Fault("mixed_geometry", message)


def _check_apart(ordered: Sequence[Slice], z_mm: np.ndarray) -> None:
    gaps_mm = np.diff(z_mm)
    same = int(gaps_mm.argmin())
    if gaps_mm[same] < _SAME_MM:
        twins = f"{ordered[same].path} and {ordered[same + 1].path}"
        raise Fault("duplicate_positions", f"{twins} both lie at {z_mm[same]:g} mm; keep one")


def _check_even(ordered: Sequence[Slice], z_mm: np.ndarray) -> None:
    if not is_even(z_mm):
        gaps_mm = np.diff(z_mm)
        median_mm = float(np.median(gaps_mm))
        worst = int(np.abs(gaps_mm - median_mm).argmax())
        where = f"{gaps_mm[worst]:g} mm after {ordered[worst].path} at {z_mm[worst]:g} mm"
        raise Fault("uneven_spacing", f"slices lie {median_mm:g} mm apart but {where}")
