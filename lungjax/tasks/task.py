"""What a task gives the loop: pure functions of arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

Metrics = dict[str, jax.Array]
COUNTS = "counts"
"""Of a step's metrics the confusion counts, `lungjax.metrics.confusion`, added up over its images: int32 (4,)."""
Config = Any
"""An `ml_collections.ConfigDict`: attributes whose types only the file in configs/ knows."""


@dataclasses.dataclass(frozen=True)
class Task:
    """Model, loss and metrics of one objective.

    Attributes:
      init: (rng, batch) -> (params, model_state).
      loss_fn: (params, model_state, batch, rng) -> (loss, (metrics, model_state)); a training step's. Metrics are
        scalars, whose mean over the steps is logged, and, of a segmentation, `COUNTS`, whose sum is scored.
      eval_fn: (params, model_state, batch, rng) -> sums over the batch, added up over batches by the loop.
      summarize: the added sums, as floats -> named figures.
      predict: (params, model_state, batch) -> what a picture or an evaluation needs, on the batch's grid;
        `batch_axis` tells which of its axes is the batch.
      features: (params, model_state, batch) -> (batch, channels) float32 of an encoder that is pretrained, for probes.
      share: (params, model_state, batch) -> of a segmenter, the share of the readers who would mark each pixel.
      draw: (batch and its `spacing_mm`, predicted, titles, path): writes a sheet of examples, all NumPy.
      calibrated: whether a probability is made on the validation patients, of `share`, or else of the logit that
        `predict` begins with.
      best: the name of the summarized figure by which the best checkpoint is kept; higher is better.
    """

    init: Callable[..., tuple[Any, Any]]
    loss_fn: Callable[..., tuple[jax.Array, tuple[Metrics, Any]]]
    eval_fn: Callable[..., Metrics]
    summarize: Callable[[dict[str, Any]], dict[str, float]]
    predict: Callable[..., jax.Array]
    draw: Callable[..., None]
    best: str
    batch_axis: int = 0
    share: Callable[..., jax.Array] | None = None
    features: Callable[..., jax.Array] | None = None
    calibrated: bool = False
