"""One answer for a bag of nodules, and which of them it came from (Ilse, Tomczak & Welling, ICML 2018)."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from lungjax.models.layers import Dense
from lungjax.models.nodule_net import NoduleNet


class PatientNet(nn.Module):
    """A grader of each nodule, gated attention over what it found, a fully connected layer.

    The attention of nodule k is softmax over the bag of w . (tanh(V h_k) * sigmoid(U h_k)), equation 9 of the paper.

    Attributes:
      grader: its parameters are `params["grader"]`, or lie where a grader alone has them: at the top.
      attention: features of V and U.
    """

    grader: NoduleNet
    attention: int

    def setup(self) -> None:
        nn.share_scope(self, self.grader)
        self.attention_value = Dense(self.attention)
        self.attention_gate = Dense(self.attention)
        self.attention_score = Dense(1, use_bias=False)
        self.answer = Dense(1)

    def __call__(
        self, x: jax.Array, inside: jax.Array, *, train: bool
    ) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        """Bags of images -> an answer each.

        Args:
          x: (bags, nodules, height, width, 1) in [0, 1].
          inside: (bags, nodules) 1, or 0 for what only fills a bag up, which gets no attention and enters no statistic
            of BatchNorm, so that it does not matter how far bags are filled; one at least is above 0. What lies between
            is the certainty that there is a nodule, by which its attention is multiplied.
          train: as for `NoduleNet`.

        Returns:
          (bags,) logits; (bags, nodules) attention, of sum 1; and the grader's logits and pixels of
          bags * nodules images.
        """
        bags, nodules = inside.shape
        images, mask = x.reshape(bags * nodules, *x.shape[2:]), inside.reshape(-1) > 0
        logits, pixels, hidden = self.grader(images, train=train, mask=mask)
        gated = jnp.tanh(self.attention_value(hidden)) * nn.sigmoid(self.attention_gate(hidden))
        scores = self.attention_score(gated).reshape(bags, nodules)
        weights = nn.softmax(
            jnp.where(inside > 0, scores, -jnp.inf) + jnp.log(jnp.where(inside > 0, inside, 1.0)), axis=1
        )
        pooled = jnp.sum(weights[:, :, None] * hidden.reshape(bags, nodules, -1), axis=1)
        return self.answer(pooled)[:, 0], weights, logits, pixels
