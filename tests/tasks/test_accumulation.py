"""A batch in parts, and activations computed again: the same loss and gradient, in less memory."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import runs

from lungjax.errors import InputError
from lungjax.tasks.task import Config
from lungjax.train import loop, mesh

BATCH = 16
SIDE_PX = 32
LIKE_THESE = [
    pytest.param(name, marks=pytest.mark.exhaustive) for name in ("simclr of places", "classify", "sift", "diagnose")
]
"""Tasks whose loss goes through the same parts as another's."""


def config_of(name: str, **choices: Any) -> Config:
    config = runs.load_config(name.removesuffix(" of places"))
    config.data.batch_size = BATCH
    small = {"model.encoder.norm": "group", "model.encoder.width": 8}
    if "patch" in config:
        small |= {"patch.side_px": SIDE_PX, "model.dropout": 0.0, "model.hidden": 8}
    if name == "segment":
        small |= {"model.decoder": (16, 8, 8)}
    if name == "simclr of places":
        small |= {"model.decoder": (16, 8, 8), "dense_weight": 1.0, "masked_weight": 1.0}
    config.update_from_flattened_dict(small | choices)
    return config


def batch_of(name: str) -> dict[str, jax.Array]:
    """Images that differ, two of them without a weight."""
    rng = np.random.default_rng(0)
    bags = (BATCH, 3) if name == "diagnose" else (BATCH,)
    planes = (3,) if name == "sift" else ()
    weight = np.ones(BATCH)
    weight[[3, 7]] = 0
    arrays = {
        "image": rng.normal(-500, 300, (*bags, *planes, SIDE_PX, SIDE_PX)).astype(np.int16),
        "readers": rng.integers(0, 16, (*bags, SIDE_PX, SIDE_PX)).astype(np.uint8),
        "weight": weight.astype(np.float32),
        "scan": (np.arange(BATCH) // 2).astype(np.int32),
        "z_mm": rng.uniform(0, 20, BATCH).astype(np.float32),
        "spacing_mm": rng.uniform(0.5, 0.9, bags).astype(np.float32),
        "ratings": rng.integers(0, 5, (*bags, 4, 9)).astype(np.int32),
        "label": rng.integers(0, 2, BATCH).astype(np.float32),
        "nodule_label": rng.integers(0, 2, bags).astype(np.float32),
        "inside": (rng.random(bags) < 0.7).astype(np.float32),
    }
    arrays["inside"][..., 0] = 1  # No bag is empty.
    return {key: jnp.asarray(value) for key, value in arrays.items()}


def one_device() -> jax.sharding.Mesh:
    return jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:1])


def loss_and_gradient(name: str, devices: jax.sharding.Mesh, **choices: Any) -> tuple[Any, Any]:
    config = config_of(name, **choices)
    task = loop.TASKS[config.task](config, intensity="hu", readers=4, mesh=devices)
    batch = jax.device_put(batch_of(name), mesh.split(devices))
    params, model_state = jax.jit(task.init)(jax.random.key(0), batch)
    params = jax.tree.map(lambda p: p + 0.01, params)  # A new block, whose last scale is zero, has little to tell.
    gradient = jax.jit(jax.value_and_grad(task.loss_fn, has_aux=True))
    (loss, _), grads = gradient(params, model_state, batch, jax.random.key(1))
    return jax.device_get(loss), jax.device_get(grads)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["segment", "simclr", *LIKE_THESE])
def test_the_gradient_is_that_of_the_whole_batch(name: str):
    one, eight = one_device(), mesh.make_mesh(BATCH)
    loss, gradient = loss_and_gradient(name, one)
    size = np.sqrt(sum(np.sum(leaf**2) for leaf in jax.tree.leaves(gradient)))
    assert size > 1e-3
    for devices, choices in (
        (one, {"remat": True}),
        (eight, {"accumulate": 2}),
    ):
        other_loss, other = loss_and_gradient(name, devices, **choices)
        np.testing.assert_allclose(other_loss, loss, rtol=1e-5)
        apart = jax.tree.map(lambda a, b: np.sum((a - b) ** 2), other, gradient)
        assert np.sqrt(sum(jax.tree.leaves(apart))) < 2e-5 * size, choices


def test_parts_and_remat_keep_less_for_the_backward_pass():
    kept = {}
    for label, choices in {"whole": {}, "parts": {"accumulate": 4}, "remat": {"remat": True}}.items():
        config = config_of("segment", **choices)
        task = loop.TASKS["segment"](config, intensity="hu", readers=4, mesh=one_device())
        batch = jax.eval_shape(lambda: batch_of("segment"))
        params, model_state = jax.eval_shape(task.init, jax.random.key(0), batch)

        def backward(params: Any, model_state: Any, batch: Any, task: Any = task) -> Any:
            return jax.vjp(lambda p: task.loss_fn(p, model_state, batch, jax.random.key(0))[0], params)[1]

        residuals = jax.tree.leaves(jax.eval_shape(backward, params, model_state, batch))
        kept[label] = sum(leaf.size * leaf.dtype.itemsize for leaf in residuals)
    assert kept["parts"] < 0.5 * kept["whole"]
    assert kept["remat"] < 0.5 * kept["whole"]


def test_what_cannot_be_divided_is_told():
    for name, choices, sentence in (
        ("segment", {"accumulate": 3}, r"16 is not a multiple of config\.accumulate 3 times the 8 devices"),
        ("classify", {"accumulate": 2, "model.encoder.norm": "batch"}, r"config\.accumulate is 2, but BatchNorm"),
        ("segment", {"accumulate": 0}, r"config\.accumulate is 0; it must be at least 1"),
    ):
        with pytest.raises(InputError, match=sentence):
            loop.check_config(config_of(name, **choices))
