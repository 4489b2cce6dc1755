"""A phantom's chest twice: as drawn, and turned, shifted, breathed out and resampled, with nodules that changed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from lungjax.ct import hounsfield
from lungjax.ct.scan import Scan
from lungjax.preparation.phantom import anatomy, image, vessels

MATRIX, FIELD_MM, SLICES, SLICE_MM = 256, 330.0, 150, 2.0
"""Of the first scan."""
LATER_MATRIX, LATER_FIELD_MM, LATER_SLICES, LATER_SLICE_MM = 256, 370.0, 118, 2.5
"""Of the second."""
NODULE_HU = 40.0


@dataclasses.dataclass(frozen=True)
class Ball:
    """A round nodule.

    Attributes:
      centre_mm: (x, y, z) in the first scan.
      diameters_mm: in the first scan and in the second; 0 where it is not there.
    """

    centre_mm: tuple[float, float, float]
    diameters_mm: tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Motion:
    """Where a point of the first scan lies in the second.

    Attributes:
      turn_degrees: about x, y and z.
      shift_mm: (x, y, z).
      breath_mm: how far the diaphragm rises; the apex stays.
      narrower: share by which the chest gets shallower, from front to back.
      span_mm: (diaphragm z, apex z) of the first scan.
    """

    turn_degrees: tuple[float, float, float] = (3.0, -2.0, 5.0)
    shift_mm: tuple[float, float, float] = (18.0, -32.0, 41.0)
    breath_mm: float = 18.0
    narrower: float = 0.03
    span_mm: tuple[float, float] = (20.0, 270.0)

    def back(self, points_mm: np.ndarray) -> np.ndarray:
        """(..., 3) points of the second scan, in the first."""
        centre_mm = np.array([0.0, 0.0, np.mean(self.span_mm)])
        points = (points_mm - self.shift_mm - centre_mm) @ self._turn() + centre_mm
        low, high = self.span_mm
        depth = np.clip((high - points[..., 2]) / (high - low), 0, None)
        points[..., 2] -= self.breath_mm * depth**2
        points[..., 1] *= 1 + self.narrower
        return points

    def forth(self, points_mm: np.ndarray) -> np.ndarray:
        """(..., 3) points of the first scan, in the second: the inverse of `back`, to a thousandth of a mm."""
        centre_mm = np.array([0.0, 0.0, np.mean(self.span_mm)])
        at = (points_mm - centre_mm) @ self._turn().T + centre_mm + self.shift_mm
        for _ in range(60):
            at = at + (points_mm - self.back(at)) @ self._turn().T
        assert (np.abs(points_mm - self.back(at)) < 1e-3).all()
        return at

    def _turn(self) -> np.ndarray:
        x, y, z = np.radians(self.turn_degrees)
        about_x = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
        about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
        about_z = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
        return about_z @ about_y @ about_x


@dataclasses.dataclass(frozen=True, eq=False)
class Pair:
    """Two scans of a chest.

    Attributes:
      scans: the first and the second.
      masks: uint8 of their shapes: the number of a ball, from 1 in the order they were given.
      centres_mm: (2, balls, 3), where each ball lies, or would lie, in either scan.
    """

    scans: tuple[Scan, Scan]
    masks: tuple[np.ndarray, np.ndarray]
    centres_mm: np.ndarray


def affine_lps(matrix: int, field_mm: float, slice_mm: float) -> np.ndarray:
    """Of a scan whose columns and rows are centred on 0."""
    pixel_mm = field_mm / matrix
    affine = np.diag([pixel_mm, pixel_mm, slice_mm, 1.0])
    affine[:2, 3] = -(matrix - 1) / 2 * pixel_mm
    return affine


def drawn(balls: Sequence[Ball], motion: Motion | None = None, *, seed: int = 0) -> Pair:
    """Both scans."""
    motion = Motion() if motion is None else motion
    rng = np.random.default_rng(seed)
    first_affine = affine_lps(MATRIX, FIELD_MM, SLICE_MM)
    background = _background(rng)
    second_affine = affine_lps(LATER_MATRIX, LATER_FIELD_MM, LATER_SLICE_MM)
    second_affine[:3, 3] += motion.shift_mm  # Around the patient, as a technician would place it.
    later = moved(background, first_affine, motion, (LATER_SLICES, LATER_MATRIX, LATER_MATRIX), second_affine)
    centres_mm = np.array([ball.centre_mm for ball in balls], np.float64).reshape(-1, 3)
    both_mm = np.stack([centres_mm, motion.forth(centres_mm)])
    scans, masks = [], []
    for number, (hu, affine) in enumerate(((background, first_affine), (later, second_affine))):
        mask = np.zeros(hu.shape, np.uint8)
        for index, ball in enumerate(balls):
            _paint(hu, mask, affine, both_mm[number, index], ball.diameters_mm[number] / 2, index + 1)
        noise = image.Noise(rng, hu.shape[1], affine[0, 0])
        for plane in hu:
            plane += noise.draw(rng)
        scans.append(scan(hu, affine, name=f"{number + 1}"))
        masks.append(mask)
    return Pair((scans[0], scans[1]), (masks[0], masks[1]), both_mm)


def scan(hu: np.ndarray, affine: np.ndarray, *, name: str, patient_id: str = "TEST-1") -> Scan:
    """A scan of HU (slices, rows, columns) where `affine` places it."""
    voxels = np.rint(np.clip(hu, -1024, 3071)).astype(np.int16)
    steps_mm = np.linalg.norm(affine[:3, :3], axis=0)[::-1]
    return Scan(
        patient_id=patient_id,
        study_uid=f"1.2.{name}",
        series_uid=f"1.2.3.{name}",
        voxels=voxels,
        intensity="hu",
        z_mm=affine[2, 3] + steps_mm[0] * np.arange(len(voxels)),
        spacing_mm=(float(steps_mm[0]), float(steps_mm[1]), float(steps_mm[2])),
        sop_uids=("",) * len(voxels),
        padding_hu=hounsfield.padding(voxels, None),
        nodules=(),
        affine_lps=affine,
        source=f"scan {name}",
    )


def _background(rng: np.random.Generator) -> np.ndarray:
    """float32 HU of a chest without nodules and noise."""
    z_mm = SLICE_MM * np.arange(SLICES)
    chest = anatomy.place(rng, field_of_view_mm=FIELD_MM, z_mm=z_mm, nodules_mm=np.zeros((0, 6)))
    tree, texture = vessels.grow(chest, rng), image.Texture(rng, MATRIX)
    planes = []
    for z in z_mm.tolist():
        hu, lung = image._tissue(chest, texture, z, MATRIX, FIELD_MM)
        planes.append(hu + tree.cover(hu.shape, FIELD_MM / MATRIX, z, SLICE_MM) * lung * (40.0 - hu))
    return np.stack(planes).astype(np.float32)


def moved(
    hu: np.ndarray, affine: np.ndarray, motion: Motion, shape: tuple[int, int, int], second_affine: np.ndarray
) -> np.ndarray:
    """The first scan's HU as a second scan of that shape and place sees them; air beyond the first one's sides."""
    later = np.empty(shape, np.float32)
    rows, columns = np.mgrid[: shape[1], : shape[2]]
    inverse = np.linalg.inv(affine)
    for number, plane in enumerate(later):
        index = np.stack([columns, rows, np.full_like(rows, number)], axis=-1)
        first_mm = motion.back(index @ second_affine[:3, :3].T + second_affine[:3, 3])
        at = first_mm @ inverse[:3, :3].T + inverse[:3, 3]
        coordinates = np.moveaxis(at[..., ::-1], -1, 0)
        plane[:] = ndimage.map_coordinates(hu, coordinates, order=1, mode="nearest")
        plane[np.any((at[..., :2] < 0) | (at[..., :2] > np.array(hu.shape[:0:-1]) - 1), axis=-1)] = -1000
    return later


def _paint(hu: np.ndarray, mask: np.ndarray, affine: np.ndarray, centre_mm: np.ndarray, radius_mm: float, number: int):
    """A ball with partial volume: each voxel takes the share of the ball in it; more than half makes the mask."""
    if not radius_mm:
        return
    spacing_mm = np.diag(affine)[2::-1]
    centre = ((centre_mm - affine[:3, 3]) / np.diag(affine)[:3])[::-1]
    low = np.floor(centre - radius_mm / spacing_mm - 1).astype(int)
    size = np.ceil(2 * radius_mm / spacing_mm + 3).astype(int)
    fine = 5
    steps = [(np.arange(count * fine) + 0.5) / fine - 0.5 for count in size]
    away = [(low[n] + steps[n] - centre[n]) * spacing_mm[n] for n in range(3)]
    inside = away[0][:, None, None] ** 2 + away[1][:, None] ** 2 + away[2] ** 2 < radius_mm**2
    cover = inside.reshape(size[0], fine, size[1], fine, size[2], fine).mean(axis=(1, 3, 5))
    box = tuple(slice(start, start + count) for start, count in zip(low, size, strict=True))
    hu[box] += cover * (NODULE_HU - hu[box])
    mask[box][cover > 0.5] = number
