"""Augmentation on the device: pure functions of a key and one slice, mapped over the batch.

Geometry is one bilinear resample of the raw values, so that nothing is interpolated twice; HU are windowed after it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

WINDOW_HU = (-600.0, 1500.0)
"""Centre and width of the usual lung window."""
BLUR_TAPS = 3
"""Pixels to each side that the blur looks at."""


def intensity_to_unit(image: jax.Array, *, intensity: str, window_hu: tuple[float, float] = WINDOW_HU) -> jax.Array:
    """Raw values as the networks see them, without augmentation.

    Args:
      image: any shape; int16 HU, or uint8 for `unit`.
      intensity: `hu` or `unit`, the data set's.
      window_hu: centre and width that map to [0, 1]; unused for `unit`.

    Returns:
      float32 in [0, 1], the same shape. Padding, far below air, becomes 0 as air does.
    """
    values = image.astype(jnp.float32)
    if intensity == "unit":
        return values / 255.0
    centre, width = window_hu
    return jnp.clip((values - (centre - width / 2)) / width, 0.0, 1.0)


def make_views(
    *,
    intensity: str,
    window_hu: tuple[float, float] = WINDOW_HU,
    area: tuple[float, float] = (0.3, 1.0),
    rotation_deg: float = 30.0,
    intensity_jitter: float = 0.3,
    blur_px: float = 1.0,
    noise: float = 0.03,
    cutout: float = 0.25,
) -> Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    """SimCLR's two views (Chen et al. 2020), for CT.

    Args:
      intensity, window_hu: see `intensity_to_unit`.
      area: smallest and largest share of the slice that the random resized crop keeps.
      rotation_deg: largest rotation to either side; flips come on top.
      intensity_jitter: strength of window and level jitter for HU, of gamma and contrast jitter for `unit`.
      blur_px: largest standard deviation of a Gaussian blur, given to half of the views.
      noise: largest standard deviation of Gaussian noise, in units of the window.
      cutout: side of the erased square as a share of the slice's, in half of the views.

    Returns:
      (key, image (batch, height, width) raw) -> two arrays (batch, height, width) float32 in [0, 1].
    """

    def view(key: jax.Array, image: jax.Array) -> jax.Array:
        keys = jax.random.split(key, 5)
        matrix = _crop_matrix(keys[0], area, rotation_deg)
        x = _bilinear(image.astype(jnp.float32), _grid(image.shape, matrix, keys[0], area))
        x = _jitter(keys[1], x, intensity, window_hu, intensity_jitter)
        x = _blur(keys[2], x, blur_px)
        x = _noise(keys[3], x, noise)
        return _cutout(keys[4], x, cutout)

    def views(key: jax.Array, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        keys = jax.random.split(key, (2, images.shape[0]))
        both = jax.vmap(jax.vmap(view), in_axes=(0, None))(keys, images)
        return both[0], both[1]

    return views


def make_segment(
    *,
    intensity: str,
    window_hu: tuple[float, float] = WINDOW_HU,
    rotation_deg: float = 20.0,
    zoom: float = 0.15,
    intensity_jitter: float = 0.15,
    noise: float = 0.02,
) -> Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    """Augmentation for segmentation: image and readers' masks move together.

    Args:
      intensity, window_hu, intensity_jitter, noise: see `make_views`.
      rotation_deg: largest rotation to either side; flips and quarter turns come on top.
      zoom: largest relative change of scale to either side.

    Returns:
      (key, image (batch, height, width) raw, readers (batch, height, width) uint8 bits) -> (image float32 in
      [0, 1], readers uint8). Masks are resampled by nearest neighbour, the image bilinearly.
    """

    def one(key: jax.Array, image: jax.Array, readers: jax.Array) -> tuple[jax.Array, jax.Array]:
        keys = jax.random.split(key, 4)
        matrix = _turn_matrix(keys[0], rotation_deg, zoom)
        rows, columns = _grid(image.shape, matrix)
        x = _bilinear(image.astype(jnp.float32), (rows, columns))
        x = _jitter(keys[1], x, intensity, window_hu, intensity_jitter)
        x = _noise(keys[2], x, noise)
        return x, _nearest(readers, (rows, columns))

    def augmented(key: jax.Array, images: jax.Array, readers: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jax.vmap(one)(jax.random.split(key, images.shape[0]), images, readers)

    return augmented


def _rotation(angle: jax.Array) -> jax.Array:
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return jnp.array([[cos, -sin], [sin, cos]])


def _flips(key: jax.Array) -> jax.Array:
    return jnp.diag(jnp.where(jax.random.bernoulli(key, shape=(2,)), -1.0, 1.0))


def _turn_matrix(key: jax.Array, rotation_deg: float, zoom: float) -> jax.Array:
    """Flip, quarter turns, rotation and scale: from output to input, both measured from the centre."""
    flip_key, quarter_key, angle_key, zoom_key = jax.random.split(key, 4)
    quarters = jax.random.randint(quarter_key, (), 0, 4, jnp.int32).astype(jnp.float32) * (jnp.pi / 2)
    angle = quarters + jnp.deg2rad(rotation_deg) * jax.random.uniform(angle_key, minval=-1.0)
    scale = 1.0 + zoom * jax.random.uniform(zoom_key, minval=-1.0)
    return scale * _rotation(angle) @ _flips(flip_key)


def _crop_matrix(key: jax.Array, area: tuple[float, float], rotation_deg: float) -> jax.Array:
    """Flip, rotation and the scale of the crop, with an aspect ratio of 3:4 to 4:3."""
    flip_key, angle_key, _, aspect_key = jax.random.split(key, 4)
    angle = jnp.deg2rad(rotation_deg) * jax.random.uniform(angle_key, minval=-1.0)
    aspect = jnp.exp(jnp.log(4 / 3) / 2 * jax.random.uniform(aspect_key, minval=-1.0))
    side = _crop_side(key, area)
    return _rotation(angle) @ _flips(flip_key) @ jnp.diag(side * jnp.stack([aspect, 1 / aspect]))


def _crop_side(key: jax.Array, area: tuple[float, float]) -> jax.Array:
    return jnp.sqrt(jax.random.uniform(jax.random.fold_in(key, 1), minval=area[0], maxval=area[1]))


def _grid(
    shape: tuple[int, ...], matrix: jax.Array, key: jax.Array | None = None, area: tuple[float, float] = (1.0, 1.0)
) -> tuple[jax.Array, jax.Array]:
    """Where each output pixel lies in the input, (height, width) each; with a key, about a random centre."""
    height, width = shape
    rows = jnp.arange(height, dtype=jnp.float32)[:, None] - (height - 1) / 2
    columns = jnp.arange(width, dtype=jnp.float32)[None, :] - (width - 1) / 2
    centre = jnp.array([(height - 1) / 2, (width - 1) / 2], jnp.float32)
    if key is not None:
        spare = (1.0 - _crop_side(key, area)) / 2
        size = jnp.array([height, width], jnp.float32)
        centre = centre + spare * size * jax.random.uniform(jax.random.fold_in(key, 2), (2,), minval=-1.0)
    return (
        centre[0] + matrix[0, 0] * rows + matrix[0, 1] * columns,
        centre[1] + matrix[1, 0] * rows + matrix[1, 1] * columns,
    )


def _bilinear(image: jax.Array, grid: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Values at fractional positions; beyond the border the border's own value goes on."""
    height, width = image.shape
    rows = jnp.clip(grid[0], 0.0, height - 1.0)
    columns = jnp.clip(grid[1], 0.0, width - 1.0)
    row, column = jnp.floor(rows).astype(jnp.int32), jnp.floor(columns).astype(jnp.int32)
    down, right = rows - row.astype(jnp.float32), columns - column.astype(jnp.float32)
    below, beside = jnp.minimum(row + 1, height - 1), jnp.minimum(column + 1, width - 1)
    flat = image.ravel()

    def at(r: jax.Array, c: jax.Array) -> jax.Array:
        return jnp.take(flat, r * width + c, mode="clip")

    top = at(row, column) * (1 - right) + at(row, beside) * right
    bottom = at(below, column) * (1 - right) + at(below, beside) * right
    return top * (1 - down) + bottom * down


