"""What a segmentation is trained towards, from the readers' bits."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import runs

from lungjax import losses
from lungjax.tasks import segment
from lungjax.train import mesh


def bits(*masks):
    """One reader's mask after the other -> uint8 bits."""
    return sum((np.asarray(mask, np.uint8) << reader for reader, mask in enumerate(masks)), start=np.uint8(0))


READERS = jnp.asarray(bits([[1, 1, 1, 1, 0]], [[1, 1, 1, 0, 0]], [[1, 1, 0, 0, 0]], [[1, 0, 0, 0, 0]]))[None]


def test_majority_is_two_of_four():
    np.testing.assert_array_equal(segment.reader_targets(READERS, "majority"), [[[1, 1, 1, 0, 0]]])


def test_soft_is_the_share_of_the_readers():
    np.testing.assert_array_equal(segment.reader_targets(READERS, "soft"), [[[1, 0.75, 0.5, 0.25, 0]]])
    np.testing.assert_array_equal(segment.reader_targets(jnp.full((1, 1, 1), 255, jnp.uint8), "soft"), 1.0)


@pytest.mark.parametrize("mode", ["majority", "soft", "random"])
def test_every_target_of_one_reader_is_that_ones_mask(mode):
    bits_of_one = jnp.tile(READERS & 1, (16, 1, 1))
    targets = segment.reader_targets(bits_of_one, mode, jax.random.key(0), readers=1)
    assert targets.dtype == jnp.float32
    np.testing.assert_array_equal(targets, np.tile([[1.0, 1, 1, 1, 0]], (16, 1, 1)))


def test_random_is_each_reader_equally_often():
    many = jnp.tile(READERS, (4000, 1, 1))
    targets = np.asarray(segment.reader_targets(many, "random", jax.random.key(0)))
    sizes = targets.sum((1, 2)).astype(int)
    one_reader = np.arange(5)[None, :] < sizes[:, None]
    np.testing.assert_array_equal(targets[:, 0], one_reader)
    # 1000 +- 27 each; five standard deviations.
    assert (np.abs(np.bincount(sizes, minlength=5)[1:] - 1000) < 137).all()


def test_a_mistaken_mode_is_named():
    with pytest.raises(ValueError, match="use 'majority', 'soft', or 'random' with a key"):
        segment.reader_targets(READERS, "mean")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="with a key"):
        segment.reader_targets(READERS, "random")


@pytest.mark.parametrize("pool", ["batch", "image"])
def test_the_configuration_chooses_what_dice_is_of(pool: Literal["batch", "image"]):
    """Of a network that says 1/2 everywhere, where a nodule fills one of eight images."""
    config = runs.load_config("segment")
    config.update_from_flattened_dict({"model.encoder.width": 8, "model.decoder": (16, 8, 8), "dice_pool": pool})
    task = segment.make(config, intensity="hu", readers=4, mesh=mesh.make_mesh(8))
    images, weights = jnp.zeros((8, 32, 32)), jnp.ones(8)
    marks = jnp.zeros((8, 32, 32), jnp.uint8).at[0].set(15)
    params, model_state = task.init(jax.random.key(0), {"image": images})
    params = jax.tree.map(jnp.zeros_like, params)
    loss = task.eval_fn(params, model_state, {"image": images, "readers": marks, "weight": weights}, jax.random.key(0))[
        "loss"
    ]
    targets = (marks > 0).astype(jnp.float32)
    dice = losses.dice_loss(logits=images, targets=targets, weights=weights, pool=pool)
    assert float(loss) / 8 == pytest.approx(np.log(2) + float(dice), rel=1e-5)
    assert float(dice) == pytest.approx({"batch": 1 - 1 / 5, "image": 1 - (2 / 3) / 8}[pool], abs=0.01)


def test_a_mistaken_pool_is_named():
    config = runs.load_config("segment")
    config.dice_pool = "slice"
    with pytest.raises(ValueError, match=r"config\.dice_pool is 'slice'; use one of batch, image"):
        segment.make(config, intensity="hu", readers=4, mesh=mesh.make_mesh(8))
