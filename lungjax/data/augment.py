"""Windowing and augmentation on the device: pure functions of a key and one slice, mapped over a batch."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal, get_args

import jax
import jax.numpy as jnp

from lungjax.data import distort

Intensity = Literal["hu", "unit", "fraction", "zscore"]
"""Hounsfield units; or, where the source lost them, 0 to 255, 0 to 1, or deviations from the slice's mean."""
WindowHu = tuple[float | jax.Array, float | jax.Array]

LUNG_WINDOW_HU: WindowHu = (-600.0, 1500.0)
"""Centre and width of the radiologists' lung window."""

_DEVIATIONS = 3.0
"""z-scores are clipped this many standard deviations either way; a slice's air and tissue lie within."""


def intensity_to_unit(image: jax.Array, *, intensity: Intensity, window_hu: WindowHu = LUNG_WINDOW_HU) -> jax.Array:
    """Stored values -> float32 in [0, 1], any shape.

    Args:
      image: int16 HU, or uint8 or float32 where the source lost HU.
      intensity: `hu`: clipped to the window; `unit`: divided by 255; `fraction`: clipped to [0, 1]; `zscore`: three
        standard deviations either way fill [0, 1].
      window_hu: centre and width of the window, for `hu` only.

    Raises:
      ValueError: unknown intensity.
    """
    values = image.astype(jnp.float32)
    if intensity == "unit":
        return values / 255.0
    if intensity == "fraction":
        return jnp.clip(values, 0.0, 1.0)
    if intensity == "zscore":
        return jnp.clip(values / (2 * _DEVIATIONS) + 0.5, 0.0, 1.0)
    if intensity != "hu":
        raise ValueError(f"intensity is {intensity!r}; use one of {get_args(Intensity)}.")
    centre, width = window_hu
    return jnp.clip((values - centre) / width + 0.5, 0.0, 1.0)


