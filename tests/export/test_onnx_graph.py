"""JAX's operations as ONNX Runtime runs them, one small function each, for batches of any size."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest
from jax import lax

from lungjax.data import distort
from lungjax.errors import InputError
from lungjax.export import onnx_graph

CONSTANT = jnp.arange(24.0).reshape(6, 4) / 24


def _looped(x: jax.Array, *, reverse: bool) -> tuple[jax.Array, jax.Array]:
    """A loop that carries something, and gives something at every step."""

    def step(carried: jax.Array, one: jax.Array) -> tuple[jax.Array, jax.Array]:
        return carried * 0.5 + one, carried - one

    return lax.scan(step, x[:, 0], jnp.moveaxis(x, 1, 0), reverse=reverse)


def _resampled(x: jax.Array) -> jax.Array:
    """Beyond the border, too."""
    matrix = jnp.eye(2) * (1 + jnp.abs(x[0, 0]))
    return distort.resample(x, matrix, jnp.array([0.3, -2.0]), order=1, side_px=5)


FUNCTIONS: dict[str, Callable[[jax.Array], jax.Array | tuple[jax.Array, ...]]] = {
    "the batch in a shape": lambda x: x.reshape(-1, 2, 3) * 2,
    "a constant for each of the batch": lambda x: jnp.broadcast_to(CONSTANT[None], (x.shape[0], 6, 4)) + x[:, :, :1],
    "turned over": lambda x: jnp.flip(x, (1, 2)),
    "every second": lambda x: x[:, 1:5:2],
    "an index": lambda x: x[:, 2],
    "two indices": lambda x: x[:, 2, 1],
    "a window": lambda x: x[:, 2:4, :1],
    "repeated": lambda x: jnp.repeat(x, 2, axis=1),
    "taken apart": lambda x: jnp.stack([row * number for number, row in enumerate(jnp.moveaxis(x, 1, 0))], axis=1),
    "stacked": lambda x: jnp.stack([x, x + 1], axis=1)[:, 1],
    "matrices": lambda x: x @ CONSTANT.T,
    "chosen": lambda x: jnp.where((x > 0) & (x != 1) | ~(x < -1), x, -jnp.abs(x)),
    "whole numbers": lambda x: ((x * 4).astype(jnp.int32) % 3).astype(jnp.float32),
    "signs of remainders": lambda x: lax.rem(jnp.floor(x * 4), jnp.float32(3)),
    "powers": lambda x: jnp.square(x) + lax.rsqrt(jnp.abs(x) + 1) + jnp.sqrt(jnp.abs(x)),
    "softmax": lambda x: jax.nn.softmax(x, axis=1),
    "normalised": lambda x: (x - x.mean(axis=1, keepdims=True)) / (x.std(axis=1, keepdims=True) + 1),
    "loop": lambda x: _looped(x, reverse=False),
    "loop, reversed": lambda x: _looped(x, reverse=True),
    "largest around": lambda x: lax.reduce_window(
        x[..., None] - 5, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), ((0, 0), (1, 1), (1, 1), (0, 0))
    ),
    "resampled": jax.vmap(_resampled),
    "what nobody asked for": lambda x: (x + 1, lax.erf_inv(jnp.sin(x)).sum())[0],
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_it_is_the_same_function(name: str):
    function = jax.jit(lambda x: jax.tree.leaves(FUNCTIONS[name](x)))
    session, names = _session(function)
    for batch in (1, 3):
        x = np.random.default_rng(batch).normal(0, 2, (batch, 6, 4)).astype(np.float32)
        found = session.run(None, {"x": x})
        for one, other in zip(found, function(x), strict=True):
            np.testing.assert_allclose(np.asarray(one), other, atol=2e-6)
        assert len(found) == len(names)


def _session(function: Callable) -> tuple[onnxruntime.InferenceSession, list[str]]:
    (batch,) = jax.export.symbolic_shape("batch")
    specs = [jax.ShapeDtypeStruct((batch, 6, 4), jnp.float32)]
    names = [f"y{number}" for number in range(len(jax.eval_shape(function, *specs)))]
    model = onnx_graph.convert(function, specs, ["x"], names)
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]), names


@pytest.mark.parametrize("stride", [1, 2])
def test_convolutions_and_their_padding(stride: int):
    kernel = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2, 1, 5)), jnp.float32)

    def convolved(x: jax.Array) -> list[jax.Array]:
        return [
            lax.conv_general_dilated(
                x[..., None], kernel, (stride, stride), ((0, 2), (1, 0)), dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
        ]

    session, _ = _session(jax.jit(convolved))
    x = np.random.default_rng(1).normal(size=(2, 6, 4)).astype(np.float32)
    np.testing.assert_allclose(np.asarray(session.run(None, {"x": x})[0]), convolved(jnp.asarray(x))[0], atol=1e-5)


def test_weights_are_stored_once():
    """A loop uses the same ones at each step."""
    weights = jnp.asarray(np.random.default_rng(0).normal(size=(4, 4)), jnp.float32)
    function = jax.jit(lambda x: [lax.scan(lambda c, _: (jnp.tanh(c @ weights), None), x, length=8)[0]])
    (batch,) = jax.export.symbolic_shape("batch")
    model = onnx_graph.convert(function, [jax.ShapeDtypeStruct((batch, 6, 4), jnp.float32)], ["x"], ["y"])
    assert model.count(np.asarray(weights).tobytes()) == 1


def test_an_unknown_operation_is_named():
    with pytest.raises(InputError, match="does not know the operation 'sort'"):
        _session(jax.jit(lambda x: [jnp.sort(x, axis=1)]))
