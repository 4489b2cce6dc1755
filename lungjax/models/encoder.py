"""ResNet (He et al. 2016) for small images: a slice, or a slice and its neighbours as channels."""

from __future__ import annotations

import functools
from typing import Any, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp

from lungjax.models.layers import Conv, Norm, applied, make_norm, space_to_depth

Stem = Literal["conv", "patch", "torchvision"]

BLOCKS = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}
"""By depth, the number of blocks in each stage; depth 50 has bottleneck blocks, the others have basic blocks."""
BOTTLENECK = 4
"""How many times more channels a bottleneck block's output has than its 3x3 convolution."""


class Block(nn.Module):
    """Residual block: two 3x3 convolutions, or 1x1, 3x3, 1x1 with four times the channels at the end.

    The scale of the last norm starts at zero, so that a new block is the identity (Goyal et al. 2017).
    """

    channels: int
    stride: int = 1
    bottleneck: bool = False
    norm: Norm = "group"
    padding: Any = "SAME"  # of the convolution with the stride
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool, mask: jax.Array | None = None) -> jax.Array:
        """(batch, h, w, c) -> (batch, h / stride, w / stride, channels or 4 * channels)."""
        out = self.channels * (BOTTLENECK if self.bottleneck else 1)
        conv = functools.partial(Conv, use_bias=False, dtype=self.dtype)
        norm = make_norm(self.norm, train=train, mask=mask)

        y = x
        if self.bottleneck:
            y = nn.relu(norm()(conv(self.channels, (1, 1))(y)))
        y = nn.relu(norm()(conv(self.channels, (3, 3), strides=self.stride, padding=self.padding)(y)))
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
      stem: `conv`, a 3x3 convolution of stride 1, for small images; `patch`, where the pixels of each patch become
        channels before a 3x3 convolution, so that only the input itself has full resolution; `torchvision`, a 7x7
        convolution and max pooling, each of stride 2, with symmetric padding: with norm `batch` and width 64 it is the
        network that torchvision calls resnet18, resnet34 or resnet50.
      patch_px: side of a patch, only for `patch`.
      dtype: of the computation; parameters are float32.
      remat: whether training computes the activations within a block again, see `lungjax.models.layers.applied`.
    """

    depth: int = 18
    width: int = 64
    norm: Norm = "group"
    stem: Stem = "conv"
    patch_px: int = 2
    dtype: Any = jnp.float32
    remat: bool = False

    @property
    def stem_stride(self) -> int:
        """The stem's stride: pixels per output position, in each direction."""
        return {"conv": 1, "patch": self.patch_px, "torchvision": 4}[self.stem]

    @property
    def total_stride(self) -> int:
        """The stride of the coarsest feature map; an image's height and width must be multiples of it."""
        return self.stem_stride * 2 ** (len(BLOCKS[self.depth]) - 1)

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool, mask: jax.Array | None = None) -> list[jax.Array]:
        """Feature maps, finest first.

        Args:
          x: (batch, height, width, channels) floats.
          train: BatchNorm uses and updates batch statistics (collection `batch_stats`).
          mask: bool (batch,), the images that enter BatchNorm's statistics; None for all.

        Returns:
          Four arrays (batch, height / s, width / s, width * 2**stage) of `dtype`, s = stem stride * 2**stage.

        Raises:
          ValueError: unknown depth, stem or norm, or a size that is not a multiple of the total stride.
        """
        if self.depth not in BLOCKS or self.stem not in get_args(Stem):
            choices = f"a depth of {sorted(BLOCKS)} and a stem of {', '.join(get_args(Stem))}"
            raise ValueError(f"depth is {self.depth} and stem {self.stem!r}; use {choices}.")
        height, width = x.shape[1:3]
        if height % self.total_stride or width % self.total_stride:
            raise ValueError(f"The image is {height}x{width} px; both must be multiples of {self.total_stride}.")

        x = x.astype(self.dtype)
        if self.stem == "patch":
            x = space_to_depth(x, self.patch_px)
        is_torchvision = self.stem == "torchvision"
        stem = functools.partial(Conv, self.width, use_bias=False, dtype=self.dtype, name="stem")
        x = stem((7, 7), strides=2, padding=3)(x) if is_torchvision else stem((3, 3))(x)
        x = nn.relu(make_norm(self.norm, train=train, mask=mask)(name="stem_norm")(x))
        if is_torchvision:
            x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=[(1, 1), (1, 1)])  # pyright: ignore[reportArgumentType]

        features = []
        for stage, blocks in enumerate(BLOCKS[self.depth]):
            for block in range(blocks):
                module = Block(
                    channels=self.width * 2**stage,
                    stride=2 if stage and not block else 1,
                    bottleneck=self.depth == 50,
                    norm=self.norm,
                    padding=1 if is_torchvision else "SAME",
                    dtype=self.dtype,
                    name=f"stage{stage}_block{block}",
                )
                again = self.remat and train
                x = applied(lambda block, x: block(x, train=train, mask=mask), module, x, remat=again)
            features.append(x)
        return features