def make_views(**strengths) -> Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    """Two views of each slice of a batch; the keyword arguments are those of `simclr_view`.

    Returns:
      (key, images (batch, height, width)) -> two float32 arrays of that shape. A slice's views depend on the
      key and its place in the batch, not on how the batch is split over devices.
    """
    view = functools.partial(simclr_view, **strengths)
    view_pairs = jax.vmap(jax.vmap(view, in_axes=(0, None)))

    def views(key: jax.Array, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        pairs = view_pairs(jax.random.split(key, (images.shape[0], 2)), images)  # (batch, 2, height, width)
        return pairs[:, 0], pairs[:, 1]

    return views


def make_segment(**strengths) -> Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    """A batch for segmentation; the keyword arguments are those of `segment`.

    Returns:
      (key, images, readers), both (batch, height, width) -> (float32 images, uint8 readers).
    """
    one = jax.vmap(functools.partial(segment, **strengths))

    def batch(key: jax.Array, images: jax.Array, readers: jax.Array) -> tuple[jax.Array, jax.Array]:
        return one(jax.random.split(key, images.shape[0]), images, readers)

    return batch


def simclr_view(
    key: jax.Array,
    image: jax.Array,
    *,
    intensity: Intensity,
    window_hu: WindowHu = LUNG_WINDOW_HU,
    area: tuple[float, float] = (0.3, 1.0),
    aspect: float = 4 / 3,
    rotation_deg: float = 180.0,
    intensity_jitter: float = 0.3,
    blur_px: float = 1.0,
    noise: float = 0.03,
    cutout: float = 0.25,
) -> jax.Array:
    """One random view of a slice: crop, flips, rotation in one resampling; intensity, blur, noise, cutout.

    Args:
      key: its only source of chance.
      image: (height, width), int16, uint8 or float32.
      intensity, window_hu: as for `intensity_to_unit`.
      area: least and greatest share of the image that the crop covers; it is resized to the whole.
      aspect: the crop's sides are stretched against each other by up to this ratio, either way.
      rotation_deg: greatest angle, either way; beyond the border the image is mirrored.
      intensity_jitter: see `jitter_to_unit`.
      blur_px: greatest sigma of a Gaussian blur, which half of the views get.
      noise: greatest standard deviation of white noise, in units of the window.
      cutout: greatest side of a blanked square, as a share of the image's shorter side.

    Returns:
      float32 (height, width) in [0, 1].
    """
    crop_key, flip_key, angle_key, jitter_key, blur_key, noise_key, cutout_key = jax.random.split(key, 7)
    scale, shift_px = distort.random_crop(crop_key, image.shape, area=area, aspect=aspect)
    matrix = distort.rotation(angle_key, rotation_deg) @ jnp.diag(scale * distort.signs(flip_key))
    resampled = distort.resample(image, matrix, shift_px, order=1)
    unit = jitter_to_unit(jitter_key, resampled, intensity=intensity, window_hu=window_hu, strength=intensity_jitter)
    unit = distort.add_noise(noise_key, distort.random_blur(blur_key, unit, sigma_px=blur_px), noise)
    return distort.random_cutout(cutout_key, unit, cutout)


def segment(
    key: jax.Array,
    image: jax.Array,
    readers: jax.Array,
    *,
    intensity: Intensity,
    window_hu: WindowHu = LUNG_WINDOW_HU,
    rotation_deg: float = 20.0,
    zoom: float = 0.15,
    shift: float = 0.05,
    intensity_jitter: float = 0.15,
    noise: float = 0.02,
) -> tuple[jax.Array, jax.Array]:
    """A random version of a slice and its masks, moved together: flips, quarter turns, a little more.

    Args:
      key: its only source of chance.
      image: (height, width), int16, uint8 or float32; bilinear.
      readers: uint8 (height, width), one bit a reader; nearest neighbour.
      intensity, window_hu: as for `intensity_to_unit`.
      rotation_deg: greatest angle, either way, beside the quarter turns, which only square images get.
      zoom: greatest natural logarithm of the scale, either way.
      shift: greatest displacement in each direction, as a share of the image's side.
      intensity_jitter, noise: as for `simclr_view`.

    Returns:
      (float32 (height, width) in [0, 1], uint8 (height, width)).
    """
    turn_key, angle_key, flip_key, zoom_key, shift_key, jitter_key, noise_key = jax.random.split(key, 7)
    matrix = distort.rotation(angle_key, rotation_deg) @ jnp.diag(distort.signs(flip_key))
    if image.shape[0] == image.shape[1]:
        matrix = jnp.where(jax.random.bernoulli(turn_key), matrix, matrix[:, ::-1])  # A transposition.
    matrix = matrix * jnp.exp(jax.random.uniform(zoom_key, (), jnp.float32, -zoom, zoom))
    sides_px = jnp.array(image.shape, jnp.float32)
    shift_px = jax.random.uniform(shift_key, (2,), jnp.float32, -shift, shift) * sides_px

    resampled = distort.resample(image, matrix, shift_px, order=1)
    unit = jitter_to_unit(jitter_key, resampled, intensity=intensity, window_hu=window_hu, strength=intensity_jitter)
    moved = distort.resample(readers, matrix, shift_px, order=0).astype(jnp.uint8)
    return distort.add_noise(noise_key, unit, noise), moved


def jitter_to_unit(
    key: jax.Array, image: jax.Array, *, intensity: Intensity, window_hu: WindowHu, strength: float
) -> jax.Array:
    """`intensity_to_unit` with a random window; random gamma, contrast, brightness where HU are lost.

    Args:
      key: its only source of chance.
      image: values in the units of the source, any float or integer type.
      intensity, window_hu: as for `intensity_to_unit`.
      strength: greatest natural logarithm of the window's width, or of gamma and contrast; and greatest shift
        of its centre, or of the brightness, as a share of half the width.
    """
    log_width, centre, log_gamma = jax.random.uniform(key, (3,), jnp.float32, -strength, strength)
    if intensity == "hu":
        level_hu, width_hu = window_hu
        window = (level_hu + centre * width_hu / 2, width_hu * jnp.exp(log_width))
        return intensity_to_unit(image, intensity=intensity, window_hu=window)
    unit = intensity_to_unit(image, intensity=intensity) ** jnp.exp(log_gamma)
    return jnp.clip((unit - 0.5 - centre / 2) * jnp.exp(-log_width) + 0.5, 0.0, 1.0)
