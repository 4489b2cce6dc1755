"""The networks' building blocks: norms, rearrangements of pixels, initial weights."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

Norm = Literal["group", "batch"]

GROUP_SIZE = 16
SMALLEST_GROUP = 8
EPSILON = 1e-6


def he_normal(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
    """Kernels of variance 2 / fan-in (He et al. 2015), the last axis being the output.

    Drawn as a flat array, which gives the same numbers and which XLA compiles eight times faster on a CPU, where a
    network's initialisation would otherwise take longer to compile than its training step.
    """
    flat = jax.random.normal(key, (math.prod(shape),), dtype)
    return flat.reshape(shape) * jnp.asarray(math.sqrt(2 / math.prod(shape[:-1])), dtype)


def applied(function: Callable[[Any, jax.Array], jax.Array], module: nn.Module, x: jax.Array, *, remat: bool) -> Any:
    """function(module, x), a part of a network; with `remat`, only `x` is kept for the backward pass, which computes
    the part's activations again (Chen et al. 2016)."""
    return (nn.remat(function) if remat else function)(module, x)


Conv = functools.partial(nn.Conv, kernel_init=he_normal)
Dense = functools.partial(nn.Dense, kernel_init=he_normal)


def space_to_depth(x: jax.Array, block: int) -> jax.Array:
    """(batch, height, width, c) -> (batch, height/block, width/block, block * block * c)."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // block, block, width // block, block, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height // block, width // block, -1)


def depth_to_space(x: jax.Array, block: int) -> jax.Array:
    """The inverse of `space_to_depth`."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height, width, block, block, channels // block**2)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height * block, width * block, -1)


def sampled_at(x: jax.Array, places: jax.Array) -> jax.Array:
    """Features at places between pixels, bilinearly; beyond the border, those of the border.

    Args:
      x: (batch, height, width, c).
      places: float32 (batch, places, 2), row and column; 0 is the middle of the first pixel.

    Returns:
      (batch, places, c), of the dtype of `x`.
    """
    last = jnp.array([[[x.shape[1] - 1, x.shape[2] - 1]]], jnp.float32)
    places = jnp.clip(places, 0.0, last)
    corner = jnp.minimum(jnp.floor(places), jnp.maximum(last - 1, 0))
    share = (places - corner).astype(x.dtype)[..., None]  # (batch, places, 2, 1)
    row, column = (corner[..., axis].astype(jnp.int32) for axis in range(2))
    below, beside = (jnp.minimum(first + 1, size - 1) for first, size in ((row, x.shape[1]), (column, x.shape[2])))
    of_image = jnp.arange(x.shape[0], dtype=jnp.int32)[:, None]
    above = x[of_image, row, column] * (1 - share[:, :, 1]) + x[of_image, row, beside] * share[:, :, 1]
    under = x[of_image, below, column] * (1 - share[:, :, 1]) + x[of_image, below, beside] * share[:, :, 1]
    return above * (1 - share[:, :, 0]) + under * share[:, :, 0]


class GroupNorm(nn.Module):
    """Group normalisation (Wu & He 2018), with statistics in float32 whatever the dtype of the input.

    Groups have 16 channels, or 8 where the channels are not a multiple of 16; otherwise all channels are one group. The
    result for an image does not depend on other images.
    """

    scale_init: nn.initializers.Initializer = nn.initializers.ones

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(batch, height, width, c) -> the same shape and dtype."""
        batch, _, _, channels = x.shape
        size = math.gcd(channels, GROUP_SIZE)
        size = size if size >= SMALLEST_GROUP else channels
        scale = self.param("scale", self.scale_init, (channels,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (channels,), jnp.float32)

        full = x.astype(jnp.float32)
        moments = jnp.stack([jnp.mean(full, axis=(1, 2)), jnp.mean(full * full, axis=(1, 2))])
        # (2, batch, c) -> (2, batch, groups)
        mean, square = jnp.mean(moments.reshape(2, batch, -1, size), axis=-1)
        inverse = lax.rsqrt(jnp.maximum(square - mean * mean, 0.0) + EPSILON)
        slope = jnp.repeat(inverse, size, axis=-1) * scale[None, :]  # (batch, c)
        shift = bias[None, :] - jnp.repeat(mean, size, axis=-1) * slope
        return (full * slope[:, None, None, :] + shift[:, None, None, :]).astype(x.dtype)


class BatchNorm(nn.Module):
    """Batch normalisation (Ioffe & Szegedy 2015) over the global batch, with statistics in float32.

    Images that a mask leaves out, for instance padding, are normalised like the others but do not enter the statistics.
    """

    scale_init: nn.initializers.Initializer = nn.initializers.ones

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool, mask: jax.Array | None = None) -> jax.Array:
        """(batch, height, width, c) -> the same shape and dtype; updates `batch_stats` if `train`.

        `mask` is bool (batch,), True for at least one image; None takes all.
        """
        norm = nn.BatchNorm(use_running_average=not train, momentum=0.9, scale_init=self.scale_init, name="norm")
        where = None if mask is None else mask[:, None, None, None]
        return norm(x.astype(jnp.float32), mask=where).astype(x.dtype)


def make_norm(
    kind: Norm, *, train: bool, mask: jax.Array | None = None
) -> Callable[..., Callable[[jax.Array], jax.Array]]:
    """Returns a maker of norms: `make_norm(kind, train=train)(name=..., scale_init=...)` is a function of feature maps.

    `mask`, bool (batch,), selects the images that enter the statistics of `batch`; `group` shares none between images.
    """
    if kind == "group":
        return GroupNorm
    if kind == "batch":
        return lambda **options: functools.partial(BatchNorm(**options), train=train, mask=mask)
    raise ValueError(f"norm is {kind!r}; use 'group' or 'batch'.")
