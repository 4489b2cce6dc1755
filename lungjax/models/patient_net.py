"""The patient classifier's network: multiple-instance learning with attention (Ilse, Tomczak & Welling, ICML 2018)."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from lungjax.models.layers import Dense
from lungjax.models.nodule_net import NoduleNet


class PatientNet(nn.Module):
    """A nodule network for each nodule, gated attention over its hidden features, and a fully connected layer.

    The attention of nodule k is softmax over the bag of w . (tanh(V h_k) * sigmoid(U h_k)), equation 9 of the paper.

    Attributes:
      grader: the nodule network. Its parameters are at the top level, where a nodule classifier has them, so that those
        fit in. Initial weights depend on this attribute's name.
      attention: the number of features of V and U.
    """

    grader: NoduleNet
    attention: int

    def setup(self) -> None:
        nn.share_scope(self, self.grader)
        self.attention_value = Dense(self.attention)
        self.attention_gate = Dense(self.attention)
        self.attention_score = Dense(1, use_bias=False)
        self.answer = Dense(1)  # The name of its parameters in files.

    def __call__(
        self, x: jax.Array, inside: jax.Array, *, train: bool
    ) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        """Bags of images -> a logit for each bag.

        Args:
          x: (bags, nodules, height, width, 1) in [0, 1].
          inside: (bags, nodules), 1 for a nodule and 0 for padding, which gets no attention and does not enter
            BatchNorm's statistics, so that the amount of padding does not matter; at least one is 1 in each bag.
          train: as for `NoduleNet`.

        Returns:
          (bags,) logits; (bags, nodules) attention, of sum 1; and the nodule network's logits of nodules and of pixels,
          for bags * nodules images.
        """
        bags, nodules = inside.shape
        images, mask = x.reshape(bags * nodules, *x.shape[2:]), inside.reshape(-1) > 0
        logits, pixels, hidden = self.grader(images, train=train, mask=mask)
        gated = jnp.tanh(self.attention_value(hidden)) * nn.sigmoid(self.attention_gate(hidden))
        scores = self.attention_score(gated).reshape(bags, nodules)
        weights = nn.softmax(jnp.where(inside > 0, scores, -jnp.inf), axis=1)
        pooled = jnp.sum(weights[:, :, None] * hidden.reshape(bags, nodules, -1), axis=1)
        return self.answer(pooled)[:, 0], weights, logits, pixels
