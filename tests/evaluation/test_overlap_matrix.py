"""Overlaps of masks against loops over single pixels."""

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

from lungjax import metrics
from lungjax.evaluation.segmentation import overlap_matrix

SHAPES = st.shared(st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4)))


def _second(prediction: np.ndarray, bits: np.ndarray, readers: int) -> dict[tuple[int, int], np.ndarray]:
    """Of each pair of masks, counts (slices, 4), pixel by pixel in plain Python."""
    pairs = overlap_matrix.pairs_of(readers).all
    found = {pair: np.zeros((len(bits), 4), np.int64) for pair in pairs}
    for (n, row, column), value in np.ndenumerate(bits):
        marks = [(int(value) >> bit) & 1 for bit in range(8)]
        masks = [bool(prediction[n, row, column]), sum(marks) >= 2]
        masks += [marks[slot] == 1 for slot in range(readers)]
        masks += [sum(marks) - marks[slot] >= 2 for slot in range(readers)]
        for one, other in pairs:
            cell = {(True, True): 0, (True, False): 1, (False, True): 2, (False, False): 3}[masks[one], masks[other]]
            found[one, other][n, cell] += 1
    return found


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(bool, SHAPES), hnp.arrays(np.uint8, SHAPES))
def test_counts_of_every_pair_match_a_loop_over_pixels(prediction: np.ndarray, bits: np.ndarray):
    overlaps = overlap_matrix.overlaps(prediction, bits)
    pixels = np.full(len(bits), bits[0].size)
    for pair, expected in _second(prediction, bits, 4).items():
        np.testing.assert_array_equal(overlap_matrix.counts(overlaps, [pair], pixels), [expected])


def test_who_is_scored_against_whom():
    pairs = overlap_matrix.pairs_of(4)
    assert pairs.model == ((0, 1),)
    assert pairs.readers == ((2, 6), (3, 7), (4, 8), (5, 9))
    assert pairs.model_each == ((0, 2), (0, 3), (0, 4), (0, 5))
    assert len(pairs.readers_each) == len(set(pairs.readers_each)) == 12
    assert len(pairs.all) == len(set(pairs.all)) == 21


def test_of_one_reader_the_majority_is_that_ones_mask():
    prediction, bits = np.array([[[True, False]]]), np.array([[[1, 1]]], np.uint8)
    masks = overlap_matrix.masks(prediction, bits, readers=1)
    np.testing.assert_array_equal(masks[:, 0, 0], [[1, 0], [1, 1], [1, 1]])
    assert overlap_matrix.pairs_of(1).all == ((0, 1),)
    overlaps = overlap_matrix.overlaps(prediction, bits, readers=1)
    counts = overlap_matrix.counts(overlaps, overlap_matrix.pairs_of(1).model, np.array([2]))
    np.testing.assert_array_equal(counts, [[[1, 0, 1, 0]]])
    assert overlap_matrix.counts(overlaps, (), np.array([2])).shape == (0, 1, 4)


def test_counts_are_exact_for_large_slices():
    """A unit of 2^24 + 1 pixels all of one nodule is not rounded, as it would be in float32."""
    prediction, bits = np.ones((1, 2**24 + 1), bool), np.ones((1, 2**24 + 1), np.uint8)
    bits[0, :3] = 0
    overlaps = overlap_matrix.overlaps(prediction, bits, readers=1)[0, :2, :2]
    np.testing.assert_array_equal(overlaps, [[2**24 + 1, 2**24 - 2], [2**24 - 2, 2**24 - 2]])


def test_wrong_input_says_what_came():
    bits = np.zeros((1, 2, 2), np.uint8)
    with pytest.raises(ValueError, match=r"got bool \(1, 2, 3\)"):
        overlap_matrix.masks(np.zeros((1, 2, 3), bool), bits)
    with pytest.raises(ValueError, match="got float64"):
        overlap_matrix.masks(np.zeros((1, 2, 2)), bits)
    with pytest.raises(ValueError, match="uint8 bits, got int64"):
        overlap_matrix.masks(np.zeros((1, 2, 2), bool), bits.astype(np.int64))


def test_the_tables_of_scores_agree():
    """`segmentation.counts`, which pictures use, and the overlaps, which the report uses."""
    rng = np.random.default_rng(0)
    prediction, bits = rng.random((5, 9, 7)) < 0.3, rng.integers(0, 16, (5, 9, 7)).astype(np.uint8)
    overlaps = overlap_matrix.overlaps(prediction, bits)
    found = overlap_matrix.counts(overlaps, overlap_matrix.pairs_of(4).model, np.full(5, 63))
    np.testing.assert_array_equal(found[0], metrics.confusion(prediction, metrics.majority(bits)))


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
            overlaps = overlap_matrix.overlaps(np.zeros(bits.shape, bool), bits)
            counts += overlap_matrix.counts(overlaps, overlap_matrix.pairs_of(4).readers, np.array([128 * 128]))[:, 0]
            slices += 1
    dice = metrics.scores(counts)["dice"]
    assert slices == 12471
    np.testing.assert_allclose(dice, [0.637, 0.712, 0.739, 0.638], atol=5e-4)
    assert dice.mean() == pytest.approx(0.681, abs=5e-4)
