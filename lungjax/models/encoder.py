"""ResNet (He et al. 2016) for small single-channel images."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

Norm = Literal["group", "batch"]
Stem = Literal["conv", "patch"]

BLOCKS = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}
"""Blocks of each stage by depth; 50 has bottleneck blocks, the others basic ones."""
BOTTLENECK = 4
"""How many times wider a bottleneck block's output is than its 3x3 convolution."""
GROUP_SIZE = 16
SMALLEST_GROUP = 8
EPSILON = 1e-6
STEM_PATCH_PX = 2


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


class GroupNorm(nn.Module):
    """Group normalisation (Wu & He 2018), its statistics in float32 whatever the dtype of the input.

    Groups have 16 channels, or 8 where 16 do not divide them, else all channels are one group. The result for
    one image is independent of the others.
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
    """Batch normalisation (Ioffe & Szegedy 2015) over the global batch, statistics in float32."""

    scale_init: nn.initializers.Initializer = nn.initializers.ones

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """(batch, height, width, c) -> the same shape and dtype; updates `batch_stats` where `train`."""
        norm = nn.BatchNorm(
            use_running_average=not train, momentum=0.9, scale_init=self.scale_init, name="norm"
        )
        return norm(x.astype(jnp.float32)).astype(x.dtype)


def make_norm(kind: Norm, *, train: bool) -> Callable[..., Callable[[jax.Array], jax.Array]]:
    """`make_norm(kind, train=train)(name=..., scale_init=...)` is a function of feature maps."""
    if kind == "group":
        return GroupNorm
    if kind == "batch":
        return lambda **options: functools.partial(BatchNorm(**options), train=train)
    raise ValueError(f"norm is {kind!r}; use 'group' or 'batch'.")


class Block(nn.Module):
    """Residual block: two 3x3 convolutions, or 1x1, 3x3, 1x1 with four times the channels at its end.

    The last norm starts at zero, so that a fresh block is the identity (Goyal et al. 2017).
    """

    channels: int
    stride: int = 1
    bottleneck: bool = False
    norm: Norm = "group"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """(batch, h, w, c) -> (batch, h / stride, w / stride, channels or 4 * channels)."""
        out = self.channels * (BOTTLENECK if self.bottleneck else 1)
        conv = functools.partial(nn.Conv, use_bias=False, dtype=self.dtype)
        norm = make_norm(self.norm, train=train)

        y = x
        if self.bottleneck:
            y = nn.relu(norm()(conv(self.channels, (1, 1))(y)))
        y = nn.relu(norm()(conv(self.channels, (3, 3), strides=self.stride)(y)))
        y = conv(out, (1, 1) if self.bottleneck else (3, 3))(y)
        y = norm(scale_init=nn.initializers.zeros)(y)
        if x.shape != y.shape:
            x = norm(name="shortcut_norm")(conv(out, (1, 1), strides=self.stride, name="shortcut")(x))
        return nn.relu(x + y)


class ResNet(nn.Module):
    """Feature maps of an image at four scales.

    Attributes:
      depth: 10, 18, 34 or 50.
      width: channels of the first stage; each later one has twice as many (times 4 at depth 50).
      norm: `group` or `batch`.
      stem: `conv`, a 3x3 convolution of stride 1, for small images; `patch`, each 2x2 pixels become one of
        four channels and then a 3x3 convolution: nothing but the input itself is at full resolution.
      dtype: of the computation; parameters are float32.
    """

    depth: int = 18
    width: int = 64
    norm: Norm = "group"
    stem: Stem = "conv"
    dtype: Any = jnp.float32

    @property
    def stem_stride(self) -> int:
        """Pixels an output position of the stem stands for, in each direction."""
        return STEM_PATCH_PX if self.stem == "patch" else 1

    @property
    def total_stride(self) -> int:
        """What an image's height and width must be multiples of."""
        return self.stem_stride * 2 ** (len(BLOCKS[self.depth]) - 1)

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> list[jax.Array]:
        """Feature maps, finest first.

        Args:
          x: (batch, height, width, channels) floats.
          train: BatchNorm uses and updates batch statistics (collection `batch_stats`).

        Returns:
          Four arrays (batch, height / s, width / s, width * 2**stage) of `dtype`, s = stem stride * 2**stage.

        Raises:
          ValueError: unknown depth, stem or norm, or a size that is no multiple of the total stride.
        """
        if self.depth not in BLOCKS or self.stem not in ("conv", "patch"):
            choices = f"one of {sorted(BLOCKS)} and conv or patch"
            raise ValueError(f"depth is {self.depth} and stem {self.stem!r}; use {choices}.")
        height, width = x.shape[1:3]
        if height % self.total_stride or width % self.total_stride:
            raise ValueError(
                f"The image is {height}x{width} px; both must be multiples of {self.total_stride}."
            )

        x = x.astype(self.dtype)
        if self.stem == "patch":
            x = space_to_depth(x, STEM_PATCH_PX)
        x = nn.Conv(self.width, (3, 3), use_bias=False, dtype=self.dtype, name="stem")(x)
        x = nn.relu(make_norm(self.norm, train=train)(name="stem_norm")(x))

        features = []
        for stage, blocks in enumerate(BLOCKS[self.depth]):
            for block in range(blocks):
                x = Block(
                    channels=self.width * 2**stage,
                    stride=2 if stage and not block else 1,
                    bottleneck=self.depth == 50,
                    norm=self.norm,
                    dtype=self.dtype,
                    name=f"stage{stage}_block{block}",
                )(x, train=train)
            features.append(x)
        return features
