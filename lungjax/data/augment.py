"""Augmentation on the device: pure functions of a key and one slice in HU, mapped over a batch."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from lungjax.ct import windows
from lungjax.ct.scan import Intensity
from lungjax.data import distort
from lungjax.data.intensity import WindowHu, to_hu, window


def make_views(*, intensity: Intensity, **strengths) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """Two views of each slice of a batch; the keyword arguments are those of `simclr_view`.

    Returns:
      (key, images (batch, height, width), partners) -> two float32 arrays of that shape; the second is of the
      partners, as images, unless they are None. A slice's views depend on the key and its place in the batch, not on
      how the batch is split over devices.
    """
    view = functools.partial(simclr_view, **strengths)
    of_one, of_two = (jax.vmap(jax.vmap(view, in_axes=(0, axis))) for axis in (None, 0))

    def views(key: jax.Array, images: jax.Array, partners: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
        keys = jax.random.split(key, (images.shape[0], 2))
        if partners is None:
            pairs = of_one(keys, to_hu(images, intensity=intensity))
        else:
            pairs = of_two(keys, to_hu(jnp.stack([images, partners], axis=1), intensity=intensity))
        return pairs[:, 0], pairs[:, 1]  # of (batch, 2, height, width)

    return views


def make_segment(
    *, intensity: Intensity, **strengths
) -> Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    """A batch for segmentation; the keyword arguments are those of `segment`.

    Returns:
      (key, images, readers), both (batch, height, width) -> (float32 images, uint8 readers).
    """
    one = jax.vmap(functools.partial(segment, **strengths))

    def batch(key: jax.Array, images: jax.Array, readers: jax.Array) -> tuple[jax.Array, jax.Array]:
        return one(jax.random.split(key, images.shape[0]), to_hu(images, intensity=intensity), readers)

    return batch


def simclr_view(
    key: jax.Array,
    hu: jax.Array,
    *,
    window_hu: WindowHu = windows.LUNG_HU,
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
      hu: (height, width) floats.
      window_hu: centre and width of the window that becomes [0, 1].
      area: least and greatest share of the image that the crop covers; it is resized to the whole.
      aspect: the crop's sides are stretched against each other by up to this ratio, either way.
      rotation_deg: greatest angle, either way; beyond the border the image is mirrored.
      intensity_jitter: see `jittered_window`.
      blur_px: greatest sigma of a Gaussian blur, which half of the views get.
      noise: greatest standard deviation of white noise, in units of the window.
      cutout: greatest side of a blanked square, as a share of the image's shorter side.

    Returns:
      float32 (height, width) in [0, 1].
    """
    crop_key, flip_key, angle_key, jitter_key, blur_key, noise_key, cutout_key = jax.random.split(key, 7)
    scale, shift_px = distort.random_crop(crop_key, hu.shape, area=area, aspect=aspect)
    matrix = distort.rotation(angle_key, rotation_deg) @ jnp.diag(scale * distort.signs(flip_key))
    resampled = distort.resample(hu, matrix, shift_px, order=1)
    unit = jittered_window(jitter_key, resampled, window_hu=window_hu, strength=intensity_jitter)
    unit = distort.add_noise(noise_key, distort.random_blur(blur_key, unit, sigma_px=blur_px), noise)
    return distort.random_cutout(cutout_key, unit, cutout)


