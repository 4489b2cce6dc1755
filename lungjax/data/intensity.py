"""What the scanner said, in Hounsfield units; and where a source lost them, the nearest guess."""

from __future__ import annotations

from typing import get_args

import jax
import jax.numpy as jnp

from lungjax.ct import windows
from lungjax.ct.scan import Intensity

WindowHu = tuple[float | jax.Array, float | jax.Array]


LUNG_HU, TISSUE_HU = -860.0, 40.0
"""Of inflated lung, and of muscle, blood and liver."""

_BINS = 256
_STEP_PX = 2
"""Every second pixel of every second row is enough to find two levels."""
_FILL_SHARE = 0.005
"""More pixels than this share that have the lowest value, or 0 as z-scores, are no tissue: a source filled them."""
_LEAST_CONTRAST = 8 / _BINS
"""Of lung against tissue, in units of the slice's range: a slice without lung is not blown up to noise."""


def to_hu(image: jax.Array, *, intensity: Intensity) -> jax.Array:
    """Stored values -> float32 HU, the same shape.

    Where a source scaled each slice by its own extremes, HU are gone; but a slice of the chest has two levels, air
    in lungs and soft tissue. They are found as the medians of the two classes of Otsu's threshold (1979), and the
    line through them and the HU of lung and tissue undoes the scaling: a bright calcification, or the black beyond
    the scanner's circle, then no longer changes what lung looks like, and one network reads any source.

    Args:
      image: (..., height, width): int16 HU, or uint8 or float32 where the source lost HU.
      intensity: of the source; all but `hu` are guessed slice by slice.

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


def window(hu: jax.Array, window_hu: WindowHu = windows.LUNG_HU) -> jax.Array:
    """HU -> [0, 1], clipped to a window of centre and width in HU."""
    centre, width = window_hu
    return jnp.clip((hu - centre) / width + 0.5, 0.0, 1.0)


def _slice_to_hu(values: jax.Array, fill: jax.Array) -> jax.Array:
    """(height, width) of any scale, and where it may be no tissue -> HU."""
    low, high = jnp.min(values), jnp.max(values)
    share = (values - low) / jnp.where(high > low, high - low, 1.0)
    lung, tissue = _levels(share, fill & (jnp.mean(fill.astype(jnp.float32)) > _FILL_SHARE))
    return LUNG_HU + (share - lung) * (TISSUE_HU - LUNG_HU) / jnp.maximum(tissue - lung, _LEAST_CONTRAST)


def _levels(share: jax.Array, left_out: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Medians of the darker and the brighter class of a slice in [0, 1]."""
    bins = jnp.round(share[::_STEP_PX, ::_STEP_PX] * (_BINS - 1)).astype(jnp.int32)
    kept = (~left_out[::_STEP_PX, ::_STEP_PX]).astype(jnp.float32)
    counts = jnp.zeros(_BINS, jnp.float32).at[bins].add(kept)
    below = jnp.cumsum(counts)  # (bins,), pixels up to each bin
    moment = jnp.cumsum(counts * jnp.arange(_BINS, dtype=jnp.float32))
    # Variance between the classes at each threshold, but for a constant factor.
    apart = (moment[-1] * below / jnp.maximum(below[-1], 1.0) - moment) ** 2
    between = apart / jnp.maximum(below * (below[-1] - below), 1.0)
    dark = below[jnp.argmax(between)]
    lung, tissue = jnp.argmax(below >= dark / 2), jnp.argmax(below >= (dark + below[-1]) / 2)
    return lung.astype(jnp.float32) / (_BINS - 1), tissue.astype(jnp.float32) / (_BINS - 1)
