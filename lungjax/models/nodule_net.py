"""The nodule classifier's network: it outlines the nodule first, then classifies what is inside the outline."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lungjax.models.encoder import ResNet
from lungjax.models.layers import Conv, Dense, depth_to_space, make_norm

PRIOR_LOGIT = -3.0
"""A new network's logit of a pixel being nodule."""
_LEAST_MM2 = 3.0
"""Added to the area before taking its logarithm."""


class NoduleNet(nn.Module):
    """An encoder, a decoder that outlines the nodule from the encoder's feature maps, and a head.

    The head's input is the outline's area, the mean and standard deviation of the image within it, and the means within
    it of the decoder's and the encoder's feature maps. Thus size, which explains most of what readers call malignant,
    is measured as readers measure it, and the other features describe the nodule and not its surroundings.

    Attributes:
      encoder: its parameters are `params["encoder"]`, into which pretrained ones fit.
      width: channels of the decoder.
      hidden: features of the head's hidden layer.
      outputs: logits for each nodule.
      pixel_mm: side of an image's pixels.
      dropout: share of features dropped in training, before and after the hidden layer.
      dtype: of the convolutions; the rest computes in float32.
    """

    encoder: ResNet
    width: int
    hidden: int
    outputs: int
    pixel_mm: float
    dropout: float = 0.2
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool, mask: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """(batch, height, width, 1) floats -> logits.

        Args:
          x: images in [0, 1].
          train: BatchNorm uses and updates batch statistics, and dropout uses the rng `dropout`.
          mask: bool (batch,), the images that enter BatchNorm's statistics; None for all.

        Returns:
          (batch, outputs) float32 logits of the nodule, (batch, height, width) float32 logits of its pixels,
          (batch, hidden) float32 features from which the logits are computed.
        """
        norm = make_norm(self.encoder.norm, train=train, mask=mask)
        maps = self.encoder(x, train=train, mask=mask)
        decoded = self._climb(maps, norm)
        block = self.encoder.stem_stride
        bias = nn.initializers.constant(PRIOR_LOGIT)
        pixels = Conv(block**2, (3, 3), bias_init=bias, dtype=self.dtype, name="outline")(decoded)
        pixels = depth_to_space(pixels, block).astype(jnp.float32)[..., 0]  # (batch, height, width)

        features = [_size(jax.nn.sigmoid(pixels), self.pixel_mm)]
        inside = jax.lax.stop_gradient(jax.nn.sigmoid(pixels))  # Only the outline's own loss trains the outline.
        mean = _mean_within(x, inside)
        square = _mean_within(x * x, inside)
        features += [mean, jnp.sqrt(jnp.maximum(square - mean * mean, 0.0) + 1e-4)]
        features += [_mean_within(feature_map, inside) for feature_map in (decoded, *maps[1:3])]
        features += [jnp.mean(maps[-1].astype(jnp.float32), axis=(1, 2))]
        hidden = self._hidden(jnp.concatenate(features, axis=-1), norm, train=train)
        return Dense(self.outputs, name="out_layer")(hidden), pixels, hidden

    def _climb(self, maps: list[jax.Array], norm: Callable[..., Any]) -> jax.Array:
        """Feature maps, finest first -> (batch, height / stem stride, width / stem stride, width)."""
        x = None
        for level, skip in enumerate(reversed(maps)):
            joined = Dense(self.width, dtype=self.dtype, name=f"lateral{level}")(skip)
            if x is not None:
                joined = joined + jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
            x = Conv(self.width, (3, 3), use_bias=False, dtype=self.dtype, name=f"level{level}")(joined)
            x = nn.relu(norm(name=f"level{level}_norm")(x))
        assert x is not None
        return x

    def _hidden(self, features: jax.Array, norm: Callable[..., Any], *, train: bool) -> jax.Array:
        """(batch, features) -> (batch, hidden)."""
        # As images of one pixel, because norms take images.
        x = norm(name="features_norm")(features[:, None, None, :])[:, 0, 0, :]
        x = nn.Dropout(self.dropout, deterministic=not train, name="dropout_in")(x)
        x = nn.relu(Dense(self.hidden, name="hidden_layer")(x))
        return nn.Dropout(self.dropout, deterministic=not train, name="dropout_out")(x)


def _size(inside: jax.Array, pixel_mm: float) -> jax.Array:
    """(batch, height, width) -> (batch, 2): the shifted logarithm of the area in mm^2, and its square."""
    area_mm2 = jnp.sum(inside, axis=(1, 2)) * pixel_mm**2
    size = jnp.log(area_mm2 + _LEAST_MM2) - 3.0
    return jnp.stack([size, size * size], axis=-1)


def _mean_within(x: jax.Array, inside: jax.Array) -> jax.Array:
    """Means of (batch, rows, columns, c), weighted by (batch, height, width) on the same grid or a finer one."""
    batch, rows, columns, _ = x.shape
    block = inside.shape[1] // rows
    weights = inside.reshape(batch, rows, block, columns, block).mean(axis=(2, 4))[..., None]
    total = jnp.sum(weights, axis=(1, 2))
    return jnp.sum(x.astype(jnp.float32) * weights, axis=(1, 2)) / (total + 1e-2)
