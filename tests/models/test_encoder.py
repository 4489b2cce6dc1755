import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lungjax.models.encoder import ResNet


def shapes(model, image_shape):
    x = jax.ShapeDtypeStruct(image_shape, jnp.float32)
    return jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x, train=True), x)


@pytest.mark.parametrize("depth", [10, 18, 34, 50])
@pytest.mark.parametrize(
    ("stem", "stride"),
    [
        ({"stem": "conv"}, 1),
        ({"stem": "patch"}, 2),
        ({"stem": "patch", "patch_px": 4}, 4),
        ({"stem": "torchvision"}, 4),
    ],
)
@pytest.mark.parametrize("norm", ["group", "batch"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_feature_maps_are_four_scales_of_the_image(depth, stem, stride, norm, dtype):
    model = ResNet(depth=depth, width=16, **stem, norm=norm, dtype=dtype)
    features, variables = shapes(model, (2, 32, 64, 1))
    expansion = 4 if depth == 50 else 1
    assert [f.shape for f in features] == [
        (2, 32 // s, 64 // s, 16 * expansion * s // stride) for s in (stride, 2 * stride, 4 * stride, 8 * stride)
    ]
    assert {f.dtype for f in features} == {jnp.dtype(dtype)}
    assert {p.dtype for p in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
    assert model.total_stride == 8 * stride


def test_resnet18_has_the_parameters_of_the_paper():
    # Table 1 of He et al. 2016, for one input channel and a 3x3 stem: a stage is four 3x3 convolutions, a
    # projection where the width changes, and two parameters a channel for each norm.
    width, expected = 64, 9 * 64 + 2 * 64
    before = width
    for channels in (64, 128, 256, 512):
        expected += 9 * before * channels + 3 * 9 * channels**2 + 4 * 2 * channels
        expected += 0 if before == channels else before * channels + 2 * channels
        before = channels
    _, variables = shapes(ResNet(depth=18, width=64), (1, 16, 16, 1))
    assert sum(p.size for p in jax.tree.leaves(variables)) == expected


def test_group_normed_features_of_an_image_ignore_the_rest_of_the_batch():
    model = ResNet(depth=10, width=8, stem="patch")
    x = jax.random.normal(jax.random.key(0), (3, 16, 16, 1))
    variables = jax.jit(lambda x: model.init(jax.random.key(1), x, train=False))(x)
    apply = jax.jit(lambda x: model.apply(variables, x, train=True))
    others = x.at[1:].multiply(-3.0)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[:1], b[:1], atol=1e-5), apply(x), apply(others))


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="The image is 24x20 px; both must be multiples of 8"):
        shapes(ResNet(depth=18, width=8), (1, 24, 20, 1))
    with pytest.raises(ValueError, match="norm is 'layer'; use 'group' or 'batch'"):
        shapes(ResNet(norm="layer"), (1, 16, 16, 1))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="depth is 20"):
        shapes(ResNet(depth=20), (1, 16, 16, 1))
