"""One phantom scan as slices of HU: body, lungs, vessels, nodules, noise."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import ndimage

from lungjax.ct.scan import Nodule
from lungjax.lidc import annotations
from lungjax.lidc.annotations import ScanRow
from lungjax.preparation.phantom import anatomy, body, lesions, vessels

_BODY_MATRIX = 256
"""The body is smooth: at most this many pixels a side are drawn, then enlarged; lungs' edges stay sharp."""
_NOISE_MM = 0.76
"""Sigma of the Gaussian that gives white noise the autocorrelation measured in LIDC-IDRI-0003: 0.75, 0.32,
0.08 at 1, 2, 3 pixels of 0.82 mm."""
_BLUR_MM = 0.5
"""Sigma of the scanner's point spread, on top of edges that are a pixel wide already."""
_TILE = 1.5
_TILES = 6


def slices(row: ScanRow, *, matrix: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """HU of a phantom scan's slices, lowest first; float32 (matrix, matrix), not yet rounded.

    Args:
      row: whose nodules, positions and field of view.
      matrix: rows and columns, a divisor of 512; the field of view is the scan's at any matrix.
      rng: the only source of chance.
    """
    nodules = annotations.nodules(row)
    spacing_mm = (_slice_spacing_mm(row), row.pixel_spacing_mm, row.pixel_spacing_mm)
    field_mm = row.pixel_spacing_mm * annotations.MATRIX
    extents = np.array([_extent_mm(nodule, row) for nodule in nodules]).reshape(-1, 6)
    chest = anatomy.place(rng, field_of_view_mm=field_mm, z_mm=row.z_mm, nodules_mm=extents)
    tree = vessels.grow(chest, rng)
    painted = [lesions.paint(nodule, spacing_mm, matrix) for nodule in nodules]
    texture, noise = Texture(rng, min(matrix, _BODY_MATRIX)), Noise(rng, matrix, field_mm / matrix)
    blur_px = _BLUR_MM * matrix / field_mm
    for k, z_mm in enumerate(row.z_mm.tolist()):
        hu, lung = _tissue(chest, texture, z_mm, matrix, field_mm)
        cover = tree.cover(hu.shape, field_mm / matrix, z_mm, row.slice_thickness_mm)
        hu += cover * lung * (40.0 - hu)
        for lesion in painted:
            lesion.paint(hu, k)
        if blur_px > 0.3:  # Larger pixels are blurred already, by the mean over their area.
            hu = ndimage.gaussian_filter(hu, blur_px, truncate=2.5)
        hu += noise.draw(rng)
        yield hu


def _tissue(chest: anatomy.Chest, texture: Texture, z_mm: float, matrix: int, field_mm: float):
    """Body with its lungs, HU, and how much of each pixel is lung; both float32 (matrix, matrix)."""
    coarse = min(matrix, _BODY_MATRIX)
    x = _centres_mm(coarse, field_mm)[None, :]
    y = x.T
    soft = body.section(chest, x, y, z_mm)
    distance = chest.lung_distance_mm(x, y, z_mm)
    parenchyma = texture.at(z_mm) + 0.35 * (y - chest.centre_mm[1])  # Blood sinks to the back.
    while coarse < matrix:
        soft, distance, parenchyma = double(soft), double(distance), double(parenchyma)
        coarse *= 2
    lung = np.clip(0.5 - distance * (matrix / field_mm), 0, 1)
    soft += lung * (parenchyma - soft)
    return soft, lung


def _centres_mm(matrix: int, field_mm: float) -> np.ndarray:
    """Pixel centres along one axis, from the centre of the image; float32."""
    return ((np.arange(matrix) - (matrix - 1) / 2) * (field_mm / matrix)).astype(np.float32)


def double(image: np.ndarray) -> np.ndarray:
    """Twice the rows and columns, linear between pixel centres; elementwise, so the same on any machine."""
    for axis in (0, 1):
        image = image.swapaxes(0, axis)
        padded = np.concatenate([image[:1], image, image[-1:]])
        doubled = np.empty((2 * len(image), image.shape[1]), image.dtype)
        doubled[0::2] = 0.75 * image + 0.25 * padded[:-2]
        doubled[1::2] = 0.75 * image + 0.25 * padded[2:]
        image = doubled.swapaxes(0, axis)
    return np.ascontiguousarray(image)


def _slice_spacing_mm(row: ScanRow) -> float:
    return float(np.median(np.diff(row.z_mm)))


def _extent_mm(nodule: Nodule, row: ScanRow) -> list[float]:
    """Centre (x, y, z) from the centre of the image and half extents of all readings together."""
    low = np.min([reading.origin for reading in nodule.readings], axis=0)
    high = np.max([np.add(reading.origin, reading.mask.shape) for reading in nodule.readings], axis=0)
    first, last = (
        index * row.pixel_spacing_mm for index in (low - annotations.MATRIX / 2, high - annotations.MATRIX / 2)
    )
    bottom, top = row.z_mm[low[0]], row.z_mm[min(high[0], len(row.z_mm)) - 1]
    centre = ((first[2] + last[2]) / 2, (first[1] + last[1]) / 2, (bottom + top) / 2)
    half = (
        (last[2] - first[2]) / 2,
        (last[1] - first[1]) / 2,
        (top - bottom) / 2 + row.slice_thickness_mm / 2,
    )
    return [float(value) for value in (*centre, *half)]


class Texture:
    """Slow changes of the parenchyma's density, around -865 HU."""

    def __init__(self, rng: np.random.Generator, matrix: int):
        coarse = rng.normal(rng.uniform(-885, -845), 22, size=(24, 12, 12))
        planes = ndimage.zoom(coarse, (1, matrix / 12, matrix / 12), order=1, mode="nearest")
        self._planes = np.asarray(planes, np.float32)

    def at(self, z_mm: float) -> np.ndarray:
        whole, part = divmod(z_mm / 18.0, 1.0)
        first, second = (self._planes[int(whole + step) % len(self._planes)] for step in (0, 1))
        return first + np.float32(part) * (second - first)


class Noise:
    """Correlated noise: random windows of a few large tiles; filtering each slice would cost far more."""

    def __init__(self, rng: np.random.Generator, matrix: int, pixel_mm: float):
        side = int(matrix * _TILE)
        white = rng.standard_normal((_TILES, side, side), np.float32)
        sigma = _NOISE_MM / pixel_mm
        tiles = ndimage.gaussian_filter(white, (0, sigma, sigma), mode="wrap")
        strength_hu = rng.uniform(18, 32)
        self._tiles = (tiles * (strength_hu / tiles.std())).astype(np.float32)
        self._matrix = matrix

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        tile = self._tiles[rng.integers(_TILES)]
        row, column = rng.integers(tile.shape[0] - self._matrix, size=2)
        window = tile[row : row + self._matrix, column : column + self._matrix]
        flip = rng.integers(8)
        window = window[:: -1 if flip & 1 else 1, :: -1 if flip & 2 else 1]
        return window.T if flip & 4 else window
