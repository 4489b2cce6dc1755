"""Scores against hand-made masks, and their identities; the readers of real slices."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from lungjax.evaluation.segmentation import overlap_matrix, overlap_scores


def test_majority_counts_the_bits():
    readers = np.array([[[0b0000, 0b0001, 0b0011], [0b1010, 0b0111, 0b1111]]], np.uint8)
    np.testing.assert_array_equal(overlap_scores.majority(readers), [[[False, False, True], [True, True, True]]])
    one = overlap_scores.majority(readers, readers=1)
    np.testing.assert_array_equal(one, [[[False, True, True], [True, True, True]]])


def test_counts_and_scores_by_hand():
    prediction = np.array([[[1, 1, 1, 0]], [[0, 0, 0, 0]]], bool)
    target = np.array([[[1, 1, 0, 1]], [[0, 0, 0, 0]]], bool)
    counts = overlap_scores.counts(prediction, target)
    np.testing.assert_array_equal(counts, [[2, 1, 1, 0], [0, 0, 0, 4]])
    assert counts.dtype == np.int64
    scores = overlap_scores.scores(counts)
    # Slice 0: dice 4/6, iou 2/4, precision 2/3, recall 2/3, accuracy 2/4. Slice 1: two empty masks agree.
    np.testing.assert_allclose(scores["dice"], [2 / 3, 1])
    np.testing.assert_allclose(scores["iou"], [1 / 2, 1])
    np.testing.assert_allclose(scores["precision"], [2 / 3, 1])
    np.testing.assert_allclose(scores["recall"], [2 / 3, 1])
    np.testing.assert_allclose(scores["accuracy"], [1 / 2, 1])


@pytest.mark.parametrize("counts", [(0, 0, 5, 11), (0, 5, 0, 11)], ids=["nothing predicted", "nothing there"])
def test_one_empty_mask_scores_zero(counts: tuple[int, ...]):
    scores = overlap_scores.scores(np.array(counts))
    assert [float(scores[s]) for s in overlap_scores.SCORES] == [0, 0, 0, 0, 11 / 16]


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.int64, st.tuples(st.integers(1, 6), st.just(4)), elements=st.integers(0, 9)))
def test_scores_hold_their_identities(counts: np.ndarray):
    scores = overlap_scores.scores(counts)
    swapped = overlap_scores.scores(counts[:, [0, 2, 1, 3]])  # Prediction and target change places.
    assert all(((value >= 0) & (value <= 1)).all() for value in scores.values())
    np.testing.assert_allclose(scores["iou"], scores["dice"] / (2 - scores["dice"]))
    np.testing.assert_allclose(scores["precision"], swapped["recall"])
    np.testing.assert_allclose(scores["dice"], swapped["dice"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: overlap_scores.counts(np.zeros((1, 2, 2)), np.zeros((1, 2, 2), bool)), "must be bool"),
        (lambda: overlap_scores.counts(np.zeros((1, 2, 2), bool), np.zeros((1, 2, 3), bool)), r"\(1, 2, 3\)"),
        (lambda: overlap_scores.majority(np.zeros((1, 2, 2), np.int64)), "uint8 bits, got int64"),
    ],
)
def test_wrong_input_says_what_came(call, message: str):
    with pytest.raises(ValueError, match=message):
        call()


def test_readers_of_all_real_slices_agree_as_published(real_data: Path):
    """The shared data's own README: slots score 0.64 to 0.74, on average 0.68, pooled over 12,471 slices."""
    counts = np.zeros((4, 4), np.int64)
    slices = 0
    with zipfile.ZipFile(real_data / "lidc-slices.zip") as archive:
        for name in archive.namelist():
            if "/mask-0/" not in name or not name.endswith(".png"):
                continue
            bits = np.zeros((1, 128, 128), np.uint8)
            for slot in range(4):
                mask = Image.open(io.BytesIO(archive.read(name.replace("/mask-0/", f"/mask-{slot}/"))))
                bits[0] |= (np.asarray(mask) > 0).astype(np.uint8) << slot
            overlaps = overlap_matrix.overlaps(overlap_matrix.masks(np.zeros(bits.shape, bool), bits))
            counts += overlap_matrix.counts(overlaps, overlap_matrix.pairs_of(4).readers, np.array([128 * 128]))[:, 0]
            slices += 1
    dice = overlap_scores.scores(counts)["dice"]
    assert slices == 12471
    np.testing.assert_allclose(dice, [0.637, 0.712, 0.739, 0.638], atol=5e-4)
    assert dice.mean() == pytest.approx(0.681, abs=5e-4)
