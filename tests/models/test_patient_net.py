"""Gated attention by its equation; what fills a bag up changes nothing; a grader's parameters fit in."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lungjax.models.encoder import ResNet
from lungjax.models.nodule_net import NoduleNet
from lungjax.models.patient_net import PatientNet


@pytest.fixture(scope="module")
def network() -> PatientNet:
    encoder = ResNet(depth=10, width=8, norm="batch", stem="patch", patch_px=2)
    return PatientNet(grader=NoduleNet(encoder=encoder, width=8, hidden=16, outputs=5, pixel_mm=0.5), attention=4)


@pytest.fixture(scope="module")
def bag() -> tuple[jax.Array, jax.Array]:
    x = jax.random.uniform(jax.random.key(0), (2, 3, 32, 32, 1), jnp.float32)
    return x, jnp.array([[1, 1, 1], [1, 1, 0]], jnp.float32)


@pytest.fixture(scope="module")
def variables(network, bag) -> Any:
    return network.init(jax.random.key(1), *bag, train=False)


def test_attention_is_that_of_the_paper(network, bag, variables):
    x, inside = bag
    logit, weights, logits, pixels = network.apply(variables, x, inside, train=False)
    assert (logit.shape, weights.shape, logits.shape, pixels.shape) == ((2,), (2, 3), (6, 5), (6, 32, 32))
    params = variables["params"]
    alone = {"params": {k: v for k, v in params.items() if "attention" not in k and k != "answer"}}
    alone["batch_stats"] = variables["batch_stats"]
    *_, hidden = network.grader.apply(alone, x.reshape(6, 32, 32, 1), train=False)
    h = np.asarray(hidden, np.float64)

    def dense(name: str, of: np.ndarray) -> np.ndarray:
        return of @ np.asarray(params[name]["kernel"], np.float64) + np.asarray(params[name].get("bias", 0.0))

    gated = np.tanh(dense("attention_value", h)) / (1 + np.exp(-dense("attention_gate", h)))
    score = np.exp(dense("attention_score", gated)[:, 0]).reshape(2, 3) * np.asarray(inside)
    wanted = score / score.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(weights, wanted, rtol=1e-4)
    pooled = (wanted[:, :, None] * h.reshape(2, 3, -1)).sum(axis=1)
    np.testing.assert_allclose(logit, dense("answer", pooled)[:, 0], rtol=1e-3, atol=1e-5)
    assert weights[1, 2] == 0


def test_order_and_filling_change_nothing(network, bag, variables):
    x, inside = bag
    logit, weights, *_ = network.apply(variables, x, inside, train=False)
    other, turned, *_ = network.apply(variables, x[:, ::-1], inside[:, ::-1], train=False)
    np.testing.assert_allclose(other, logit, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(turned[:, ::-1], weights, rtol=1e-4)
    filled, *_ = network.apply(variables, x.at[1, 2].set(0.7), inside, train=False)
    np.testing.assert_allclose(filled[1], logit[1], rtol=1e-4, atol=1e-6)
    changed, *_ = network.apply(variables, x.at[1, 1].set(0.7), inside, train=False)
    assert not np.allclose(changed[1], logit[1], rtol=1e-4, atol=1e-6)


def test_statistics_do_not_depend_on_how_far_a_bag_is_filled(bag):
    """A patient of one nodule counts once, in a bag of one as in a bag of eight: as its nodule alone would."""
    encoder = ResNet(depth=10, width=8, norm="batch", stem="patch", patch_px=2)
    grader = NoduleNet(encoder=encoder, width=8, hidden=16, outputs=5, pixel_mm=0.5, dropout=0.0)
    network = PatientNet(grader=grader, attention=4)
    apply = jax.jit(functools.partial(network.apply, train=True, mutable=["batch_stats"]))
    init = jax.jit(functools.partial(network.init, train=False))
    images = bag[0].reshape(6, 32, 32, 1)
    counts = [1, 2]  # Nodules of the two patients.
    own = [images[:1], images[1:3]]

    def trained(nodules: int) -> tuple[Any, Any]:
        x = jnp.stack([part[jnp.arange(nodules) % len(part)] for part in own])
        inside = (jnp.arange(nodules)[None, :] < jnp.array(counts)[:, None]).astype(jnp.float32)
        (logit, _, logits, _), state = apply(init(jax.random.key(1), x, inside), x, inside)
        return state, (logit, logits[inside.reshape(-1) > 0])

    state, found = trained(2)
    for nodules in (3, 8):
        again, same = trained(nodules)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), again, state)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), same, found)
    variables = grader.init(jax.random.key(1), images, train=False)
    params = init(jax.random.key(1), bag[0], bag[1])["params"]
    alone = {"params": {name: params[name] for name in variables["params"]}, "batch_stats": variables["batch_stats"]}
    _, wanted = grader.apply(alone, images[:3], train=True, mutable=["batch_stats"])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), state, wanted)


def test_a_graders_encoder_lies_where_it_is_looked_for(variables):
    assert {"encoder", "hidden_layer", "out_layer", "answer"} <= set(variables["params"])
