"""The grader: what it measures of an outline is what the outline holds, by hand; its encoder is a SimCLR run's."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lungjax.models import nodule_net
from lungjax.models.encoder import ResNet
from lungjax.models.nodule_net import NoduleNet


def _network(norm: str = "batch", **options) -> NoduleNet:
    encoder = ResNet(depth=10, width=8, norm=norm, stem="patch", patch_px=2)  # pyright: ignore[reportArgumentType]
    return NoduleNet(encoder=encoder, width=8, hidden=16, outputs=5, pixel_mm=0.5, **options)


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_shapes_and_dtypes(norm: str):
    network = _network(norm)
    x = jax.random.uniform(jax.random.key(0), (2, 32, 32, 1), jnp.float32)
    variables = network.init(jax.random.key(1), x, train=False)
    found: Any = network.apply(variables, x, train=False)
    said, pixels, hidden = found
    assert hidden.shape == (2, 16)
    assert (said.shape, said.dtype, pixels.shape, pixels.dtype) == ((2, 5), jnp.float32, (2, 32, 32), jnp.float32)
    assert np.isfinite(said).all()
    alone = ResNet(depth=10, width=8, norm=norm, stem="patch", patch_px=2)  # pyright: ignore[reportArgumentType]
    bare = alone.init(jax.random.key(1), x, train=False)
    assert jax.tree.map(jnp.shape, bare["params"]) == jax.tree.map(jnp.shape, variables["params"]["encoder"])


def test_size_is_the_logarithm_of_square_millimetres():
    inside = np.zeros((2, 8, 8), np.float32)
    inside[0, 2:6, 1:4] = 1  # 12 px of 0.25 mm2; and nothing.
    expected = [np.log(3 + 3.0) - 3, np.log(3.0) - 3]
    np.testing.assert_allclose(nodule_net._size(jnp.array(inside), 0.5), [[one, one**2] for one in expected], rtol=1e-6)


def test_means_are_of_what_lies_inside():
    rng = np.random.default_rng(0)
    inside = rng.random((2, 8, 8)).astype(np.float32)
    for side in (8, 4, 2):
        x = rng.normal(size=(2, side, side, 3)).astype(np.float32)
        fine = np.repeat(np.repeat(x, 8 // side, axis=1), 8 // side, axis=2)
        wanted = (fine * inside[..., None]).sum((1, 2)) / inside.sum((1, 2))[:, None]
        np.testing.assert_allclose(
            nodule_net._mean_within(jnp.array(x), jnp.array(inside)), wanted, rtol=0.02, atol=0.02
        )
    assert not nodule_net._mean_within(jnp.ones((1, 4, 4, 1)), jnp.zeros((1, 8, 8))).any()


def test_training_drops_features_and_learns_statistics():
    network = _network(dropout=0.5)
    x = jax.random.uniform(jax.random.key(0), (4, 32, 32, 1), jnp.float32)
    variables = network.init(jax.random.key(1), x, train=False)

    def said(seed: int) -> jax.Array:
        (logits, *_), state = network.apply(
            variables, x, train=True, rngs={"dropout": jax.random.key(seed)}, mutable=["batch_stats"]
        )
        before, after = (jax.tree.leaves(one["batch_stats"]) for one in (variables, state))
        assert all((a != b).any() for a, b in zip(before, after, strict=True))
        return logits

    assert not np.allclose(said(0), said(1))
    np.testing.assert_array_equal(said(0), said(0))
