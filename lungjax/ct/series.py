"""Assembles the images of one CT series, in any order, into one volume with its geometry, or raises a named fault.

Order and spacing come from positions, not from instance numbers or the nominal thickness (DICOM PS3.3, C.7.6.2).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lungjax.ct import hounsfield, size_limits
from lungjax.ct.dicom_pixels import Pixels, read_hu
from lungjax.ct.faults import Note
from lungjax.ct.scan import Nodule, Scan
from lungjax.errors import Fault

_NEAR_AXIAL = math.cos(math.radians(10))
_EVEN = 0.02
"""Distances of neighbouring slices may differ from their median by this share; in LIDC's even scans by < 2e-4."""
SAME_MM = 1e-3
"""Slices closer than this are at the same position."""
_UNITS_MM = (1.0, 0.1)
"""To which scanners round positions, if they do."""
_LEAST_SHARE = 0.2
"""Of the gaps between positions in whole mm, of both lengths that occur: a single odd gap is not rounding."""
_ROUNDING = 0.02
"""By how much more than one unit rounded positions may spread around even ones, as a share of it."""
_LEAST_TILT_DEGREES, _LEAST_TILT_MM = 0.5, 0.1
"""Rounded positions alone can look like less."""


@dataclasses.dataclass(frozen=True)
class Slice:
    """One image of a CT series.

    Attributes:
      path: the image's file, for messages.
      study_uid, series_uid, sop_uid: DICOM UIDs.
      pixels: the location of its pixels, which are not read yet.
      position_mm: (3,) float64, centre of voxel [0, 0] in patient coordinates.
      orientation: (6,) float64, directions of a row and of a column in patient coordinates.
      spacing_mm: (row, column) distance between voxel centres.
      padding_hu: the largest value that the header declares to be padding, or None.
      tilt_degrees: of the gantry, as the header has it; 0 where it has none.
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
    tilt_degrees: float = 0.0


@dataclasses.dataclass(frozen=True)
class Stack:
    """The images of one CT series in order; no pixel has been read.

    Attributes:
      slices: in order of increasing `z_mm`.
      z_mm, spacing_mm, notes: as in `Series`.
    """

    slices: tuple[Slice, ...]
    z_mm: np.ndarray
    spacing_mm: tuple[float, float, float]
    notes: tuple[Note, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """(slices, rows, columns)."""
        return (len(self.slices), *self.slices[0].pixels.shape)


@dataclasses.dataclass(frozen=True)
class Series:
    """One CT series in order.

    Attributes:
      study_uid, series_uid: DICOM UIDs.
      sop_uids: DICOM UIDs, one per slice.
      voxels: (slices, rows, columns) int16 HU as the scanner wrote them, including padding.
      range_hu: the lowest and the highest HU.
      z_mm: (slices,) float64, ascending: positions along the slice normal, which always points towards the
        head (left or back where slices are not axial), whichever way rows and columns run.
      spacing_mm: (slice, row, column) distance between voxel centres.
      padding_hu: voxels at or below this value are padding; None where the series has none.
      affine_lps, notes: as in `lungjax.ct.scan.Scan`.
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
    notes: tuple[Note, ...] = ()

    def scan(self, *, patient_id: str, where: str, nodules: tuple[Nodule, ...] = ()) -> Scan:
        """The series as a patient's scan, with the nodules that readers marked.

        Raises:
          Fault: `wrong_rescale` where its HU are not those of a chest; the message calls the scan `where`.
        """
        if why := hounsfield.why_no_chest(self.voxels, self.range_hu):
            raise Fault("wrong_rescale", f"{where} is not used: {why}; its rescale tags are wrong; use the original")
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
            notes=self.notes,
        )


def assemble(slices: Sequence[Slice]) -> Series:
    """Orders the slices, then reads their pixels: `order`, then `read`."""
    return read(order(slices))


def is_even(z_mm: np.ndarray) -> bool:
    """Whether ascending positions (slices,) are evenly spaced."""
    gaps_mm = np.diff(z_mm)
    median_mm = float(np.median(gaps_mm))
    return bool(np.abs(gaps_mm - median_mm).max() <= _EVEN * median_mm)


