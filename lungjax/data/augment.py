"""Augmentation on the device: pure functions of a random key and one slice in HU, mapped over a batch."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from lungjax.ct import windows
from lungjax.ct.scan import Intensity
from lungjax.data import distort
from lungjax.data.intensity import LUNG_HU, WindowHu, to_hu, window


def make_views(*, intensity: Intensity, **strengths) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """Makes a function for two views of each slice of a batch; the keyword arguments are those of `simclr_view`.

    Returns:
      A function (key, images (batch, height, width) or (batch, planes, height, width), partners) -> two float32 arrays
      of that shape. The second view shows the partners, of the same shape as the images, unless they are None. A
      slice's views depend on the key and its place in the batch, not on how the batch is split over devices.
    """
    views_of = make_placed_views(intensity=intensity, **strengths)

    def views(key: jax.Array, images: jax.Array, partners: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
        return views_of(key, images, partners)[0]

    return views


def make_placed_views(
    *, intensity: Intensity, **strengths
) -> Callable[..., tuple[tuple[jax.Array, jax.Array], tuple[distort.Affine, distort.Affine]]]:
    """As `make_views`; the function also returns where each view's pixels lie in its slice, (batch, ...)."""
    view = functools.partial(simclr_view, **strengths)
    views_of_one, views_of_two = (jax.vmap(jax.vmap(view, in_axes=(0, axis))) for axis in (None, 0))

    def views(key: jax.Array, images: jax.Array, partners: jax.Array | None = None) -> Any:
        keys = jax.random.split(key, (images.shape[0], 2))
        if partners is None:
            pairs, maps = views_of_one(keys, to_hu(images, intensity=intensity))
        else:
            pairs, maps = views_of_two(keys, to_hu(jnp.stack([images, partners], axis=1), intensity=intensity))
        first, second = (jax.tree.map(lambda x, of=of: x[:, of], (pairs, maps)) for of in range(2))
        return (first[0], second[0]), (first[1], second[1])

    return views


