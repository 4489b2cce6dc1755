"""Small networks on top of pooled features."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lungjax.models.layers import Dense


class Projection(nn.Module):
    """SimCLR's projection head (Chen et al. 2020): dense, LayerNorm, relu, dense.

    LayerNorm and not BatchNorm: no statistics are shared between the images of a batch, so none can leak which views
    belong together.

    Attributes:
      hidden, out: the numbers of features of the two layers.
      dtype: of the first layer; the norm and the last layer compute in float32.
    """

    hidden: int
    out: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(batch, c) -> (batch, out) float32, not normalised: the loss does that."""
        x = Dense(self.hidden, use_bias=False, dtype=self.dtype, name="hidden_layer")(x.astype(self.dtype))
        x = nn.relu(nn.LayerNorm(name="norm")(x.astype(jnp.float32)))
        return Dense(self.out, use_bias=False, name="out_layer")(x)