def segment(
    key: jax.Array,
    hu: jax.Array,
    readers: jax.Array,
    *,
    window_hu: WindowHu = windows.LUNG_HU,
    rotation_deg: float = 20.0,
    zoom: float = 0.15,
    shift: float = 0.05,
    intensity_jitter: float = 0.15,
    noise: float = 0.02,
) -> tuple[jax.Array, jax.Array]:
    """A random version of a slice and its masks, moved together: flips, quarter turns, a little more.

    Args:
      key: its only source of chance.
      hu: (height, width) floats; bilinear.
      readers: uint8 (height, width), one bit a reader; nearest neighbour.
      window_hu: as for `simclr_view`.
      rotation_deg: greatest angle, either way, beside the quarter turns, which only square images get.
      zoom: greatest natural logarithm of the scale, either way.
      shift: greatest displacement in each direction, as a share of the image's side.
      intensity_jitter, noise: as for `simclr_view`.

    Returns:
      (float32 (height, width) in [0, 1], uint8 (height, width)).
    """
    turn_key, angle_key, flip_key, zoom_key, shift_key, jitter_key, noise_key = jax.random.split(key, 7)
    matrix = distort.rotation(angle_key, rotation_deg) @ jnp.diag(distort.signs(flip_key))
    if hu.shape[0] == hu.shape[1]:
        matrix = jnp.where(jax.random.bernoulli(turn_key), matrix, matrix[:, ::-1])  # A transposition.
    matrix = matrix * jnp.exp(jax.random.uniform(zoom_key, (), jnp.float32, -zoom, zoom))
    sides_px = jnp.array(hu.shape, jnp.float32)
    shift_px = jax.random.uniform(shift_key, (2,), jnp.float32, -shift, shift) * sides_px

    resampled = distort.resample(hu, matrix, shift_px, order=1)
    unit = jittered_window(jitter_key, resampled, window_hu=window_hu, strength=intensity_jitter)
    moved = distort.resample(readers, matrix, shift_px, order=0).astype(jnp.uint8)
    return distort.add_noise(noise_key, unit, noise), moved


def nodule(
    key: jax.Array,
    hu: jax.Array,
    marked: jax.Array,
    spacing_mm: jax.Array,
    *,
    side_px: int,
    pixel_mm: float,
    zoom: float = 0.1,
    shift_mm: float = 0.65,
    offset_hu: float = 15.0,
    noise_hu: float = 28.0,
) -> tuple[jax.Array, jax.Array]:
    """A random version of a nodule's patch and of what readers marked in it, in pixels of one size.

    Args:
      key: its only source of chance.
      hu: (height, width) floats.
      marked: (height, width) in [0, 1], for instance the share of the readers who marked each pixel.
      spacing_mm: between the patch's pixel centres.
      side_px, pixel_mm: of what is made of it, a square.
      zoom: greatest natural logarithm of the scale, either way: size is most of what a nodule tells, so little.
      shift_mm: greatest displacement in each direction.
      offset_hu: standard deviation of what is added to the whole patch.
      noise_hu: greatest standard deviation of white noise.

    Returns:
      (float32 HU (side_px, side_px), float32 in [0, 1] of that shape): turned by any angle, flipped or not.
    """
    angle_key, flip_key, zoom_key, shift_key, offset_key, strength_key, noise_key = jax.random.split(key, 7)
    matrix = distort.rotation(angle_key, 180.0) @ jnp.diag(distort.signs(flip_key))
    scale = pixel_mm / spacing_mm
    matrix = matrix * scale * jnp.exp(jax.random.uniform(zoom_key, (), jnp.float32, -zoom, zoom))
    shift_px = jax.random.uniform(shift_key, (2,), jnp.float32, -shift_mm, shift_mm) / spacing_mm
    moved = distort.resample(hu, matrix, shift_px, order=1, side_px=side_px)
    moved = moved + offset_hu * jax.random.normal(offset_key, (), jnp.float32)
    strength_hu = jax.random.uniform(strength_key, (), jnp.float32, 0.0, noise_hu)
    moved = moved + strength_hu * jax.random.normal(noise_key, moved.shape, jnp.float32)
    return moved, distort.resample(marked, matrix, shift_px, order=1, side_px=side_px)


def jittered_window(key: jax.Array, hu: jax.Array, *, window_hu: WindowHu, strength: float) -> jax.Array:
    """HU -> [0, 1] by a random window.

    Args:
      key: its only source of chance.
      hu: floats of any shape.
      window_hu: centre and width of the window that is changed.
      strength: greatest natural logarithm of the change of its width; and greatest shift of its centre, as a share
        of half the width.
    """
    log_width, centre = jax.random.uniform(key, (2,), jnp.float32, -strength, strength)
    level_hu, width_hu = window_hu
    return window(hu, (level_hu + centre * width_hu / 2, width_hu * jnp.exp(log_width)))
