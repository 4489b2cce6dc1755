"""A trained segmenter over whole slices: tiles like those it was trained on, laid over the region to look at."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from lungjax.ct.scan import READERS
from lungjax.data import crop
from lungjax.data.context import Context
from lungjax.errors import InputError
from lungjax.prediction import arrays
from lungjax.prediction.arrays import Forward
from lungjax.prediction.tiling import Blend, Corner, Tiling
from lungjax.tasks import segment
from lungjax.train import calibrate
from lungjax.train.trained import Trained

BATCH = 16
"""Tiles that go to the device at a time; the last batch is filled up, so that one program serves all."""


class Segmenter:
    """A network of the task `segment`; opened by `lungjax.load`, and compiled once, at its first batch.

    Args:
      trained: the network.
      device: of `jax.devices()`, where it runs; the first by default.
      forward: the network itself, where it is no matter of `trained.variables`: (n, tile, tile) HU, or
        (n, planes, tile, tile) with its context -> probability.

    Attributes:
      trained: as above.
      tiling: how it looks at slices.
      context: which slices it is shown with each.
      compilations: how many programs have been compiled so far.

    Raises:
      InputError: a network of another task.
    """

    def __init__(self, trained: Trained, *, device: Any = None, forward: Forward | None = None):
        if trained.config.task != "segment":
            raise InputError(
                f"{trained.path} is a model of task {trained.config.task!r}; only a segmenter outlines nodules."
            )
        self.trained = trained
        self.tiling = Tiling.of(trained.config, trained.seen.get("side_px"))
        self.context = Context.of(trained.config)
        self.compilations = 0
        self._forward, self._share = (forward, None) if forward else self._compiled(device or jax.devices()[0])

    def _compiled(self, device: Any) -> tuple[Forward, Forward]:
        """What gives the probability, and what gives the calibrated share."""
        mesh = Mesh(np.array([device]), ("data",))
        # A scan is in HU, whatever the network was trained on; the window is that of the training.
        task = segment.make(self.trained.config, intensity="hu", readers=READERS, mesh=mesh)
        variables = jax.device_put(self.trained.variables, device)
        shares = calibrate.shares_of(self.trained.calibration)

        def predicted(variables: Any, images: jax.Array) -> dict[str, jax.Array]:
            self.compilations += 1  # JAX runs this line as it compiles, and never again.
            return task.predict(variables["params"], variables["model_state"], {"image": images})

        @jax.jit
        def probability(variables: Any, images: jax.Array) -> jax.Array:
            return jax.nn.sigmoid(predicted(variables, images)["logit"])

        @jax.jit
        def share(variables: Any, images: jax.Array) -> jax.Array:
            return calibrate.calibrated_share(predicted(variables, images)["share"], shares)

        def on_host(function: Any) -> Forward:
            return lambda images: [np.asarray(function(variables, jax.device_put(images, device)))]

        return on_host(probability), on_host(share)

    def predict(self, hu: np.ndarray, *, slice_mm: float | None = None) -> np.ndarray:
        """The probability of each pixel that at least two of four readers would mark it as nodule.

        Slices of the size that the network was trained on (`tiling.tile_px` square) are given to it as they are; others
        are covered with overlapping tiles of that size, and blended where these overlap. A whole scan is a matter of
        `lungjax.predict`, which looks in the lungs alone and knows what is a nodule.

        Args:
          hu: (n, rows, columns) Hounsfield units of axial slices or crops, any number and any size; of any numeric
            dtype, rounded to whole numbers. For a network that was trained with neighbouring slices
            (`config.data.context`, none of the bundled ones) all slices of one scan, from the lowest, of which the
            outermost stand for what is beyond; or (n, planes, rows, columns), each slice between its neighbours.
          slice_mm: between slices of a scan; only needed for a network with `config.data.context_mm`.

        Returns:
          float32 (n, rows, columns), 0 to 1. A slice's does not depend on others than its neighbours.

        Raises:
          InputError: `hu` has another shape, or holds NaN or numbers that are no Hounsfield units; or `slice_mm` is
            needed.
        """
        return self._of_slices(hu, slice_mm, self._forward)

    def predict_share(self, hu: np.ndarray, *, slice_mm: float | None = None) -> np.ndarray:
        """The share of readers who would mark each pixel as nodule; calibrated where there were validation patients.

        The pixels above a share are the outline of one reader: of a generous one above 0.1, of a sparing one above 0.9.

        Args:
          hu, slice_mm: as of `predict`.

        Returns:
          float32 (n, rows, columns), 0 to 1.

        Raises:
          InputError: as of `predict`; the network was not trained on how many readers mark a pixel, or it was exported
            as StableHLO or ONNX, which only have the probability.
        """
        if self._share is None or self.trained.config.targets not in ("soft", "levels"):
            raise InputError(
                f"{self.trained.path}: only the probability that two readers would mark a pixel is to be had of this "
                "network; for the share of readers open a run or safetensors of config.targets soft or levels."
            )
        return self._of_slices(hu, slice_mm, self._share)

    def _of_slices(self, hu: np.ndarray, slice_mm: float | None, forward: Forward) -> np.ndarray:
        hu, shown = arrays.checked_slices(hu, self.context, slice_mm)
        hu = np.rint(hu).astype(np.int16)
        if hu.shape[1:] != (self.tiling.tile_px, self.tiling.tile_px):
            return self._tiled(hu, shown, np.ones((len(shown), *hu.shape[1:]), bool), np.float32, forward)
        starts = range(0, len(shown), BATCH)
        parts = [_of_batch(self._input(hu[shown[start : start + BATCH]]), forward) for start in starts]
        return np.concatenate([np.zeros((0, *hu.shape[1:]), np.float32), *parts])

    def tiles(self, images: np.ndarray) -> np.ndarray:
        """The probability that at least two of four readers would mark a pixel.

        Args:
          images: (n, tile, tile) int16 HU, or (n, planes, tile, tile) with a context, at most `BATCH` of them.

        Returns:
          float32 (n, tile, tile).
        """
        return _of_batch(images, self._forward)

    def volume(self, hu: np.ndarray, region: np.ndarray, *, slice_mm: float | None = None) -> np.ndarray:
        """`tiles` over a scan, blended where they overlap.

        Args:
          hu: (slices, rows, columns) int16.
          region: bool of that shape: where to look.
          slice_mm: between slices.

        Returns:
          float16 of that shape, 0 outside the region.
        """
        return self._tiled(hu, self.context.in_scan(len(hu), slice_mm), region, np.float16, self._forward)

    def _tiled(self, hu: np.ndarray, shown: np.ndarray, region: np.ndarray, dtype: Any, forward: Forward) -> np.ndarray:
        """As `volume`, where `shown` (n, planes) are the slices of `hu` that make up each slice of `region`."""
        blended = np.zeros(region.shape, dtype)
        corners = {number: self.tiling.corners(mask) for number, mask in enumerate(region) if mask.any()}
        places = [(number, corner) for number, some in corners.items() for corner in some]
        probabilities = self._each_tile(hu, shown, places, forward)
        for number, some in corners.items():
            blend = Blend(hu.shape[1:], self.tiling)
            for corner in some:
                blend.add(next(probabilities), corner)
            rows, columns = (_extent(region[number].any(axis=axis)) for axis in (1, 0))
            looked_at = region[number, rows, columns]
            blended[number, rows, columns] = np.where(looked_at, blend.mean(rows, columns), 0)
        return blended

    def _each_tile(
        self, hu: np.ndarray, shown: np.ndarray, places: list[tuple[int, Corner]], forward: Forward
    ) -> Iterator[np.ndarray]:
        """What the network says of the tile of each slice and corner, in that order."""
        starts: Iterable[int] = range(0, len(places), BATCH)
        if multiprocessing.parent_process() is None:  # Of many processes the first alone has a bar, for scans.
            starts = tqdm(starts, unit="tile", unit_scale=BATCH, desc="outlining nodules", leave=False, disable=None)
        for start in starts:
            part = places[start : start + BATCH]
            tiles = [
                [crop.cut(hu[plane], corner, self.tiling.tile_px) for plane in shown[number]] for number, corner in part
            ]
            yield from _of_batch(self._input(np.array(tiles)), forward)

    def _input(self, planes: np.ndarray) -> np.ndarray:
        """(n, planes, rows, columns), but for a network without context (n, rows, columns)."""
        return planes if self.context.slices else planes[:, 0]


def _of_batch(images: np.ndarray, forward: Forward) -> np.ndarray:
    """What a network says of at most `BATCH` images, (n, [planes,] tile, tile) int16."""
    full = np.zeros((BATCH, *images.shape[1:]), np.int16)
    full[: len(images)] = images
    (answer,) = forward(full)
    return np.asarray(answer)[: len(images)]


def _extent(some: np.ndarray) -> slice:
    """From the first True to the last one of a line."""
    places = np.flatnonzero(some)
    return slice(int(places[0]), int(places[-1]) + 1)
