"""What a segmentation is trained towards, from the readers' bits."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lungjax.tasks import segment


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
