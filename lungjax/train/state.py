"""All that a step changes, as one pytree; what a checkpoint stores."""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from lungjax.tasks.task import Task


@flax.struct.dataclass
class TrainState:
    """Attributes: `step` int32 scalar; `params` float32; `model_state`, for instance BatchNorm's; `opt_state`;
    `average`, of `(params, model_state)` over the steps, None where none is kept.
    """

    step: jax.Array
    params: Any
    model_state: Any
    opt_state: Any
    average: Any

    @property
    def scored(self) -> tuple[Any, Any]:
        """(params, model_state) that are validated, drawn and handed on: the average where there is one."""
        return (self.params, self.model_state) if self.average is None else self.average


def create(
    task: Task, optimizer: optax.GradientTransformation, rng: jax.Array, batch: Any, *, averaged: bool = False
) -> TrainState:
    """A fresh state: step 0, parameters from `task.init`; `averaged`: with room for their average."""
    params, model_state = task.init(rng, batch)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        model_state=model_state,
        opt_state=optimizer.init(params),
        average=jax.tree.map(jnp.copy, (params, model_state)) if averaged else None,  # A step is given its state.
    )


def parameter_count(params: Any) -> int:
    """Number of scalars in `params`."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
