"""The candidate classifier's task: a loss of labels alone, and predictions that follow the middle of the stack."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import runs

from lungjax.data import augment
from lungjax.tasks import sift
from lungjax.train import mesh

SIDE_PX = 48


def config() -> Any:
    config = runs.load_config("sift")
    config.model.encoder.width = config.model.hidden = 8
    config.patch.side_px = 32
    return config


def batch(number: int = 8) -> dict[str, jax.Array]:
    """Balls, in one plane or in all; the first kind is a nodule."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:SIDE_PX, :SIDE_PX] - (SIDE_PX - 1) / 2
    hu = np.full((number, 3, SIDE_PX, SIDE_PX), -850.0)
    disc = np.hypot(rows, columns) < 5
    for place in range(number):
        hu[place, 1][disc] = 30
        if place % 2:
            hu[place][:, disc] = 30
    return {
        "image": jnp.asarray(hu + rng.normal(0, 20, hu.shape), jnp.int16),
        "label": jnp.asarray(np.arange(number) % 2 == 0, jnp.float32),
        "spacing_mm": jnp.full(number, 0.7, jnp.float32),
        "weight": jnp.ones(number, jnp.float32),
    }


@pytest.fixture(scope="module")
def made() -> tuple[Any, Any, Any]:
    task = sift.make(config(), intensity="hu", readers=4, mesh=mesh.make_mesh(8))
    params, model_state = jax.jit(task.init)(jax.random.key(0), batch())
    return task, params, model_state


def test_padding_counts_for_nothing(made: Any):
    task, params, state = made
    whole = batch()
    loss = jax.jit(task.loss_fn)(params, state, {**whole, "weight": whole["weight"].at[4:].set(0)}, jax.random.key(1))[
        0
    ]
    changed = {**whole, "weight": whole["weight"].at[4:].set(0), "label": whole["label"].at[4:].set(0.5)}
    assert jax.jit(task.loss_fn)(params, state, changed, jax.random.key(1))[0] == loss
    sums = jax.jit(task.eval_fn)(params, state, {**whole, "weight": whole["weight"].at[4:].set(0)}, jax.random.key(1))
    assert (float(sums["benign"].sum()), float(sums["malignant"].sum())) == (2.0, 2.0)


def test_a_turned_or_flipped_stack_gives_the_same_logit(made: Any):
    task, params, state = made
    whole = batch()
    predict = jax.jit(task.predict)
    expected = predict(params, state, whole)["logit"]
    for other in (jnp.rot90(whole["image"], 1, (2, 3)), whole["image"][:, :, ::-1], whole["image"][..., ::-1]):
        np.testing.assert_allclose(predict(params, state, {**whole, "image": other})["logit"], expected, atol=2e-4)


def test_it_learns_what_only_the_planes_together_show(made: Any):
    """A ball in one plane and a rod through all look alike in the middle plane."""
    task, params, state = made
    whole, learning_rate = batch(16), 0.02
    step = jax.jit(jax.value_and_grad(lambda p, key: task.loss_fn(p, state, whole, key)[0]))
    moment = jax.tree.map(jnp.zeros_like, params)
    for number in range(60):
        _, gradient = step(params, jax.random.key(number))
        moment = jax.tree.map(lambda m, g: 0.9 * m + g / (jnp.linalg.norm(g) + 1e-6), moment, gradient)
        params = jax.tree.map(lambda p, m: p - learning_rate * m, params, moment)
    logit = jax.jit(task.predict)(params, state, whole)["logit"]
    nodules = np.asarray(whole["label"]) > 0.5
    assert logit[nodules].min() > logit[~nodules].max()


def test_augmentation_keeps_size_and_place():
    stack = jnp.asarray(batch(1)["image"][0], jnp.float32)
    options = {"side_px": 40, "pixel_mm": 0.7, "zoom": 0.0, "shift_mm": 0.0, "contrast": 0.0, "offset_hu": 0.0}
    for number in range(4):
        out = augment.stack(jax.random.key(number), stack, jnp.float32(0.7), noise_hu=0.0, one_plane=0.0, **options)
        assert out.shape == (40, 40, 3)
        assert float((out[..., 1] > -400).sum()) == pytest.approx(np.pi * 25, rel=0.12)
        assert float((out[..., 0] > -400).sum()) == 0
    alike = augment.stack(jax.random.key(0), stack, jnp.float32(0.7), noise_hu=0.0, one_plane=1.0, **options)
    np.testing.assert_array_equal(alike[..., 0], alike[..., 1])
    coarse = augment.stack(jax.random.key(0), stack, jnp.float32(1.4), noise_hu=0.0, one_plane=0.0, **options)
    assert float((coarse[..., 1] > -400).sum()) == pytest.approx(4 * np.pi * 25, rel=0.12)
