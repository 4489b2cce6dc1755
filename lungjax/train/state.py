"""The state of a training: all that a step changes, as one pytree; a checkpoint stores it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from lungjax.tasks.task import Task


@flax.struct.dataclass
class TrainState:
    """The state of a training.

    Attributes:
      step: int32 scalar, the number of steps done.
      params: float32 parameters.
      model_state: for instance BatchNorm's statistics.
      opt_state: the optimizer's state.
      average: the exponential moving average of `(params, model_state)`; None where none is kept.
    """

    step: jax.Array
    params: Any
    model_state: Any
    opt_state: Any
    average: Any

    @property
    def scored(self) -> tuple[Any, Any]:
        """The (params, model_state) to validate and to export: the average where there is one."""
        return (self.params, self.model_state) if self.average is None else self.average


def create_state(
    task: Task, optimizer: optax.GradientTransformation, rng: jax.Array, batch: Any, *, averaged: bool = False
) -> TrainState:
    """A new state at step 0 with parameters from `task.init`; with their average where `averaged`."""
    params, model_state = task.init(rng, batch)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        model_state=model_state,
        opt_state=optimizer.init(params),
        average=jax.tree.map(jnp.copy, (params, model_state))
        if averaged
        else None,  # A copy, because a step donates its state's buffers.
    )


def stack(states: Sequence[TrainState]) -> TrainState:
    """The states of runs that are trained together as one, whose arrays have a first axis of runs; one as it is."""
    return states[0] if len(states) == 1 else _stack(*states)


def unstack(state: TrainState, runs: int) -> list[TrainState]:
    """The states of `runs` runs, from that of `stack`."""
    return [state] if runs == 1 else [_pick(state, number) for number in range(runs)]


@jax.jit
def _stack(*states: TrainState) -> TrainState:
    return jax.tree.map(lambda *arrays: jnp.stack(arrays), *states)


@jax.jit
def _pick(state: TrainState, number: int) -> TrainState:
    return jax.tree.map(lambda array: array[number], state)


def parameter_count(params: Any) -> int:
    """Number of scalars in `params`."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