def regular(z_mm: np.ndarray) -> np.ndarray | None:
    """Evenly spaced positions (slices,) that `z_mm`, ascending, are or were rounded from; None where there are none."""
    count = len(z_mm)
    step_mm = float(z_mm[-1] - z_mm[0]) / (count - 1)
    if is_even(z_mm):
        return z_mm
    for unit_mm in _UNITS_MM:
        if np.abs(z_mm / unit_mm - np.rint(z_mm / unit_mm)).max() > 1e-4 or unit_mm > 0.45 * step_mm:
            continue
        # A step that is a whole number of units would have been rounded to itself: what is uneven then, is uneven.
        gaps = np.rint(np.diff(z_mm) / unit_mm)
        usual = np.abs(gaps - math.floor(step_mm / unit_mm) - 0.5) < 1  # The two whole numbers around the step.
        rarer = min(np.mean(gaps == gaps.min()), np.mean(gaps == gaps.max()))
        if not usual.all() or (unit_mm >= 1 and rarer < _LEAST_SHARE):
            return None
        steps_mm = step_mm + np.linspace(-1, 1, 401) * unit_mm / (count - 1)
        rests_mm = z_mm - steps_mm[:, None] * np.arange(count)
        widths_mm = np.ptp(rests_mm, axis=1)
        best = int(widths_mm.argmin())
        if widths_mm[best] > unit_mm * (1 + _ROUNDING):
            return None
        start_mm = (rests_mm[best].min() + rests_mm[best].max()) / 2
        return start_mm + steps_mm[best] * np.arange(count)
    return None


def order(slices: Sequence[Slice], *, uneven: bool = False) -> Stack:
    """Orders slices along their normal and measures the spacing, from their headers alone.

    Args:
      slices: in any order.
      uneven: accept unevenly spaced slices; the spacing is then the median.

    Raises:
      Fault: `mixed_geometry`, `too_large`, `incomplete_series` (a single slice), `duplicate_positions`, `gantry_tilt`
        or `uneven_spacing`.
    """
    if not slices:
        raise ValueError("order: a series has at least one slice")
    first = slices[0]
    _check_alike(slices)
    nbytes = sum(2 * image.pixels.shape[0] * image.pixels.shape[1] for image in slices)
    if nbytes > size_limits.SCAN_BYTES:
        raise size_limits.too_large(
            nbytes, size_limits.SCAN_BYTES, f"the series in {first.path.parent}, by the bytes of its pixels,"
        )
    if len(slices) == 1:
        raise Fault("incomplete_series", f"{first.path} is the only slice of its series; fetch the rest")
    normal_lps = _slice_normal(first)
    ordered = sorted(slices, key=lambda image: (float(image.position_mm @ normal_lps), image.path))
    positions_mm = np.stack([image.position_mm for image in ordered])  # (slices, 3)
    z_mm = positions_mm @ normal_lps
    _check_apart(ordered, z_mm)
    _check_straight(ordered, positions_mm, normal_lps)
    notes = []
    if not uneven:
        regular_mm = regular(z_mm)
        if regular_mm is None:
            raise _uneven(ordered, z_mm)
        if regular_mm is not z_mm:
            z_mm = regular_mm
            rounded = (
                f"its positions are rounded; slices are taken to lie {z_mm[1] - z_mm[0]:.4g} mm apart, the mean step"
            )
            notes.append(Note("rounded_positions", rounded))
    if first.tilt_degrees:
        straight = "but by their positions the slices lie straight above one another; positions count"
        notes.append(
            Note("tilt_in_header", f"its header has a gantry tilt of {first.tilt_degrees:g} degrees, {straight}")
        )
    gap_mm = float(np.median(np.diff(z_mm))) if uneven else float(z_mm[-1] - z_mm[0]) / (len(z_mm) - 1)
    return Stack(tuple(ordered), z_mm, (gap_mm, *first.spacing_mm), tuple(notes))


def check_axial(orientation: np.ndarray, where: str) -> None:
    """Checks that rows run from side to side and columns from front to back; `orientation` (6,) as in `Slice`.

    Raises:
      Fault: `oblique_orientation` where one is more than 10 degrees from its axis; it may run in either direction.
    """
    if min(abs(orientation[0]), abs(orientation[4])) < _NEAR_AXIAL:
        message = f"{where} is not axial: its rows or columns are more than 10 degrees from the body's axes"
        raise Fault("oblique_orientation", message)


def read(stack: Stack) -> Series:
    """Reads the pixels of a series.

    Raises:
      Fault: as `lungjax.ct.dicom_pixels.read_hu` does.
    """
    first = stack.slices[0]
    voxels = np.empty(stack.shape, np.int16)
    ranges_hu, minima = [], []
    for image, plane in zip(stack.slices, voxels, strict=True):
        ranges_hu.append(read_hu(image.pixels, plane))
        minima.append(hounsfield.slice_minimum(plane))  # Done here, while the slice is in the cache.
    range_hu = min(low for low, _ in ranges_hu), max(high for _, high in ranges_hu)
    sop_uids = tuple(image.sop_uid for image in stack.slices)
    padding_hu = hounsfield.padding_from_minima(voxels, minima, declared_padding_hu(stack.slices))
    return Series(
        study_uid=first.study_uid,
        series_uid=first.series_uid,
        sop_uids=sop_uids,
        voxels=voxels,
        range_hu=range_hu,
        z_mm=stack.z_mm,
        spacing_mm=stack.spacing_mm,
        padding_hu=padding_hu,
        affine_lps=affine_lps(stack),
        notes=stack.notes,
    )


