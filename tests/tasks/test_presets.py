"""Every preset of every configuration is built and takes a training step, in shapes alone: nothing is computed."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest
import runs

from lungjax.prediction.patches import STACK_PX
from lungjax.tasks import sift
from lungjax.train import loop, mesh, state, step

STORED_PX = 128
"""Side of the crops that presets without a crop of their own are for."""
PATCH_PX = 71
"""Side of the patches of nodules."""


def presets() -> list[tuple[str, str]]:
    """Of each file of configs/ the presets, as it tells them to a user who mistypes one."""
    found = []
    for path in sorted((runs.ROOT / "configs").glob("*.py")):
        with pytest.raises(KeyError) as mistake:
            runs.load_config(path.stem, "mistyped")
        names = str(mistake.value).rpartition("use one of ")[2].strip("'\"").split(", ")
        found += [(path.stem, name) for name in names]
    return found


PRESETS = presets()


def test_there_are_presets_for_every_task():
    assert {("segment", name) for name in ("full", "slices_gpu", "slices_scans", "scans")} < {*PRESETS}
    assert {runs.load_config(*preset).task for preset in PRESETS} == {*loop.TASKS}


def batch_of(config: Any) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes of a batch, see `lungjax.data.loader.Batch` and `lungjax.data.bags.Bags.batch`."""
    bags = (config.data.batch_size,)
    images = {"diagnose": (*bags, config.data.get("nodules", 0)), "sift": (*bags, sift.PLANES)}.get(config.task, bags)
    patches = {"classify": PATCH_PX, "diagnose": PATCH_PX, "sift": STACK_PX}
    side_px = patches.get(config.task) or config.data.crop_px or STORED_PX
    shapes: dict[str, Any] = {
        "image": ((*images, side_px, side_px), jnp.int16),
        "readers": ((*images, side_px, side_px), jnp.uint8),
        "scan": (images, jnp.int32),
        "z_mm": (images, jnp.float32),
        "weight": (bags, jnp.float32),
        "label": (bags, jnp.float32),
        "nodule_label": (images, jnp.float32),
        "inside": (images, jnp.float32),
        "spacing_mm": (bags if config.task == "sift" else images, jnp.float32),
        "scaled": (bags, jnp.float32),
        "ratings": ((*images, 4, 9), jnp.int32),
    }
    return {name: jax.ShapeDtypeStruct(*shape) for name, shape in shapes.items()}


@pytest.mark.parametrize(("name", "preset"), PRESETS)
def test_every_preset_is_built(name: str, preset: str):
    config = runs.load_config(name, preset)
    devices, key, batch = mesh.make_mesh(config.data.batch_size), jax.random.key(config.seed), batch_of(config)
    task = loop.TASKS[config.task](config, intensity="hu", readers=4, mesh=devices)
    optimizer = step.make_optimizer(config.optimizer, config.steps)

    def create(rng: jax.Array) -> state.TrainState:
        return state.create_state(task, optimizer, rng, batch, averaged=config.average_decay > 0)

    fresh = jax.eval_shape(create, key)
    assert state.parameter_count(fresh.params) > 10_000
    train_step = step.make_train_step(task, optimizer, devices, key, average_decay=config.average_decay)
    after, figures = jax.eval_shape(train_step, fresh, batch)
    assert jax.tree.map(described, after) == jax.tree.map(described, fresh)
    assert {leaf.dtype for leaf in jax.tree.leaves(after.params)} == {jnp.dtype("float32")}
    assert described(figures["loss"]) == ((), jnp.dtype("float32"))
    sums = jax.eval_shape(step.make_eval_step(task, devices), fresh, batch, key)
    assert described(sums["loss"]) == ((), jnp.dtype("float32"))
    predicted = jax.eval_shape(step.make_predict_step(task, devices), fresh, batch)
    assert {part.shape[0] for part in predicted.values()} == {config.data.batch_size}
    assert task.calibrated is None or task.calibrated in predicted


def described(leaf: Any) -> tuple[tuple[int, ...], Any]:
    return leaf.shape, leaf.dtype
