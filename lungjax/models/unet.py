"""U-Net (Ronneberger et al. 2015) on top of a ResNet."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lungjax.models.encoder import ResNet
from lungjax.models.layers import Conv, Dense, applied, depth_to_space, make_norm

PRIOR_LOGIT = -4.0
"""A new network's logit: it predicts nodule with a probability of about 2 %, not 50 % (Lin et al. 2017)."""


class UNet(nn.Module):
    """An encoder, and a decoder that joins the encoder's feature maps from coarse to fine.

    Upsampling is a dense layer and depth-to-space: the same function as a transposed convolution of kernel 2 and stride
    2, but faster. With a `patch` stem, the head does the last step to full resolution in the same way.

    Attributes:
      encoder: its parameters are `params["encoder"]`, into which pretrained ones fit.
      widths: channels of the decoder's levels, coarsest first, one for each feature map except the coarsest.
      out_channels: logits for each pixel.
      dtype: of the computation; parameters and logits are float32.
    """

    encoder: ResNet
    widths: tuple[int, ...] = (256, 128, 64)
    out_channels: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool, head: bool = True) -> Any:
        """(batch, height, width, channels) floats -> logits (batch, height, width, out_channels) float32.

        Without the `head`: the encoder's coarsest feature map, and the decoder's finest, from which the head makes
        logits; (batch, rows, columns, c) each.

        Raises:
          ValueError: height or width is not a multiple of the encoder's total stride, or `widths` does not fit the
            encoder.
        """
        *skips, x = self.encoder(x, train=train)
        if len(self.widths) != len(skips):
            raise ValueError(
                f"widths has {len(self.widths)} levels, the encoder has {len(skips)} feature maps to join."
            )
        coarsest = x
        for level, (channels, skip) in enumerate(zip(self.widths, reversed(skips), strict=True)):
            up = Dense(4 * channels, dtype=self.dtype, name=f"up{level}")(x)
            x = jnp.concatenate([depth_to_space(up, 2), skip], axis=-1)
            for step in range(2):
                name = f"level{level}_conv{step}"
                part = functools.partial(UNet._conv_norm_relu, channels=channels, name=name, train=train)
                x = applied(part, self, x, remat=self.encoder.remat and train)
        if not head:
            return coarsest, x
        block = self.encoder.stem_stride
        bias = nn.initializers.constant(PRIOR_LOGIT)
        logits = Conv(self.out_channels * block**2, (3, 3), bias_init=bias, dtype=self.dtype, name="head")(x)
        return depth_to_space(logits, block).astype(jnp.float32)

    def _conv_norm_relu(self, x: jax.Array, *, channels: int, name: str, train: bool) -> jax.Array:
        x = Conv(channels, (3, 3), use_bias=False, dtype=self.dtype, name=name)(x)
        return nn.relu(make_norm(self.encoder.norm, train=train)(name=f"{name}_norm")(x))
