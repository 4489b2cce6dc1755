"""Scores against hand-made masks, and their identities; host and device say the same, of empty masks too."""

from __future__ import annotations

import itertools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lungjax import metrics
from lungjax.evaluation.classification import binary_scores

LIBRARIES = pytest.mark.parametrize("library", [np, jnp], ids=["host", "device"])


@LIBRARIES
def test_majority_is_two_readers_or_the_only_one(library):
    bits = library.asarray([[[0b0000, 0b0001, 0b0011], [0b1010, 0b0111, 0b1111]]], dtype="uint8")
    two = metrics.majority(bits)
    assert type(two) is type(bits)
    np.testing.assert_array_equal(two, [[[False, False, True], [True, True, True]]])
    np.testing.assert_array_equal(metrics.majority(bits, readers=3), two)
    one = metrics.majority(bits, readers=1)
    np.testing.assert_array_equal(one, [[[False, True, True], [True, True, True]]])
    votes = library.asarray([0, 1, 2, 4], dtype="int32")
    np.testing.assert_array_equal(metrics.majority_of_votes(votes), [False, False, True, True])
    np.testing.assert_array_equal(metrics.majority_of_votes(votes, readers=1), [False, True, True, True])


@LIBRARIES
def test_the_share_of_readers_is_one_at_most(library):
    bits = library.asarray([0b0000, 0b1000, 0b0110, 0b1111, 0b111111], dtype="uint8")
    np.testing.assert_array_equal(metrics.share_of_readers(bits), [0, 0.25, 0.5, 1, 1])
    np.testing.assert_array_equal(metrics.share_of_readers(bits, readers=2), [0, 0.5, 1, 1, 1])


@LIBRARIES
def test_counts_and_scores_by_hand(library):
    prediction = library.asarray([[[1, 1, 1, 0]], [[0, 0, 0, 0]]], dtype=bool)
    target = library.asarray([[[1, 1, 0, 1]], [[0, 0, 0, 0]]], dtype=bool)
    counts = metrics.confusion(prediction, target)
    np.testing.assert_array_equal(counts, [[2, 1, 1, 0], [0, 0, 0, 4]])
    assert counts.dtype == (np.int64 if library is np else np.int32)
    scores = metrics.scores(counts)
    assert tuple(scores) == metrics.SCORES
    # Slice 0: dice 4/6, iou 2/4, precision 2/3, recall 2/3, accuracy 2/4. Slice 1: two empty masks agree.
    for name, value in {"dice": 2 / 3, "iou": 1 / 2, "precision": 2 / 3, "recall": 2 / 3, "accuracy": 1 / 2}.items():
        assert scores[name].dtype == (np.float64 if library is np else np.float32)
        np.testing.assert_allclose(scores[name], [value, 1], rtol=1e-6)


@LIBRARIES
@pytest.mark.parametrize("counts", [(0, 0, 5, 11), (0, 5, 0, 11)], ids=["nothing predicted", "nothing there"])
def test_one_empty_mask_scores_zero(library, counts: tuple[int, ...]):
    scores = metrics.scores(library.asarray(counts, dtype="int32"))
    np.testing.assert_allclose([float(scores[name]) for name in metrics.SCORES], [0, 0, 0, 0, 11 / 16])


@LIBRARIES
def test_two_empty_masks_agree(library):
    for counts in ((0, 0, 0, 9), (0, 0, 0, 0)):
        scores = metrics.scores(library.asarray(counts, dtype="int32"))
        assert [float(scores[name]) for name in metrics.SCORES] == [1, 1, 1, 1, 1]
    assert float(metrics.dice(library.asarray(0), library.asarray(0))) == 1
    assert float(metrics.iou(library.asarray(0), library.asarray(0))) == 1


