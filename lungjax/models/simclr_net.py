"""SimCLR's networks (Chen et al. 2020): an encoder that is pretrained, alone or with a U-Net's decoder."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from lungjax.models.encoder import ResNet
from lungjax.models.heads import Projection
from lungjax.models.layers import depth_to_space, sampled_at
from lungjax.models.unet import UNet


class SimCLR(nn.Module):
    """Encoder, global average pooling, projection head.

    Attributes:
      encoder: of slices; its parameters are under `encoder`, where a U-Net expects them.
      hidden, out: widths of the projection head.
    """

    encoder: ResNet
    hidden: int
    out: int

    def setup(self) -> None:
        self.projection = Projection(hidden=self.hidden, out=self.out, dtype=self.encoder.dtype)

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """(batch, height, width, channels) in [0, 1] -> (batch, out) float32."""
        return self.projection(self.pooled(x, train=train))

    def pooled(self, x: jax.Array, *, train: bool) -> jax.Array:
        """(batch, height, width, channels) in [0, 1] -> (batch, channels): the encoder's last map, averaged."""
        return self.encoder(x, train=train)[-1].mean(axis=(1, 2))


class DenseSimCLR(nn.Module):
    """SimCLR of a U-Net: beside the embedding of a slice, one of each place in it (Chaitanya et al. 2020), and the
    pixels of what is hidden in it (Tian et al. 2023). All parameters but those of the three heads have a U-Net's names.

    Attributes:
      unet: its head is not used, and has no parameters.
      hidden, out: widths of the projection head of slices.
      place_out: width of an embedding of a place.
    """

    unet: UNet
    hidden: int
    out: int
    place_out: int = 32

    def setup(self) -> None:
        nn.share_scope(self, self.unet)
        dtype = self.unet.dtype
        self.projection = Projection(hidden=self.hidden, out=self.out, dtype=dtype)
        self.place_projection = Projection(hidden=self.unet.widths[-1], out=self.place_out, dtype=dtype)
        self.restoration = nn.Conv(
            self.unet.encoder.stem_stride**2,
            (3, 3),
            # At first, all pixels are nearly alike: an error much larger than the other losses would drown them.
            kernel_init=nn.initializers.normal(1e-2),
            bias_init=nn.initializers.constant(0.5),
            dtype=dtype,
        )

    def __call__(self, x: jax.Array, places_px: jax.Array, *, train: bool) -> tuple[jax.Array, jax.Array, jax.Array]:
        """All three heads' outputs.

        Args:
          x: (batch, height, width, channels) in [0, 1].
          places_px: (batch, places, 2), row and column of places in the images, in pixels; may lie between pixels.
          train: whether BatchNorm, where chosen, uses the batch's statistics.

        Returns:
          Embeddings of the images (batch, out), and of the places (batch, places, place_out), not normalised; and
          pixels (batch, height, width). All float32.
        """
        coarsest, finest = self.unet(x, train=train, head=False)
        stride_px = x.shape[1] // finest.shape[1]
        at = sampled_at(finest, (places_px + 0.5) / stride_px - 0.5)
        pixels = depth_to_space(self.restoration(finest), self.unet.encoder.stem_stride)[..., 0]
        return self.projection(coarsest.mean(axis=(1, 2))), self.place_projection(at), pixels.astype(jnp.float32)

    def pooled(self, x: jax.Array, *, train: bool) -> jax.Array:
        """As `SimCLR.pooled`."""
        return self.unet.encoder(x, train=train)[-1].mean(axis=(1, 2))
