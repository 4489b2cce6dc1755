"""What a task gives the loop: pure functions of arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

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
      name: as `config.task`.
      init: (rng, batch) -> (params, model_state).
      loss_fn: (params, model_state, batch, rng) -> (loss, (metrics, model_state)); a training step's. Metrics are
        scalars, whose mean over the steps is logged, and, of a segmentation, `COUNTS`, whose sum is scored.
      eval_fn: (params, model_state, batch, rng) -> sums over the batch, added up over batches by the loop.
      summarize: the added sums, as floats -> named figures.
      predict: (params, model_state, batch) -> arrays by name, the batch the first axis of each; what they are is told
        where the task is made.
      best: the name of the summarized figure by which the best checkpoint is kept; higher is better.
      features: (params, model_state, batch) -> (batch, channels) float32 of an encoder that is pretrained, for probes.
      calibrated: the prediction of which a probability is made on the validation patients; None for none.
    """

    name: str
    init: Callable[..., tuple[Any, Any]]
    loss_fn: Callable[..., tuple[jax.Array, tuple[Metrics, Any]]]
    eval_fn: Callable[..., Metrics]
    summarize: Callable[[dict[str, Any]], dict[str, float]]
    predict: Callable[..., dict[str, jax.Array]]
    best: str
    features: Callable[..., jax.Array] | None = None
    calibrated: Literal["logit", "share"] | None = None