def test_host_and_device_agree_on_every_pair_of_small_masks():
    """All 256 pairs of masks of 2 x 2 pixels, the empty ones among them; jitted, as in a training step."""
    masks = np.array(list(itertools.product([False, True], repeat=4))).reshape(16, 2, 2)
    prediction, target = np.repeat(masks, 16, axis=0), np.tile(masks, (16, 1, 1))
    counts = metrics.confusion(prediction, target)
    assert len(np.unique(counts, axis=0)) == 35  # As many ways to part four pixels among four kinds.
    on_device = jax.jit(metrics.confusion)(prediction, target)
    np.testing.assert_array_equal(on_device, counts)
    scores, theirs = metrics.scores(counts), jax.jit(metrics.scores)(on_device)
    pooled, pooled_there = metrics.scores(counts.sum(axis=0)), metrics.scores(on_device.sum(axis=0))
    for name in metrics.SCORES:
        assert np.isfinite(scores[name]).all()
        np.testing.assert_allclose(theirs[name], scores[name], rtol=1e-6, atol=0)
        np.testing.assert_allclose(pooled_there[name], pooled[name], rtol=1e-6, atol=0)
    bits = np.arange(256, dtype=np.uint8)
    there = jnp.asarray(bits)
    for readers in (1, 2, 3, 4):
        for of_bits in (metrics.majority, metrics.share_of_readers):
            np.testing.assert_allclose(of_bits(there, readers=readers), of_bits(bits, readers=readers), rtol=1e-6)


def test_counts_are_exact_where_float32_is_not():
    side = 4097  # 16,785,409 pixels: 2**24 + 8,193
    ones = jnp.ones((1, side, side), bool)
    assert metrics.confusion(ones, ones)[0, 0] == side**2


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.int64, st.tuples(st.integers(1, 6), st.just(4)), elements=st.integers(0, 9)))
def test_scores_hold_their_identities(counts: np.ndarray):
    scores = metrics.scores(counts)
    swapped = metrics.scores(counts[:, [0, 2, 1, 3]])  # Prediction and target change places.
    assert all(((value >= 0) & (value <= 1)).all() for value in scores.values())
    np.testing.assert_allclose(scores["iou"], scores["dice"] / (2 - scores["dice"]))
    np.testing.assert_allclose(scores["precision"], swapped["recall"])
    np.testing.assert_allclose(scores["dice"], swapped["dice"])


@LIBRARIES
def test_auc_in_bins_is_that_of_the_ranking(library):
    rng = np.random.default_rng(0)
    negatives, positives = rng.integers(0, 5, (2, 30)).astype(np.float32)
    bins, weights = np.tile(np.arange(30.0), 2), np.concatenate([negatives, positives])
    wanted = binary_scores.ranking(np.repeat([False, True], 30), bins, weights[None])[0, 0]
    arrays = library.asarray(negatives), library.asarray(positives)
    assert float(metrics.binned_auc(*arrays)) == pytest.approx(wanted, rel=1e-6)
    assert float(metrics.binned_auc(arrays[0], 0 * arrays[1])) == 0.5
    assert float(metrics.binned_auc(0 * arrays[0], arrays[1])) == 0.5
    assert float(metrics.binned_auc(library.asarray([3.0, 0.0]), library.asarray([0.0, 2.0]))) == 1.0


@LIBRARIES
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda zeros: metrics.confusion(zeros((1, 2, 2)), zeros((1, 2, 2), bool)), "must be bool"),
        (lambda zeros: metrics.confusion(zeros((1, 2, 2), bool), zeros((1, 2, 3), bool)), r"\(1, 2, 3\)"),
        (lambda zeros: metrics.confusion(zeros((2, 2), bool), zeros((2, 2), bool)), "slices, rows, columns"),
        (lambda zeros: metrics.majority(zeros((1, 2, 2), "int32")), "uint8 bits, got int32"),
    ],
)
def test_wrong_input_says_what_came(library, call, message: str):
    with pytest.raises(ValueError, match=message):
        call(library.zeros)


def test_the_host_needs_no_jax():
    script = (
        "import sys, numpy as np; from lungjax import metrics; "
        "metrics.scores(metrics.confusion(*np.zeros((2, 1, 2, 2), bool))); assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
