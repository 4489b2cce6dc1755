"""The interface between a task and the training loop: pure functions of arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax

Metrics = dict[str, Any]
COUNTS = "counts"
"""The key, in a step's metrics, of the confusion counts summed over its images, int32 (4,); see
`lungjax.metrics.confusion`.
"""
DETAILS = "details"
"""The key, in a step's metrics, of the arrays (batch, ...) by name from which `Task.detail_fn` makes figures."""
Config = Any
"""An `ml_collections.ConfigDict`, whose attributes are defined by a file in configs/."""


@dataclasses.dataclass(frozen=True)
class Task:
    """Model, loss and metrics of one objective.

    Attributes:
      name: as `config.task`.
      init: (rng, batch) -> (params, model_state).
      loss_fn: (params, model_state, batch, rng) -> (loss, (metrics, model_state)), for a training step. Metrics are
        scalars, whose mean over the steps is logged; for a segmentation, `COUNTS`, whose sum is scored; and, with a
        `detail_fn`, `DETAILS`.
      eval_fn: (params, model_state, batch, rng) -> sums over the batch, which the loop adds up over batches.
      summarize: the added sums, as floats -> figures by name.
      predict: (params, model_state, batch) -> arrays by name, with the batch as first axis; the task's `make` describes
        them.
      best: the name of the summarized figure that decides which checkpoint is best; higher is better.
      features: (params, model_state, batch) -> (batch, channels) float32, an encoder's features for probes; or None.
      detail_fn: a step's `DETAILS` -> scalars by name that are too costly for every step: it is called for logged
        steps only; or None.
      calibrated: the prediction that is calibrated on the validation patients; None for none.
    """

    name: str
    init: Callable[..., tuple[Any, Any]]
    loss_fn: Callable[..., tuple[jax.Array, tuple[Metrics, Any]]]
    eval_fn: Callable[..., Metrics]
    summarize: Callable[[dict[str, Any]], dict[str, float]]
    predict: Callable[..., dict[str, jax.Array]]
    best: str
    features: Callable[..., jax.Array] | None = None
    detail_fn: Callable[[Metrics], Metrics] | None = None
    calibrated: Literal["logit", "share"] | None = None
