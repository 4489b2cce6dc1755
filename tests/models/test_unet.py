from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lungjax import losses
from lungjax.models.encoder import ResNet
from lungjax.models.layers import depth_to_space
from lungjax.models.unet import UNet


@pytest.mark.parametrize(
    "stem", [{"stem": "conv"}, {"stem": "patch"}, {"stem": "patch", "patch_px": 4}, {"stem": "torchvision"}]
)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_logits_lie_on_the_grid_of_the_image(stem, dtype):
    model = UNet(
        encoder=ResNet(depth=10, width=8, **stem, dtype=dtype),
        widths=(32, 16, 8),
        out_channels=3,
        dtype=dtype,
    )
    x = jax.ShapeDtypeStruct((2, 32, 64, 1), jnp.float32)
    logits, variables = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x, train=True), x)
    assert (logits.shape, logits.dtype) == ((2, 32, 64, 3), jnp.float32)
    assert {p.dtype for p in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_a_pretrained_encoder_fits_in(norm):
    encoder = ResNet(depth=10, width=8, norm=norm)
    x = jnp.zeros((1, 16, 16, 1))
    alone = jax.eval_shape(lambda: encoder.init(jax.random.key(0), x, train=True))
    whole = jax.eval_shape(lambda: UNet(encoder=encoder, widths=(8, 8, 8)).init(jax.random.key(0), x, train=True))
    for collection in alone:
        assert whole[collection]["encoder"] == alone[collection]


def test_upsampling_is_a_transposed_convolution():
    x = jax.random.normal(jax.random.key(0), (2, 3, 5, 6))
    dense = nn.Dense(4 * 7)
    variables: Any = dense.init(jax.random.key(1), x)
    kernel = variables["params"]["kernel"].reshape(6, 2, 2, 7).transpose(1, 2, 0, 3)  # (row, column, in, out)
    transposed = jax.lax.conv_transpose(  # It correlates, hence the kernel turned round.
        x, kernel[::-1, ::-1], (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    upsampled = depth_to_space(x @ variables["params"]["kernel"], 2)
    np.testing.assert_allclose(upsampled, transposed, atol=1e-5)


@pytest.mark.parametrize("stem", [pytest.param("conv", marks=pytest.mark.slow), "patch"])
def test_learns_to_outline_a_disk(stem):
    side_px = 32
    rows, columns = np.mgrid[:side_px, :side_px]
    rng = np.random.default_rng(0)
    centres = rng.uniform(8, 24, (8, 2, 1, 1))
    targets = jnp.asarray(np.hypot(rows - centres[:, 0], columns - centres[:, 1]) < 5, jnp.float32)
    images = 0.5 * targets + jnp.asarray(rng.normal(0.2, 0.1, targets.shape), jnp.float32)
    model = UNet(encoder=ResNet(depth=10, width=8, stem=stem), widths=(16, 8, 8))
    params = jax.jit(lambda x: model.init(jax.random.key(0), x, train=True))(images[..., None])
    optimizer = optax.adam(1e-2)

    def loss(params):
        logits: Any = model.apply(params, images[..., None], train=True)
        return losses.dice_loss(logits=logits[..., 0], targets=targets, weights=jnp.ones(len(images)))

    @jax.jit
    def step(params, opt_state):
        value, grads = jax.value_and_grad(loss)(params)
        with jax.numpy_dtype_promotion("standard"):  # Optax needs it.
            updates, opt_state = optimizer.update(grads, opt_state)
        return optax.apply_updates(params, updates), opt_state, value

    opt_state = optimizer.init(params)
    values = []
    for _ in range(60):
        params, opt_state, value = step(params, opt_state)
        values.append(float(value))
    assert values[0] > 0.5 > 0.1 > values[-1]


def test_mistakes_are_named():
    def init(model, height, width):
        jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, height, width, 1)), train=True))

    with pytest.raises(ValueError, match="The image is 40x24 px; both must be multiples of 16"):
        init(UNet(encoder=ResNet(stem="patch")), 40, 24)
    with pytest.raises(ValueError, match="widths has 2 levels, the encoder has 3 feature maps to join"):
        init(UNet(encoder=ResNet(width=8), widths=(8, 8)), 16, 16)
