from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lungjax.models.heads import Projection


def test_projection_is_dense_norm_relu_dense():
    head = Projection(hidden=12, out=5)
    x = jax.random.normal(jax.random.key(0), (3, 7))
    variables = head.init(jax.random.key(1), x)
    params = jax.tree.map(np.float64, variables["params"])
    hidden = np.float64(x) @ params["hidden_layer"]["kernel"]
    hidden = (hidden - hidden.mean(1, keepdims=True)) / hidden.std(1, keepdims=True)
    y: Any = head.apply(variables, x)
    np.testing.assert_allclose(y, np.maximum(hidden, 0) @ params["out_layer"]["kernel"], atol=1e-4)


def test_projection_of_bfloat16_gives_float32():
    y, variables = Projection(hidden=12, out=5, dtype=jnp.bfloat16).init_with_output(
        jax.random.key(0), jnp.ones((3, 7), jnp.bfloat16)
    )
    assert y.dtype == jnp.float32
    assert {p.dtype for p in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
