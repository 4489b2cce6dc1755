"""The optimizers against their formulas in NumPy, warm-up, decay and clipping included."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import pytest

from lungjax.errors import InputError
from lungjax.train import mesh, state, step

STEPS, WARMUP_STEPS = 8, 2
LEARNING_RATE, DECAY, CLIP = 0.3, 0.1, 1.0


def config(name: str) -> ml_collections.ConfigDict:
    return ml_collections.ConfigDict(
        {
            "name": name,
            "learning_rate": LEARNING_RATE,
            "weight_decay": DECAY,
            "warmup": WARMUP_STEPS / STEPS,
            "clip_norm": CLIP,
        }
    )


def rate(done: int) -> float:
    """Linear from zero, then half a cosine down to zero."""
    if done < WARMUP_STEPS:
        return LEARNING_RATE * done / WARMUP_STEPS
    return LEARNING_RATE * 0.5 * (1 + np.cos(np.pi * (done - WARMUP_STEPS) / (STEPS - WARMUP_STEPS)))


class Lars:
    """You et al. 2017, algorithm 1: momentum of 0.9, trust coefficient of 0.001."""

    def __init__(self) -> None:
        self.momentum = {"kernel": np.zeros((3, 4)), "bias": np.zeros(4)}

    def move(self, name: str, value: np.ndarray, gradient: np.ndarray, done: int) -> np.ndarray:
        if name == "kernel":  # Biases are neither decayed nor scaled.
            gradient = gradient + DECAY * value
            gradient = gradient * (0.001 * np.linalg.norm(value) / np.linalg.norm(gradient))
        self.momentum[name] = 0.9 * self.momentum[name] + rate(done) * gradient
        return value - self.momentum[name]


class AdamW:
    """Loshchilov & Hutter 2019, algorithm 2."""

    def __init__(self) -> None:
        self.moments = {"kernel": np.zeros((2, 3, 4)), "bias": np.zeros((2, 4))}

    def move(self, name: str, value: np.ndarray, gradient: np.ndarray, done: int) -> np.ndarray:
        first, second = self.moments[name]
        first[...] = 0.9 * first + 0.1 * gradient
        second[...] = 0.999 * second + 0.001 * gradient**2
        mean, square = first / (1 - 0.9 ** (done + 1)), second / (1 - 0.999 ** (done + 1))
        decay = DECAY * value if name == "kernel" else 0.0
        return value - rate(done) * (mean / (np.sqrt(square) + 1e-8) + decay)


@pytest.mark.parametrize(("name", "rule"), [("lars", Lars), ("adamw", AdamW)])
def test_an_optimizer_follows_its_formula(name: str, rule: type[Lars] | type[AdamW]):
    rng = np.random.default_rng(0)
    expected = {"kernel": rng.normal(size=(3, 4)), "bias": rng.normal(size=4)}
    params: Any = {key: jnp.asarray(value, jnp.float32) for key, value in expected.items()}
    optimizer, reference = step.make_optimizer(config(name), STEPS), rule()
    opt_state = optimizer.init(params)
    for done in range(STEPS):
        strength = 3.0 if done % 2 else 0.05  # Clipped, and not.
        grads = {key: strength * rng.normal(size=value.shape) for key, value in expected.items()}
        norm = np.sqrt(sum(np.sum(gradient**2) for gradient in grads.values()))
        assert (norm > CLIP) == (done % 2 == 1)
        clipped = {key: gradient * min(1.0, CLIP / norm) for key, gradient in grads.items()}
        expected = {key: reference.move(key, value, clipped[key], done) for key, value in expected.items()}
        with jax.numpy_dtype_promotion("standard"):
            updates, opt_state = optimizer.update(
                {key: jnp.asarray(gradient, jnp.float32) for key, gradient in grads.items()}, opt_state, params
            )
        params = optax.apply_updates(params, updates)
        for key, value in expected.items():
            np.testing.assert_allclose(params[key], value, rtol=1e-4, atol=1e-5)


class Line:
    """A task of one number p whose loss is p * x: its gradient is what the batch says."""

    @staticmethod
    def init(rng, batch):
        return {"p": jnp.ones((1,), jnp.float32)}, {"seen": jnp.zeros((1,), jnp.float32)}

    @staticmethod
    def loss_fn(params, model_state, batch, rng):
        return jnp.sum(params["p"]) * jnp.mean(batch), ({}, {"seen": model_state["seen"] + 1})


@pytest.mark.parametrize("decay", [0.0, 0.2, 0.999])
def test_the_average_forgets_by_its_decay_and_by_less_at_first(decay: float):
    task: Any = Line
    devices, optimizer = mesh.make_mesh(8), optax.sgd(0.5)
    now = state.create_state(task, optimizer, jax.random.key(0), None, averaged=decay > 0)
    train_step = step.make_train_step(task, optimizer, devices, jax.random.key(0), average_decay=decay)
    now = jax.device_put(now, mesh.replicated(devices))
    p, seen, average = 1.0, 0.0, np.array([1.0, 0.0])
    for done, slope in enumerate([1.0, -2.0, 0.5, 3.0]):
        now, _ = train_step(now, jax.device_put(jnp.full((8,), slope, jnp.float32), mesh.split(devices)))
        p, seen = p - 0.5 * slope, seen + 1
        keep = min(decay, (1 + done) / (10 + done))
        average = keep * average + (1 - keep) * np.array([p, seen])
        params, model_state = now.scored
        np.testing.assert_allclose([params["p"][0], model_state["seen"][0]], average if decay else [p, seen], rtol=1e-5)
        np.testing.assert_allclose(now.params["p"][0], p, rtol=1e-6)


def test_another_optimizer_is_refused():
    with pytest.raises(InputError, match=r"config\.optimizer\.name is 'sgd'; use 'adamw' or 'lars'"):
        step.make_optimizer(config("sgd"), STEPS)


@pytest.mark.parametrize("name", ["lars", "adamw"])
@pytest.mark.parametrize("encoder_rate", [0.0, 0.1])
def test_the_encoder_learns_more_slowly(name: str, encoder_rate: float):
    rng = np.random.default_rng(0)
    params: Any = {part: {"kernel": jnp.asarray(rng.normal(size=(3, 4)), jnp.float32)} for part in ("encoder", "head")}
    moved = {}
    for rate in (1.0, encoder_rate):
        choices = config(name)
        choices.encoder_rate = rate
        optimizer = step.make_optimizer(choices, STEPS)
        opt_state, updates = optimizer.init(params), params
        for _ in range(2):  # The first learning rate is 0.
            with jax.numpy_dtype_promotion("standard"):
                updates, opt_state = optimizer.update(params, opt_state, params)
        moved[rate] = updates
    np.testing.assert_allclose(moved[encoder_rate]["head"]["kernel"], moved[1.0]["head"]["kernel"], rtol=1e-6)
    expected = encoder_rate * moved[1.0]["encoder"]["kernel"]
    assert np.abs(moved[1.0]["encoder"]["kernel"]).max() > 0
    np.testing.assert_allclose(moved[encoder_rate]["encoder"]["kernel"], expected, rtol=1e-6)
