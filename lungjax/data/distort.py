"""The distortions that `augment` combines: each a pure function of a random key and one image."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

BLUR_SHARE = 0.5
"""Share of the views that are blurred (Chen et al. 2020)."""


class Affine(NamedTuple):
    """Where the pixels of a resampled image lie in the input: that at p, relative to the centre, lies at
    matrix @ p + shift_px.

    Attributes:
      matrix: float32 (..., 2, 2), rows and columns.
      shift_px: float32 (..., 2).
    """

    matrix: jax.Array
    shift_px: jax.Array

    def inverse(self, places_px: jax.Array, shape: tuple[int, int]) -> jax.Array:
        """Where places of the input (places, 2) lie in the image, which has the input's shape; pixels from its corner,
        outside it where it does not show them. Of one image: to be mapped over a batch."""
        middle = (jnp.array(shape, jnp.float32) - 1) / 2
        (a, b), (c, d) = self.matrix
        inverse = jnp.stack([jnp.stack([d, -b]), jnp.stack([-c, a])]) / (a * d - b * c)
        off = places_px - (middle + self.shift_px)[None, :]
        return jnp.matmul(off, inverse.T, precision=jax.lax.Precision.HIGHEST) + middle[None, :]


def random_places(key: jax.Array, shape: tuple[int, int], *, along: int) -> jax.Array:
    """Random places of an image, float32 (along^2, 2) in pixels: one in the middle half of each cell of a grid, so that
    none lies near another."""
    cells = jnp.stack(jnp.meshgrid(*[jnp.arange(along, dtype=jnp.float32)] * 2, indexing="ij"), axis=-1).reshape(-1, 2)
    within = jax.random.uniform(key, cells.shape, jnp.float32, 0.25, 0.75)
    return (cells + within) / along * jnp.array(shape, jnp.float32)[None, :] - 0.5


def random_blocks(key: jax.Array, shape: tuple[int, int], *, side_px: int, share: float) -> jax.Array:
    """bool, of an image's shape: True in a random share of its square blocks; those at the border may be cut off."""
    rows, columns = (-(-size // side_px) for size in shape)
    hidden = round(share * rows * columns)
    chosen = jax.random.permutation(key, jnp.arange(rows * columns) < hidden).reshape(rows, columns)
    return jnp.repeat(jnp.repeat(chosen, side_px, axis=0), side_px, axis=1)[: shape[0], : shape[1]]


def random_crop(
    key: jax.Array, shape: tuple[int, ...], *, area: tuple[float, float], aspect: float
) -> tuple[jax.Array, jax.Array]:
    """A random crop: the scale of rows and columns (2,), and the shift of its centre (2,) px that keeps it inside."""
    area_key, aspect_key, shift_key = jax.random.split(key, 3)
    side = jnp.sqrt(jax.random.uniform(area_key, (), jnp.float32, *area))
    log_aspect = math.log(aspect) / 2
    stretch = jnp.exp(jax.random.uniform(aspect_key, (), jnp.float32, -log_aspect, log_aspect))
    scale = jnp.minimum(jnp.stack([side * stretch, side / stretch]), 1.0)
    room_px = (1.0 - scale) / 2 * (jnp.array(shape, jnp.float32) - 1.0)
    return scale, jax.random.uniform(shift_key, (2,), jnp.float32, -1.0, 1.0) * room_px


def rotation(key: jax.Array, degrees: float) -> jax.Array:
    """(2, 2): the matrix of a random rotation by up to `degrees` in either direction."""
    angle = jnp.deg2rad(jax.random.uniform(key, (), jnp.float32, -degrees, degrees))
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return jnp.stack([jnp.stack([cos, -sin]), jnp.stack([sin, cos])])


def signs(key: jax.Array) -> jax.Array:
    """(2,): -1 or 1 for each axis, a random flip."""
    return jax.random.rademacher(key, (2,), jnp.float32)


def resample(
    image: jax.Array, matrix: jax.Array, shift_px: jax.Array, *, order: int, side_px: int | None = None
) -> jax.Array:
    """Resamples an image: the pixel at p, relative to the centre, is the input's pixel at matrix @ p + shift_px.

    The result is float32, of the input's shape or a square of `side_px`. Bilinear (order 1) or nearest neighbour
    (order 0); beyond its border the image is mirrored.
    """
    height, width = image.shape
    middle = jnp.array([(height - 1) / 2, (width - 1) / 2], jnp.float32)
    down, across = (side_px or size for size in image.shape)
    rows = jnp.arange(down, dtype=jnp.float32)[:, None] - (down - 1) / 2
    columns = jnp.arange(across, dtype=jnp.float32)[None, :] - (across - 1) / 2
    at = [matrix[k, 0] * rows + matrix[k, 1] * columns + (shift_px + middle)[k] for k in range(2)]
    return map_coordinates(image.astype(jnp.float32), at, order=order, mode="mirror")


def resize(patches: jax.Array, spacing_mm: jax.Array, *, side_px: int, pixel_mm: float) -> jax.Array:
    """Patches at one pixel size, without any randomness: float32 (n, side_px, side_px), the middles kept.

    Args:
      patches: (n, height, width) of any dtype.
      spacing_mm: (n,) distance between pixel centres of each.
      side_px, pixel_mm: side and pixel size of the result.
    """
    middle = jnp.zeros(2, jnp.float32)

    def resized(patch: jax.Array, mm: jax.Array) -> jax.Array:
        matrix = jnp.eye(2, dtype=jnp.float32) * (pixel_mm / mm)
        return resample(patch, matrix, middle, order=1, side_px=side_px)

    return jax.vmap(resized)(patches.astype(jnp.float32), spacing_mm)


def random_blur(key: jax.Array, image: jax.Array, *, sigma_px: float) -> jax.Array:
    """Gaussian blur with a random sigma of up to `sigma_px`, or none; pixels at the border are repeated."""
    if sigma_px <= 0:
        return image
    reach = math.ceil(3 * sigma_px)
    chosen_key, sigma_key = jax.random.split(key)
    blurred = jax.random.bernoulli(chosen_key, BLUR_SHARE)
    sigma = jnp.where(blurred, jax.random.uniform(sigma_key, (), jnp.float32, 0.1, sigma_px), 0.01)
    taps = jax.nn.softmax(-0.5 * (jnp.arange(-reach, reach + 1, dtype=jnp.float32) / sigma) ** 2)
    for axis in range(2):
        padded = jnp.pad(image, [(reach, reach) if axis == a else (0, 0) for a in range(2)], mode="edge")
        size = image.shape[axis]
        image = sum(
            (taps[k] * jax.lax.slice_in_dim(padded, k, k + size, axis=axis) for k in range(2 * reach + 1)),
            start=jnp.zeros_like(image),
        )
    return image


def add_noise(key: jax.Array, image: jax.Array, max_std: float) -> jax.Array:
    """Adds white noise with a random standard deviation of up to `max_std`; the result stays in [0, 1]."""
    if max_std <= 0:
        return image
    strength_key, noise_key = jax.random.split(key)
    strength = jax.random.uniform(strength_key, (), jnp.float32, 0.0, max_std)
    white = jax.random.normal(noise_key, (image.size,), jnp.float32).reshape(image.shape)  # Flat compiles faster.
    return jnp.clip(image + strength * white, 0.0, 1.0)


def random_cutout(key: jax.Array, image: jax.Array, max_side: float) -> jax.Array:
    """Sets a square to the image's mean; its side is up to `max_side` of the shorter side (DeVries & Taylor 2017)."""
    if max_side <= 0:
        return image
    side_key, place_key = jax.random.split(key)
    half_px = jax.random.uniform(side_key, (), jnp.float32, 0.0, max_side) * min(image.shape) / 2
    centre_px = jax.random.uniform(place_key, (2,), jnp.float32) * jnp.array(image.shape, jnp.float32)
    inside = [
        jnp.abs(jnp.arange(size, dtype=jnp.float32) + 0.5 - centre_px[axis]) <= half_px
        for axis, size in enumerate(image.shape)
    ]
    return jnp.where(inside[0][:, None] & inside[1][None, :], jnp.mean(image), image)
