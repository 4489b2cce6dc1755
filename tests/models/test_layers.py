from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lungjax.models.layers import BatchNorm, GroupNorm, depth_to_space, he_normal, space_to_depth


def test_he_normal_has_the_variance_of_its_fan_in():
    kernel = he_normal(jax.random.key(0), (3, 3, 32, 64))
    drawn_in_shape = jax.random.normal(jax.random.key(0), (3, 3, 32, 64)) * np.float32(np.sqrt(2 / (9 * 32)))
    np.testing.assert_allclose(kernel, drawn_in_shape, rtol=1e-6)


def test_group_norm_equals_flax():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(3, 2, (2, 5, 7, 32)), jnp.float32)
    scale, bias = (jnp.asarray(rng.normal(size=32), jnp.float32) for _ in range(2))
    params = {"params": {"scale": scale, "bias": bias}}
    probe = jnp.asarray(rng.normal(size=x.shape), jnp.float32)

    def value_and_gradients(module):
        def total(params, x):
            return jnp.sum(module.apply(params, x) * probe)

        return module.apply(params, x), jax.grad(total, (0, 1))(params, x)

    ours, flaxs = (value_and_gradients(m) for m in (GroupNorm(), nn.GroupNorm(num_groups=None, group_size=16)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4), ours, flaxs)


@pytest.mark.parametrize(("channels", "group"), [(16, 16), (24, 8), (32, 16), (12, 12), (6, 6)])
def test_groups_fit_the_channels(channels, group):
    x = np.random.default_rng(0).normal(1, 3, (1, 4, 4, channels))
    grouped = x.reshape(1, 16, -1, group)
    expected = (grouped - grouped.mean((1, 3), keepdims=True)) / grouped.std((1, 3), keepdims=True)
    y, _ = GroupNorm().init_with_output(jax.random.key(0), jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(y, expected.reshape(x.shape), atol=1e-5)


def test_batch_norm_updates_its_statistics_in_training_only():
    x = 5.0 + 2.0 * jax.random.normal(jax.random.key(0), (4, 8, 8, 3))
    variables: Any = BatchNorm().init(jax.random.key(1), x, train=True)
    y, updated = BatchNorm().apply(variables, x, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(y.mean(axis=(0, 1, 2)), 0.0, atol=1e-5)
    mean: Any = updated["batch_stats"]["norm"]["mean"]
    np.testing.assert_allclose(mean, 0.1 * x.mean(axis=(0, 1, 2)), rtol=1e-5)
    still: Any = BatchNorm().apply(variables, x, train=False)  # Running mean 0 and variance 1: nothing to do.
    np.testing.assert_allclose(still, x, rtol=1e-4)


def test_batch_norm_leaves_out_what_only_fills_a_batch_up():
    x = 5.0 + 2.0 * jax.random.normal(jax.random.key(0), (4, 8, 8, 3))
    mask = jnp.array([True, False, True, True])
    variables: Any = BatchNorm().init(jax.random.key(1), x, train=True)
    alone, wanted = BatchNorm().apply(variables, x[mask], train=True, mutable=["batch_stats"])
    for filling in (x[1], 0 * x[1], x[1] * 1e3):
        y, updated = BatchNorm().apply(variables, x.at[1].set(filling), train=True, mask=mask, mutable=["batch_stats"])
        np.testing.assert_allclose(y[mask], alone, rtol=1e-4, atol=1e-5)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), updated, wanted)
    _, of_all_four = BatchNorm().apply(variables, x.at[1].set(0.0), train=True, mutable=["batch_stats"])
    means: list[Any] = [state["batch_stats"]["norm"]["mean"] for state in (of_all_four, wanted)]
    assert not np.allclose(*means, rtol=1e-2)


def test_space_to_depth_keeps_each_patch_together_and_has_an_inverse():
    x = jnp.arange(2 * 4 * 6 * 3, dtype=jnp.float32).reshape(2, 4, 6, 3)
    deep = space_to_depth(x, 2)
    assert deep.shape == (2, 2, 3, 12)
    np.testing.assert_array_equal(deep[1, 1, 2].reshape(2, 2, 3), x[1, 2:4, 4:6])
    np.testing.assert_array_equal(depth_to_space(deep, 2), x)