def affine_lps(stack: Stack) -> np.ndarray:
    """As in `Scan`. Slices count as lying straight above one another; `order` has checked that within a pixel."""
    first = stack.slices[0]
    slice_mm, row_mm, column_mm = stack.spacing_mm
    along_row, along_column = np.split(first.orientation, 2)
    steps_mm = (along_row * column_mm, along_column * row_mm, _slice_normal(first) * slice_mm, first.position_mm)
    return np.vstack([np.stack(steps_mm, axis=1), (0, 0, 0, 1)])


def declared_padding_hu(slices: Sequence[Slice]) -> float | None:
    """The largest value that any header declares to be padding, or None."""
    return max((image.padding_hu for image in slices if image.padding_hu is not None), default=None)


def _slice_normal(image: Slice) -> np.ndarray:
    try:
        return normal(image.orientation)
    except ValueError as error:
        raise Fault("mixed_geometry", f"{image.path} cannot be placed: {error}") from None


def normal(orientation: np.ndarray) -> np.ndarray:
    """(3,): the unit vector along which slices of this orientation, (6,), are ordered; see `Series.z_mm`.

    Raises:
      ValueError: rows and columns are not at right angles.
    """
    normal_lps = np.cross(orientation[:3], orientation[3:])
    length = np.linalg.norm(normal_lps)
    if not 0.9 < length < 1.1:
        raise ValueError("its rows and columns are not at right angles")
    normal_lps = normal_lps / length
    return normal_lps * np.sign(normal_lps[np.abs(normal_lps).argmax()])


def _check_alike(slices: Sequence[Slice]) -> None:
    first = slices[0]
    alike = (
        np.array(
            [image.series_uid == first.series_uid and image.pixels.shape == first.pixels.shape for image in slices]
        )
        & np.isclose([image.spacing_mm for image in slices], first.spacing_mm, rtol=1e-3).all(axis=1)
        & np.isclose([image.orientation for image in slices], first.orientation, atol=1e-3).all(axis=1)
    )
    if not alike.all():
        other = slices[int(alike.argmin())]
        message = f"{other.path} differs from {first.path} in series, matrix, pixel spacing or orientation"
        raise Fault("mixed_geometry", message)


def _check_apart(ordered: Sequence[Slice], z_mm: np.ndarray) -> None:
    gaps_mm = np.diff(z_mm)
    same = int(gaps_mm.argmin())
    if gaps_mm[same] < SAME_MM:
        first, second = ordered[same].path, ordered[same + 1].path
        if first == second:
            held = f"{first} holds two images at {z_mm[same]:g} mm, as of two phases or reconstructions"
            raise Fault("duplicate_positions", f"{held}; separate them")
        raise Fault("duplicate_positions", f"{first} and {second} both lie at {z_mm[same]:g} mm; keep one")


def _check_straight(ordered: Sequence[Slice], positions_mm: np.ndarray, normal_lps: np.ndarray) -> None:
    """Checks that slices lie straight above one another; `positions_mm` (slices, 3)."""
    first = ordered[0]
    z_mm = positions_mm @ normal_lps
    drift_mm = positions_mm - np.outer(z_mm, normal_lps)
    per_mm = (drift_mm[-1] - drift_mm[0]) / (z_mm[-1] - z_mm[0])
    beside_mm = drift_mm - drift_mm[0] - np.outer(z_mm - z_mm[0], per_mm)  # A tilt does not explain.
    pixel_mm = max(first.spacing_mm)
    if np.abs(beside_mm).max() > pixel_mm:
        raise Fault("mixed_geometry", f"the slices in {first.path.parent} do not lie above one another")
    degrees = math.degrees(math.atan(np.linalg.norm(per_mm)))
    aside_mm = float(np.ptp(drift_mm, axis=0).max())
    if aside_mm > pixel_mm or (degrees > _LEAST_TILT_DEGREES and aside_mm > _LEAST_TILT_MM):
        raise tilted(degrees, f"the series in {first.path.parent}")


def tilted(degrees: float, where: str) -> Fault:
    """The fault for slices that do not lie straight above one another, by this angle."""
    message = (
        f"{where} is tilted: its slices are stacked {degrees:.2g} degrees off their normal, as with a tilted gantry"
    )
    return Fault("gantry_tilt", f"{message}; correct the tilt by resampling, for example in 3D Slicer")


def _uneven(ordered: Sequence[Slice], z_mm: np.ndarray) -> Fault:
    gaps_mm = np.diff(z_mm)
    median_mm = float(np.median(gaps_mm))
    worst = int(np.abs(gaps_mm - median_mm).argmax())
    where = f"{gaps_mm[worst]:g} mm after {ordered[worst].path} at {z_mm[worst]:g} mm"
    return Fault("uneven_spacing", f"slices lie {median_mm:g} mm apart but {where}")
