"""The jitted steps: the same program on one device and on many."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from lungjax.errors import InputError
from lungjax.tasks.task import DETAILS, Config, Metrics, Task
from lungjax.train import compiler
from lungjax.train.mesh import replicated, split
from lungjax.train.state import TrainState

EVAL_STREAM = 2**31 - 1
"""Folded into the key of an evaluation, so that its random numbers differ from those of every training step."""


def make_schedule(config: Config, steps: int) -> optax.Schedule:
    """The learning rate by the number of steps done: linear warm-up, cosine decay to zero."""
    warmup_steps = min(round(config.warmup * steps), steps - 1)
    return optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, warmup_steps, decay_steps=steps)


def make_optimizer(config: Config, steps: int) -> optax.GradientTransformation:
    """AdamW, or LARS (You et al. 2017), with the learning rate of `make_schedule` and clipped gradients.

    Biases and norm scales (vectors) are neither decayed nor scaled by LARS's trust ratio. Updates of the encoder are
    multiplied by `config.encoder_rate`.
    """
    schedule = make_schedule(config, steps)

    def matrices(params):
        return jax.tree.map(lambda p: p.ndim > 1, params)

    if config.name == "adamw":
        rule = optax.adamw(schedule, weight_decay=config.weight_decay, mask=matrices)
    elif config.name == "lars":
        rule = optax.lars(
            schedule,
            weight_decay=config.weight_decay,
            weight_decay_mask=matrices,
            trust_ratio_mask=matrices,
            momentum=0.9,
        )
    else:
        raise InputError(f"config.optimizer.name is {config.name!r}; use 'adamw' or 'lars'.")
    encoder_rate = config.get("encoder_rate", 1.0)
    # Of a run in which nothing is multiplied the optimizer's state stays that of earlier versions.
    slower = [] if encoder_rate == 1.0 else [optax.masked(optax.scale(encoder_rate), _of_encoder)]
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), rule, *slower)


def _of_encoder(params: Any) -> Any:
    """For each parameter, whether it is the encoder's."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: any(getattr(key, "key", "") == "encoder" for key in path), params
    )


def make_train_step(
    task: Task,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    key: jax.Array,
    *,
    average_decay: float = 0.0,
    schedule: optax.Schedule | None = None,
    draw: Callable[[Any, Any], Any] | None = None,
    steps: int = 1,
    shardings: Any = None,
    deterministic: bool = False,
) -> Callable[..., tuple[TrainState, Metrics]]:
    """(state, batch) -> (state, metrics); the state is donated.

    With `draw`, (state, plan, pixels) -> (state, metrics), where `draw(pixels, plan)` makes the batch.

    The state has the `shardings` of `mesh.state_shardings`, or is replicated.

    With several keys, (replicas,), the state, the batch and the metrics have a first axis of that length: of each
    replica, as a step with its key alone. The `pixels` are the same for all. Such a state is replicated.

    With several `steps`, arrays of the batch have a first axis of that length, and the steps are one program. So have
    the metrics, after the axis of replicas, but for `DETAILS`, which are those of the last step.

    The metrics are those of the task, the `loss`, the norms of gradient, update and parameters, and, with the
    optimizer's `schedule`, its `learning_rate`.

    Where the state has an average, it is an exponential moving average with the decay `average_decay`, which is smaller
    in the first steps (after Polyak & Juditsky 1992).

    The rng of a step is `fold_in(key, step)`: a resumed run draws the same random numbers as an uninterrupted one.

    `deterministic` is that of `compiler.step_options`, here and in the steps below.
    """

    seed = np.asarray(jax.random.key_data(key))  # On the host: tracing would copy a key on the device back.
    replicas = key.ndim == 1

    def step_of_one(seed: jax.Array, state: TrainState, batch: Any, pixels: Any) -> tuple[TrainState, Metrics]:
        if draw is not None:
            batch = draw(pixels, batch)
        rng = jax.random.fold_in(jax.random.wrap_key_data(seed), state.step)
        (loss, (metrics, model_state)), grads = jax.value_and_grad(task.loss_fn, has_aux=True)(
            state.params, state.model_state, batch, rng
        )
        with jax.numpy_dtype_promotion("standard"):  # optax raises a float to an integer power.
            updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
            rate = {} if schedule is None else {"learning_rate": jnp.asarray(schedule(state.step), jnp.float32)}
        params = optax.apply_updates(state.params, updates)
        average = None
        if state.average is not None:
            step = state.step.astype(jnp.float32)
            keep = jnp.minimum(average_decay, (1.0 + step) / (10.0 + step))
            average = jax.tree.map(
                lambda old, new: old + (1 - keep) * (new - old), state.average, (params, model_state)
            )
        norms = {"grad_norm": grads, "update_norm": updates, "param_norm": params}
        norms = {name: optax.tree.norm(tree) for name, tree in norms.items()}
        details = jax.lax.with_sharding_constraint(metrics.pop(DETAILS, {}), split(mesh))
        figures = jax.lax.with_sharding_constraint({"loss": loss, **norms, **rate, **metrics}, replicated(mesh))
        state = TrainState(
            step=state.step + jnp.ones((), jnp.int32),
            params=params,
            model_state=model_state,
            opt_state=opt_state,
            average=average,
        )
        return state, {**figures, DETAILS: details} if details else figures

    step_of_all = jax.vmap(step_of_one, in_axes=(0, 0, 0, None)) if replicas else step_of_one

    def train_step(state: TrainState, batch: Any, pixels: Any = None) -> tuple[TrainState, Metrics]:
        return step_of_all(jnp.asarray(seed), state, batch, pixels)

    def train_steps(state: TrainState, batches: Any, pixels: Any = None) -> tuple[TrainState, Metrics]:
        state, figures = jax.lax.scan(lambda state, batch: train_step(state, batch, pixels), state, batches)
        details = jax.tree.map(lambda of_steps: of_steps[-1], figures.pop(DETAILS, {}))
        if replicas:
            figures = jax.tree.map(lambda of_steps: of_steps.swapaxes(0, 1), figures)
        return state, {**figures, DETAILS: details} if details else figures

    several = steps > 1
    shardings = replicated(mesh) if shardings is None else shardings
    on_devices = (replicated(mesh),) if draw else ()
    return jax.jit(
        train_steps if several else train_step,
        in_shardings=(shardings, split(mesh, axis=int(several) + int(replicas)), *on_devices),
        out_shardings=(shardings, None),
        donate_argnums=0,
        compiler_options=compiler.train_options(mesh, deterministic=deterministic),
    )


