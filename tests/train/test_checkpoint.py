"""A checkpoint whose arrays are not those of the network is refused: Orbax 0.12.8 casts dtypes without a word."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.monitoring
import jax.numpy as jnp
import optax
import pytest

from lungjax.errors import InputError
from lungjax.train import mesh
from lungjax.train.checkpoint import Checkpoints
from lungjax.train.state import TrainState


def state_of(params: Any, *, averaged: bool = False) -> TrainState:
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))
    average = (params, {"norm": jnp.ones(2)}) if averaged else None
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        model_state={"norm": jnp.ones(2)},
        opt_state=optimizer.init(params),
        average=average,
    )
    return jax.device_put(state, jax.devices()[0])


def params_of(shape: tuple[int, ...] = (3, 2), dtype: Any = jnp.float32) -> dict[str, Any]:
    return {"dense": {"kernel": jnp.ones(shape, dtype), "bias": jnp.zeros(2)}}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    with Checkpoints(tmp_path, every=1, keep=1) as checkpoints:
        checkpoints.save(1, state_of(params_of(), averaged=True), score=None, force=True)
    return tmp_path


def restore(workdir: Path, state: TrainState) -> TrainState:
    with Checkpoints(workdir, every=1, keep=1) as checkpoints:
        return checkpoints.restore(state, step=1)


def test_the_same_arrays_are_restored(saved: Path):
    restored = restore(saved, state_of(params_of(), averaged=True))
    assert float(restored.params["dense"]["kernel"].sum()) == 6


def test_small_arrays_that_all_devices_have_are_not_sliced(tmp_path: Path):
    """Orbax has each device write a slice of each, and compiles a program for every slice, unless it is told to."""
    shapes = [(8 * side, 24) for side in range(1, 6)]
    whole = state_of({str(shape): jnp.full(shape, 2.0) for shape in shapes})
    state = jax.device_put(whole, mesh.replicated(mesh.make_mesh(8)))
    assert len(jax.devices()) == 8
    compiled = []

    def listen(event: str, duration_secs: float, **_: Any) -> None:
        if event.endswith("backend_compile_duration"):
            compiled.append(duration_secs)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        with Checkpoints(tmp_path, every=1, keep=1) as checkpoints:
            checkpoints.save(1, state, score=None, force=True)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert compiled == []
    restored = restore(tmp_path, state)
    for shape in shapes:
        assert float(restored.params[str(shape)].sum()) == 2 * shape[0] * shape[1]


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        (
            state_of(params_of(dtype=jnp.bfloat16), averaged=True),
            r"kernel is .* float32 there and \(3, 2\) bfloat16",
        ),
        (
            state_of(params_of(shape=(2, 2)), averaged=True),
            r"kernel is \(3, 2\) .* there and \(2, 2\) float32 here",
        ),
        (state_of(params_of(), averaged=False), r"average/.* is .* there and no such array here"),
        (state_of({"other": jnp.ones(2)}, averaged=True), r"no such array"),
        (
            dataclasses.replace(state_of(params_of(), averaged=True), step=jnp.zeros((), jnp.float32)),
            r"step is \(\) int32 there and \(\) float32 here",
        ),
    ],
)
def test_other_arrays_are_refused(saved: Path, state: TrainState, sentence: str):
    with pytest.raises(InputError, match=sentence) as told:
        restore(saved, state)
    assert str(saved / "checkpoints" / "1") in str(told.value)
