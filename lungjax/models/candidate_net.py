"""Tells nodules from what resembles them: a ResNet whose head looks at the middle and at the whole of a stack."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lungjax.models.encoder import ResNet
from lungjax.models.layers import Dense

MIDDLE = 0.25
"""Side of the middle that the head looks at, as a share of the image's: there lies the candidate."""


class CandidateNet(nn.Module):
    """A logit for what lies in the middle of a stack of planes.

    The head sees, of each of the encoder's feature maps, the mean over the middle, and of the coarsest that over all.

    Attributes:
      encoder: the planes are its channels.
      hidden: features of the head's hidden layer.
      dropout: share of features dropped in training, before the last layer.
    """

    encoder: ResNet
    hidden: int = 64
    dropout: float = 0.2
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """(batch, height, width, planes) floats in [0, 1] -> (batch,) float32 logits."""
        maps = self.encoder(x, train=train)
        features = [_middle(features) for features in maps]
        features += [jnp.mean(maps[-1].astype(jnp.float32), axis=(1, 2))]
        hidden = nn.relu(Dense(self.hidden, name="hidden_layer")(jnp.concatenate(features, axis=-1)))
        hidden = nn.Dropout(self.dropout, deterministic=not train, name="dropout")(hidden)
        return Dense(1, name="out_layer")(hidden)[:, 0]


def _middle(features: jax.Array) -> jax.Array:
    """(batch, rows, columns, channels) -> (batch, channels), the mean over the middle; two pixels wide at least."""
    rows, columns = features.shape[1:3]
    part = []
    for size in (rows, columns):
        wide = max(2 * round(size * MIDDLE / 2), 2)
        part.append(slice((size - wide) // 2, (size - wide) // 2 + wide))
    return jnp.mean(features[:, part[0], part[1]].astype(jnp.float32), axis=(1, 2))