def make_detail_step(
    task: Task, mesh: Mesh, *, replicas: bool = False, deterministic: bool = False
) -> Callable[[Metrics], Metrics]:
    """A step's `DETAILS` -> `Task.detail_fn`'s figures; both of each of the `replicas`, where there are some. A program
    of its own: a branch within the step would make a GPU's queue wait for the host each time."""
    assert task.detail_fn is not None
    detail_step = jax.vmap(task.detail_fn) if replicas else task.detail_fn
    return jax.jit(
        detail_step,
        in_shardings=split(mesh, axis=int(replicas)),
        out_shardings=replicated(mesh),
        compiler_options=compiler.step_options(mesh, deterministic=deterministic),
    )


# The steps below take a state as it is sharded: hence `None`. Runs that are trained together share each one's program.


@functools.lru_cache(maxsize=1)
def make_eval_step(
    task: Task, mesh: Mesh, *, deterministic: bool = False
) -> Callable[[TrainState, Any, jax.Array], Metrics]:
    """(state, batch, the run's key) -> the sums over the batch, see `Task.eval_fn`."""

    def eval_step(state: TrainState, batch: Any, key: jax.Array) -> Metrics:
        return task.eval_fn(*state.scored, batch, jax.random.fold_in(key, EVAL_STREAM))

    return jax.jit(
        eval_step,
        in_shardings=(None, split(mesh), None),
        out_shardings=replicated(mesh),
        compiler_options=compiler.step_options(mesh, deterministic=deterministic),
    )


@functools.lru_cache(maxsize=1)
def make_features_step(
    task: Task, mesh: Mesh, *, deterministic: bool = False
) -> Callable[[TrainState, Any], jax.Array]:
    """(state, batch) -> `task.features`, gathered on every device."""
    assert task.features is not None
    features = task.features

    def features_step(state: TrainState, batch: Any) -> jax.Array:
        return features(*state.scored, batch)

    return jax.jit(
        features_step,
        in_shardings=(None, split(mesh)),
        out_shardings=replicated(mesh),
        compiler_options=compiler.step_options(mesh, deterministic=deterministic),
    )


@functools.lru_cache(maxsize=1)
def make_predict_step(
    task: Task, mesh: Mesh, *, deterministic: bool = False
) -> Callable[[TrainState, Any], dict[str, jax.Array]]:
    """(state, batch) -> `task.predict`, gathered on every device."""

    def predict_step(state: TrainState, batch: Any) -> dict[str, jax.Array]:
        return task.predict(*state.scored, batch)

    return jax.jit(
        predict_step,
        in_shardings=(None, split(mesh)),
        out_shardings=replicated(mesh),
        compiler_options=compiler.step_options(mesh, deterministic=deterministic),
    )
