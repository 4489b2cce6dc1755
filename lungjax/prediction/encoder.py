"""An encoder on CT slices that somebody has: arrays in, features out."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lungjax.data.context import Context, channels
from lungjax.data.intensity import window
from lungjax.errors import InputError
from lungjax.models.encoder import BOTTLENECK, ResNet
from lungjax.prediction import arrays
from lungjax.prediction.arrays import Forward
from lungjax.train.trained import Trained

BATCH = 16
"""Slices that are put through at a time."""


class Encoder:
    """The encoder of a network; opened by `lungjax.load`, and compiled once for slices of one size.

    Args:
      trained: the network; of any task, but only a pretrained one (SimCLR) was trained for its features.
      device: of `jax.devices()`, where it runs; the first by default.
      forward: the network itself, where it is no matter of `trained.variables`: (n, rows, columns) HU -> features.

    Attributes:
      trained: as above.
      channels: how many features a slice has.
      multiple_px: rows and columns of slices are multiples of it.
    """

    def __init__(self, trained: Trained, *, device: Any = None, forward: Forward | None = None):
        self.trained = trained
        config = trained.config
        self._context = Context.of(config)
        self.channels = config.model.encoder.width * 8 * (BOTTLENECK if config.model.encoder.depth == 50 else 1)
        self.multiple_px = ResNet(**config.model.encoder).total_stride
        self._forward = forward or _forward(trained, device)

    def embed(self, hu: np.ndarray, *, slice_mm: float | None = None) -> np.ndarray:
        """Features of slices, to compare slices by or to train a classifier on.

        Args:
          hu: (n, rows, columns) Hounsfield units of axial slices or crops, any number of them; rows and columns are
            multiples of `multiple_px`. Of any numeric dtype. For an encoder that was trained with neighbouring slices
            (`config.data.context`) all slices of one scan in order, or (n, planes, rows, columns).
          slice_mm: between slices of a scan; only needed for an encoder with `config.data.context_mm`.

        Returns:
          float32 (n, channels): the encoder's last feature map, averaged over its pixels. They do not depend on how
          many slices there are.

        Raises:
          InputError: `hu` has another shape, or holds NaN or numbers that are no Hounsfield units; or the network was
            exported, as StableHLO or ONNX, for slices of another size.
        """
        hu, shown = arrays.checked_slices(hu, self._context, slice_mm)
        if any(size % self.multiple_px for size in hu.shape[1:]):
            rows, columns = hu.shape[1:]
            raise InputError(f"slices of hu are {rows} x {columns}; both must be multiples of {self.multiple_px}.")
        if not len(shown):
            return np.zeros((0, self.channels), np.float32)
        hu = hu.astype(np.float32)
        (features,) = arrays.in_batches(self._forward, [hu[shown] if self._context.slices else hu], size=BATCH)
        return features


def _forward(trained: Trained, device: Any) -> Forward:
    config = trained.config
    network = ResNet(**config.model.encoder)
    # What the network is shown is a matter of augmentation where it was trained on slices, of the patch otherwise.
    window_hu = tuple((config.augment if config.task in ("pretrain", "segment") else config.patch).window_hu)
    states = {name: state["encoder"] for name, state in trained.variables["model_state"].items()}
    variables = jax.device_put({"params": trained.variables["params"]["encoder"], **states}, device)

    @jax.jit
    def pooled(variables: Any, hu: jax.Array) -> jax.Array:
        maps: Any = network.apply(variables, channels(window(hu, window_hu)), train=False)
        return jnp.mean(maps[-1], axis=(1, 2))

    return lambda hu: [np.asarray(pooled(variables, jax.device_put(hu, device)))]