def _nearest(image: jax.Array, grid: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Values of the nearest pixels; beyond the border 0: no reader marked anything there."""
    height, width = image.shape
    row, column = jnp.round(grid[0]).astype(jnp.int32), jnp.round(grid[1]).astype(jnp.int32)
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    values = jnp.take(image.ravel(), row * width + column, mode="clip")
    return jnp.where(inside, values, jnp.zeros((), image.dtype))


def _jitter(
    key: jax.Array, x: jax.Array, intensity: str, window_hu: tuple[float, float], strength: float
) -> jax.Array:
    """Raw values to [0, 1] through a jittered window (`hu`), or jittered gamma and contrast (`unit`)."""
    level_key, width_key = jax.random.split(key)
    level = strength * jax.random.uniform(level_key, minval=-1.0)
    scale = jnp.exp(strength * jax.random.uniform(width_key, minval=-1.0))
    if intensity == "hu":
        centre, width = window_hu
        low = centre + level * width / 4 - scale * width / 2
        return jnp.clip((x - low) / (scale * width), 0.0, 1.0)
    bright = jnp.power(jnp.clip(x / 255.0, 0.0, 1.0) + 1e-6, jnp.exp(level))
    return jnp.clip(0.5 + (bright - 0.5) * scale, 0.0, 1.0)


def _blur(key: jax.Array, x: jax.Array, blur_px: float) -> jax.Array:
    """Gaussian blur of a random width, in half of the cases."""
    width_key, chance_key = jax.random.split(key)
    sigma = jax.random.uniform(width_key, minval=0.1, maxval=max(blur_px, 0.11))
    sigma = jnp.where(jax.random.bernoulli(chance_key), sigma, 0.1)  # 0.1 px weighs neighbours by e^-50: no blur.
    offsets = jnp.arange(-BLUR_TAPS, BLUR_TAPS + 1, dtype=jnp.float32)
    weights = jnp.exp(-0.5 * (offsets / sigma) ** 2)
    weights = weights / weights.sum()
    for axis in (0, 1):
        size = x.shape[axis]
        widths = [(BLUR_TAPS, BLUR_TAPS) if a == axis else (0, 0) for a in (0, 1)]
        padded = jnp.pad(x, widths, mode="edge")
        x = sum(
            (weights[i] * jax.lax.slice_in_dim(padded, i, i + size, axis=axis) for i in range(len(offsets))),
            start=jnp.zeros_like(x),
        )
    return x


def _noise(key: jax.Array, x: jax.Array, noise: float) -> jax.Array:
    strength_key, noise_key = jax.random.split(key)
    strength = noise * jax.random.uniform(strength_key)
    return jnp.clip(x + strength * jax.random.normal(noise_key, x.shape), 0.0, 1.0)


def _cutout(key: jax.Array, x: jax.Array, cutout: float) -> jax.Array:
    """Fills a square somewhere with the slice's mean, in half of the cases."""
    centre_key, chance_key = jax.random.split(key)
    height, width = x.shape
    centre = jax.random.uniform(centre_key, (2,))
    rows = jnp.abs(jnp.arange(height, dtype=jnp.float32)[:, None] / height - centre[0]) < cutout / 2
    columns = jnp.abs(jnp.arange(width, dtype=jnp.float32)[None, :] / width - centre[1]) < cutout / 2
    erased = rows & columns & jax.random.bernoulli(chance_key)
    return jnp.where(erased, x.mean(), x)