def make_segment(
    *, intensity: Intensity, **strengths
) -> Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    """Makes the augmentation of a segmentation batch; the keyword arguments are those of `segment`.

    Returns:
      A function (key, images, readers) -> (float32 images, uint8 readers), of these shapes: images (batch, height,
      width) or (batch, planes, height, width), readers (batch, height, width).
    """
    augment_slice = jax.vmap(functools.partial(segment, **strengths))

    def batch(key: jax.Array, images: jax.Array, readers: jax.Array) -> tuple[jax.Array, jax.Array]:
        return augment_slice(jax.random.split(key, images.shape[0]), to_hu(images, intensity=intensity), readers)

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
) -> tuple[jax.Array, distort.Affine]:
    """One random view of a slice: crop, flips and rotation in one resampling, then intensity, blur, noise and cutout.

    Args:
      key: the only source of randomness.
      hu: (height, width) floats; or (planes, height, width), of which all are changed alike, but for the noise.
      window_hu: centre and width of the window that becomes [0, 1].
      area: smallest and largest share of the image that the crop covers; the crop is resized to the full image.
      aspect: largest ratio by which the crop's sides are stretched, in either direction.
      rotation_deg: largest angle, in either direction; beyond the border the image is mirrored.
      intensity_jitter: see `jittered_window`.
      blur_px: largest sigma of a Gaussian blur, which half of the views get.
      noise: largest standard deviation of white noise, in units of the window.
      cutout: largest side of a blanked square, as a share of the image's shorter side.

    Returns:
      float32 in [0, 1], of the shape of `hu`, and where its pixels lie in the slice.
    """
    crop_key, flip_key, angle_key, jitter_key, blur_key, noise_key, cutout_key = jax.random.split(key, 7)
    scale, shift_px = distort.random_crop(crop_key, hu.shape[-2:], area=area, aspect=aspect)
    matrix = distort.rotation(angle_key, rotation_deg) @ jnp.diag(scale * distort.signs(flip_key))
    resampled = each_plane(lambda plane: distort.resample(plane, matrix, shift_px, order=1), hu)
    unit = jittered_window(jitter_key, resampled, window_hu=window_hu, strength=intensity_jitter)
    blurred = each_plane(lambda plane: distort.random_blur(blur_key, plane, sigma_px=blur_px), unit)
    noisy = distort.add_noise(noise_key, blurred, noise)
    cut_out = each_plane(lambda plane: distort.random_cutout(cutout_key, plane, cutout), noisy)
    return cut_out, distort.Affine(matrix, shift_px)


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
    """A random version of a slice and its masks, moved together: flips, quarter turns, small rotations and shifts.

    Args:
      key: the only source of randomness.
      hu: (height, width) floats; or (planes, height, width), all moved alike; resampled bilinearly.
      readers: uint8 (height, width), one bit per reader; resampled by nearest neighbour.
      window_hu: as for `simclr_view`.
      rotation_deg: largest angle, in either direction, in addition to the quarter turns of square images.
      zoom: largest natural logarithm of the scale, in either direction.
      shift: largest displacement in each direction, as a share of the image's side.
      intensity_jitter, noise: as for `simclr_view`.

    Returns:
      (float32 in [0, 1], of the shape of `hu`; uint8 (height, width)).
    """
    turn_key, angle_key, flip_key, zoom_key, shift_key, jitter_key, noise_key = jax.random.split(key, 7)
    matrix = distort.rotation(angle_key, rotation_deg) @ jnp.diag(distort.signs(flip_key))
    if hu.shape[-2] == hu.shape[-1]:
        matrix = jnp.where(jax.random.bernoulli(turn_key), matrix, matrix[:, ::-1])  # Transposes the image.
    matrix = matrix * jnp.exp(jax.random.uniform(zoom_key, (), jnp.float32, -zoom, zoom))
    sides_px = jnp.array(hu.shape[-2:], jnp.float32)
    shift_px = jax.random.uniform(shift_key, (2,), jnp.float32, -shift, shift) * sides_px

    resampled = each_plane(lambda plane: distort.resample(plane, matrix, shift_px, order=1), hu)
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
    """A random version of a nodule's patch and of the readers' marks in it, resampled to a fixed pixel size.

    Args:
      key: the only source of randomness.
      hu: (height, width) floats.
      marked: (height, width) in [0, 1], for instance the share of the readers who marked each pixel.
      spacing_mm: distance between the patch's pixel centres.
      side_px, pixel_mm: side and pixel size of the result, a square.
      zoom: largest natural logarithm of the scale, in either direction; small, because a nodule's size matters most.
      shift_mm: largest displacement in each direction.
      offset_hu: standard deviation of the value added to the whole patch.
      noise_hu: largest standard deviation of white noise.

    Returns:
      (float32 HU (side_px, side_px), float32 in [0, 1] of that shape), rotated by any angle and randomly flipped.
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


def stack(
    key: jax.Array,
    hu: jax.Array,
    spacing_mm: jax.Array,
    *,
    side_px: int,
    pixel_mm: float,
    zoom: float = 0.15,
    shift_mm: float = 2.0,
    contrast: float = 0.15,
    offset_hu: float = 30.0,
    noise_hu: float = 40.0,
    one_plane: float = 0.2,
) -> jax.Array:
    """A random version of a stack around a candidate, all planes moved alike, resampled to a fixed pixel size.

    Args:
      key: the only source of randomness.
      hu: (planes, height, width) floats.
      spacing_mm: distance between pixel centres.
      side_px, pixel_mm: side and pixel size of the result, a square.
      zoom: largest natural logarithm of the scale, in either direction.
      shift_mm: largest displacement in each direction.
      contrast: largest natural logarithm of the factor by which HU differ from those of lung.
      offset_hu: standard deviation of the value added to the whole stack.
      noise_hu: largest standard deviation of white noise.
      one_plane: how often the middle plane takes the place of all: some sources have no neighbours of a slice.

    Returns:
      float32 HU (side_px, side_px, planes): turned by any angle, randomly flipped, also upside down.
    """
    keys = jax.random.split(key, 10)
    matrix = distort.rotation(keys[0], 180.0) @ jnp.diag(distort.signs(keys[1]))
    matrix = matrix * (pixel_mm / spacing_mm) * jnp.exp(jax.random.uniform(keys[2], (), jnp.float32, -zoom, zoom))
    shift_px = jax.random.uniform(keys[3], (2,), jnp.float32, -shift_mm, shift_mm) / spacing_mm
    hu = jnp.where(jax.random.bernoulli(keys[4]), hu, hu[::-1])
    hu = jnp.where(jax.random.bernoulli(keys[5], one_plane), hu[len(hu) // 2][None], hu)
    moved = jax.vmap(lambda plane: distort.resample(plane, matrix, shift_px, order=1, side_px=side_px), out_axes=-1)(hu)
    factor = jnp.exp(jax.random.uniform(keys[6], (), jnp.float32, -contrast, contrast))
    moved = LUNG_HU + factor * (moved - LUNG_HU) + offset_hu * jax.random.normal(keys[7], (), jnp.float32)
    strength_hu = jax.random.uniform(keys[8], (), jnp.float32, 0.0, noise_hu)
    return moved + strength_hu * jax.random.normal(keys[9], moved.shape, jnp.float32)


def each_plane(function: Callable[[jax.Array], jax.Array], image: jax.Array) -> jax.Array:
    """A function of (height, width), of an image of that shape or of each plane of (planes, height, width)."""
    return function(image) if image.ndim == 2 else jax.vmap(function)(image)


def jittered_window(key: jax.Array, hu: jax.Array, *, window_hu: WindowHu, strength: float) -> jax.Array:
    """Maps HU to [0, 1] by a random window.

    Args:
      key: the only source of randomness.
      hu: floats of any shape.
      window_hu: centre and width of the window before the random change.
      strength: largest natural logarithm of the factor for the width, and largest shift of the centre as a share of
        half the width.
    """
    log_width, centre = jax.random.uniform(key, (2,), jnp.float32, -strength, strength)
    level_hu, width_hu = window_hu
    return window(hu, (level_hu + centre * width_hu / 2, width_hu * jnp.exp(log_width)))
