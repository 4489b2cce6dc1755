"""A trained segmenter over whole slices: tiles like those it was trained on, laid over where it shall look."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from lungjax.ct.scan import READERS
from lungjax.data import crop
from lungjax.errors import InputError
from lungjax.prediction.tiling import Blend, Corner, Tiling
from lungjax.tasks import segment
from lungjax.train.trained import Trained

BATCH = 16
"""Tiles that go to the device at a time; the last batch is filled up, so that one program serves all."""


class Segmenter:
    """A network on a device, compiled once, at its first batch.

    Args:
      trained: from `lungjax.train.trained.open_trained`.
      device: one of `jax.devices()`, where it runs; the first by default.

    Attributes:
      tiling: how it looks at slices.
      compilations: how many programs have been compiled so far.

    Raises:
      InputError: it is no segmenter.
    """

    def __init__(self, trained: Trained, *, device: Any = None):
        config = trained.config
        if config.task != "segment":
            raise InputError(f"{trained.path} is a model of task {config.task!r}; only a segmenter outlines nodules.")
        self.tiling = Tiling.of(config, trained.seen.get("side_px"))
        self.compilations = 0
        self._device = device or jax.devices()[0]
        mesh = Mesh(np.array([self._device]), ("data",))
        # A scan is in HU, whatever the network was trained on; the window is that of the training.
        task = segment.make(config, intensity="hu", readers=READERS, mesh=mesh)
        self._variables = jax.device_put(trained.variables, self._device)

        def probability(variables: Any, images: jax.Array) -> jax.Array:
            self.compilations += 1  # JAX runs this line as it compiles, and never again.
            predicted = task.predict(variables["params"], variables["model_state"], {"image": images})
            return jax.nn.sigmoid(predicted["logit"])

        self._probability = jax.jit(probability)

    def tiles(self, images: np.ndarray) -> np.ndarray:
        """The probability that at least two of four readers would mark a pixel.

        Args:
          images: (n, tile, tile) int16 HU, at most `BATCH` of them.

        Returns:
          float32 of that shape.
        """
        full = np.zeros((BATCH, *images.shape[1:]), np.int16)
        full[: len(images)] = images
        found = self._probability(self._variables, jax.device_put(full, self._device))
        return np.asarray(found)[: len(images)]

    def volume(self, hu: np.ndarray, region: np.ndarray) -> np.ndarray:
        """`tiles` over a scan, blended where they overlap.

        Args:
          hu: (slices, rows, columns) int16.
          region: bool of that shape: where to look.

        Returns:
          float16 of that shape, 0 outside the region.
        """
        out = np.zeros(hu.shape, np.float16)
        work = [(number, self.tiling.corners(mask)) for number, mask in enumerate(region) if mask.any()]
        answers = self._answers(hu, [(number, corner) for number, found in work for corner in found])
        for number, found in work:
            blend = Blend(hu.shape[1:], self.tiling)
            for corner in found:
                blend.add(next(answers), corner)
            out[number] = np.where(region[number], blend.mean(), 0)
        return out

    def _answers(self, hu: np.ndarray, work: list[tuple[int, Corner]]) -> Iterator[np.ndarray]:
        with tqdm(total=len(work), unit="tile", desc="outlining nodules", leave=False, disable=None) as progress:
            for start in range(0, len(work), BATCH):
                part = work[start : start + BATCH]
                images = [crop.cut(hu[number], corner, self.tiling.tile_px) for number, corner in part]
                yield from self.tiles(np.stack(images))
                progress.update(len(part))
