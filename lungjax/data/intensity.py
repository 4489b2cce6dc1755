"""Converts stored values to Hounsfield units; where a source has lost them, to an estimate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

import jax
import jax.numpy as jnp

from lungjax.ct import windows
from lungjax.ct.scan import Intensity

WindowHu = tuple[float | jax.Array, float | jax.Array]

LUNG_HU, TISSUE_HU = -860.0, 40.0
"""HU of inflated lung, and of muscle, blood and liver."""

_BINS = 256
_STEP_PX = 2
"""Every second pixel of every second row is enough to find two levels."""
_FILL_SHARE = 0.005
"""If more than this share of the pixels has the lowest value, or 0 for z-scores, the source filled them in."""
_LEAST_CONTRAST = 8 / _BINS
"""Smallest contrast of lung and tissue, relative to the slice's range, so that noise is not amplified without lung."""


def to_hu(image: jax.Array, *, intensity: Intensity) -> jax.Array:
    """Converts stored values to float32 HU of the same shape.

    Where a source scaled each slice by its extreme values, HU are lost. But a slice of the chest has two levels, lung
    and soft tissue. They are estimated as the medians of the two classes of Otsu's threshold (1979), and mapping them
    linearly to the HU of lung and tissue undoes the scaling. A bright calcification, or the black outside the
    scanner's circle, then no longer changes the appearance of lung, and one network can read any source.

    Args:
      image: (..., height, width): int16 HU, or uint8 or float32 where the source has lost HU.
      intensity: of the source; all but `hu` are estimated slice by slice.

    Raises:
      ValueError: unknown intensity.
    """
    if intensity not in get_args(Intensity):
        raise ValueError(f"intensity is {intensity!r}; use one of {get_args(Intensity)}.")
    values = image.astype(jnp.float32)
    if intensity == "hu":
        return values
    fill = values == (0.0 if intensity == "zscore" else jnp.min(values, axis=(-2, -1), keepdims=True))
    stack = (-1, *values.shape[-2:])
    return jax.vmap(_slice_to_hu)(values.reshape(stack), fill.reshape(stack)).reshape(values.shape)


def batch_to_hu(batch: Mapping[str, jax.Array], *, intensity: Intensity | Literal["mixed"]) -> jax.Array:
    """Float32 HU of the images (batch, ..., height, width) of a batch.

    Args:
      batch: `image`, and, where intensities are mixed, `scaled` (batch,), see `lungjax.data.mixture`: an image that
        is not HU is estimated by itself.
      intensity: of all images, or "mixed".
    """
    if intensity != "mixed":
        return to_hu(batch["image"], intensity=intensity)
    values = batch["image"].astype(jnp.float32)
    scaled = batch["scaled"].reshape(-1, *[1] * (values.ndim - 1))
    return jnp.where(scaled > 0, to_hu(values, intensity="fraction"), values)


def window(hu: jax.Array, window_hu: WindowHu = windows.LUNG_HU) -> jax.Array:
    """Maps HU to [0, 1], clipped to a window given as centre and width in HU."""
    centre, width = window_hu
    return jnp.clip((hu - centre) / width + 0.5, 0.0, 1.0)


def _slice_to_hu(values: jax.Array, fill: jax.Array) -> jax.Array:
    """Converts (height, width) values of any scale to HU; `fill` marks pixels that may have been filled in."""
    low, high = jnp.min(values), jnp.max(values)
    share = (values - low) / jnp.where(high > low, high - low, 1.0)
    lung, tissue = _levels(share, fill & (jnp.mean(fill.astype(jnp.float32)) > _FILL_SHARE))
    return LUNG_HU + (share - lung) * (TISSUE_HU - LUNG_HU) / jnp.maximum(tissue - lung, _LEAST_CONTRAST)


def _levels(share: jax.Array, excluded: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Medians of the darker and the brighter class of a slice in [0, 1]."""
    bins = jnp.round(share[::_STEP_PX, ::_STEP_PX] * (_BINS - 1)).astype(jnp.int32)
    kept = (~excluded[::_STEP_PX, ::_STEP_PX]).astype(jnp.float32)
    counts = jnp.zeros(_BINS, jnp.float32).at[bins].add(kept)
    below = jnp.cumsum(counts)  # (bins,): number of pixels up to each bin
    moment = jnp.cumsum(counts * jnp.arange(_BINS, dtype=jnp.float32))
    # Variance between the classes at each threshold, up to a constant factor.
    apart = (moment[-1] * below / jnp.maximum(below[-1], 1.0) - moment) ** 2
    between = apart / jnp.maximum(below * (below[-1] - below), 1.0)
    dark = below[jnp.argmax(between)]
    lung, tissue = jnp.argmax(below >= dark / 2), jnp.argmax(below >= (dark + below[-1]) / 2)
    return lung.astype(jnp.float32) / (_BINS - 1), tissue.astype(jnp.float32) / (_BINS - 1)
