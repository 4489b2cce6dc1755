import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lungjax import metrics


def bits(*masks):
    """One reader's mask after the other -> uint8 bits."""
    return sum((np.asarray(mask, np.uint8) << reader for reader, mask in enumerate(masks)), start=np.uint8(0))


READERS = jnp.asarray(bits([[1, 1, 1, 1, 0]], [[1, 1, 1, 0, 0]], [[1, 1, 0, 0, 0]], [[1, 0, 0, 0, 0]]))[None]


def test_majority_is_two_of_four():
    np.testing.assert_array_equal(metrics.reader_targets(READERS, "majority"), [[[1, 1, 1, 0, 0]]])


def test_soft_is_the_share_of_the_readers():
    np.testing.assert_array_equal(metrics.reader_targets(READERS, "soft"), [[[1, 0.75, 0.5, 0.25, 0]]])
    np.testing.assert_array_equal(metrics.reader_targets(jnp.full((1, 1, 1), 255, jnp.uint8), "soft"), 1.0)


@pytest.mark.parametrize("mode", ["majority", "soft", "random"])
def test_every_target_of_one_reader_is_that_ones_mask(mode):
    bits_of_one = jnp.tile(READERS & 1, (16, 1, 1))
    targets = metrics.reader_targets(bits_of_one, mode, jax.random.key(0), slots=1)
    np.testing.assert_array_equal(targets, np.tile([[1.0, 1, 1, 1, 0]], (16, 1, 1)))


def test_random_is_each_reader_equally_often():
    many = jnp.tile(READERS, (4000, 1, 1))
    targets = np.asarray(metrics.reader_targets(many, "random", jax.random.key(0)))
    sizes = targets.sum((1, 2)).astype(int)
    one_reader = np.arange(5)[None, :] < sizes[:, None]
    np.testing.assert_array_equal(targets[:, 0], one_reader)
    # 1000 +- 27 each; five standard deviations.
    assert (np.abs(np.bincount(sizes, minlength=5)[1:] - 1000) < 137).all()


def test_a_mistaken_mode_is_named():
    with pytest.raises(ValueError, match="use 'majority', 'soft', or 'random' with a key"):
        metrics.reader_targets(READERS, "mean")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="with a key"):
        metrics.reader_targets(READERS, "random")


def test_confusion_counts_each_cell_of_each_image():
    logits = jnp.array([[[2.0, 0.1, 3.0, -1.0, -2.0, -0.1]], [[1.0, 1.0, 1.0, 1.0, 1.0, 1.0]]])
    targets = jnp.array([[[1, 1, 0, 1, 0, 0]], [[1, 0, 0, 0, 0, 0]]], bool)
    counts = metrics.confusion(logits=logits, targets=targets, weights=jnp.array([1.0, 1.0]))
    np.testing.assert_array_equal(counts, [[2, 1, 1, 2], [1, 5, 0, 0]])
    assert counts.dtype == jnp.int32
    padded = metrics.confusion(logits=logits, targets=targets, weights=jnp.array([1.0, 0.0]))
    np.testing.assert_array_equal(padded, [[2, 1, 1, 2], [0, 0, 0, 0]])


def test_confusion_is_exact_where_float32_is_not():
    side = 4097  # 16,785,409 pixels: 2**24 + 8,193
    ones = jnp.ones((1, side, side), bool)
    counts = metrics.confusion(logits=jnp.ones((1, side, side), jnp.bfloat16), targets=ones, weights=jnp.ones(1))
    assert counts[0, 0] == side**2


def test_scores_are_the_textbook_fractions():
    scores = metrics.scores(jnp.array([[6, 2, 4, 88], [1, 0, 0, 3]]))
    expected = {"dice": 12 / 18, "iou": 6 / 12, "precision": 6 / 8, "recall": 6 / 10, "accuracy": 0.94}
    assert scores.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(scores[name], [value, 1.0], rtol=1e-6)


def test_scores_of_empty_masks():
    nothing = metrics.scores(jnp.array([0, 0, 0, 9]))
    assert (nothing["dice"], nothing["iou"], nothing["accuracy"]) == (1.0, 1.0, 1.0)
    assert np.isnan(nothing["precision"])
    assert np.isnan(nothing["recall"])
    missed = metrics.scores(jnp.array([0, 0, 5, 4]))
    assert (missed["dice"], missed["iou"], missed["recall"]) == (0.0, 0.0, 0.0)
    assert np.isnan(missed["precision"])


def test_weighted_mean():
    values = jnp.array([1.0, 5.0, 9.0])
    np.testing.assert_allclose(metrics.weighted_mean(values, jnp.array([1.0, 0.0, 3.0])), 7.0)
    assert metrics.weighted_mean(values, jnp.zeros(3)) == 0.0
