"""Bins, ECE and curve against loops over single pixels and against closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from lungjax.evaluation.segmentation import overlap_matrix, reliability


def _second(probability: np.ndarray, share: np.ndarray) -> tuple[float, float, dict[int, tuple[int, float, float]]]:
    """ECE, ECE without the first bin, and each bin's pixels and means, pixel by pixel."""
    bins: dict[int, list[tuple[float, float]]] = {}
    for p, s in zip(probability.ravel().tolist(), share.ravel().tolist(), strict=True):
        place = next(n for n in range(20) if p < (n + 1) / 20 or n == 19)
        bins.setdefault(place, []).append((p, s))
    means = {n: (len(one), *np.mean(one, axis=0).tolist()) for n, one in sorted(bins.items())}

    def ece(of: dict[int, tuple[int, float, float]]) -> float:
        return sum(n * abs(p - s) for n, p, s in of.values()) / sum(n for n, _, _ in of.values())

    return ece(means), ece({n: one for n, one in means.items() if n}), means


def _bits(rng: np.random.Generator, share: np.ndarray) -> np.ndarray:
    marks = rng.random((4, *share.shape)) < share
    return sum((mask.astype(np.uint8) << slot for slot, mask in enumerate(marks)), np.zeros(share.shape, np.uint8))


def test_ece_and_curve_match_a_loop_over_pixels():
    rng = np.random.default_rng(0)
    probability = rng.random((3, 11, 13))
    probability[0, 0, :4] = 0, 0.05, 0.95, 1
    bits = _bits(rng, probability**2)
    sums = reliability.bin_sums(probability, bits, readers=4)
    share = np.unpackbits(bits[..., None], axis=-1).sum(axis=-1) / 4
    ece, likely, bins = _second(probability, share)
    np.testing.assert_allclose(reliability.ece_figures(sums.sum(axis=0)), [ece, likely])
    curve = reliability.reliability_curve(sums)
    assert [round(one["low"] * 20) for one in curve] == list(bins)
    found = [(one["pixels"], one["probability"], one["share"]) for one in curve]
    np.testing.assert_allclose(found, list(bins.values()))
    np.testing.assert_allclose([one["high"] - one["low"] for one in curve], 1 / 20)
    # Slices may be added up in any grouping.
    alone = reliability.bin_sums(probability[1:2], bits[1:2], readers=4)
    np.testing.assert_allclose(alone[0], sums[1])


def test_a_probability_that_is_the_share_has_no_error_and_a_constant_one_its_distance():
    share = np.tile([0, 0.25, 0.5, 0.75, 1], (1, 4, 1))
    bits = np.tile(np.array([0, 1, 3, 7, 15], np.uint8), (1, 4, 1))
    exact = reliability.ece_figures(reliability.bin_sums(share, bits, readers=4).sum(axis=0))
    np.testing.assert_allclose(exact, 0, atol=1e-12)
    constant = reliability.ece_figures(reliability.bin_sums(np.full_like(share, 0.8), bits, readers=4).sum(axis=0))
    np.testing.assert_allclose(constant, 0.3)


def test_more_marks_than_readers_are_all_of_them_and_no_likely_pixel_is_undefined():
    bits = np.array([[[0b11111, 0]]], np.uint8)
    sums = reliability.bin_sums(np.array([[[1.0, 0.0]]]), bits, readers=4)
    np.testing.assert_allclose(reliability.ece_figures(sums[0]), 0)
    unlikely = reliability.bin_sums(np.zeros((1, 1, 2)), bits, readers=4)
    ece, likely = reliability.ece_figures(unlikely[0])
    assert ece == pytest.approx(0.5)
    assert np.isnan(likely)


def test_readers_are_scored_as_a_model_would_be():
    """Each reader's mask as a probability, the other three for readers, through `sums`."""
    bits = _bits(np.random.default_rng(1), np.random.default_rng(2).random((3, 6, 5)))
    overlaps = overlap_matrix.overlaps(np.zeros(bits.shape, bool), bits)
    found = reliability.reader_sums(overlaps, np.full(3, 30), readers=4)
    expected = np.zeros_like(found)
    for slot in range(4):
        bit = np.uint8(1 << slot)
        expected += reliability.bin_sums((bits & bit != 0).astype(np.float64), bits & ~bit, readers=3)
    np.testing.assert_allclose(found, expected)


def test_wrong_input_says_what_came():
    bits = np.zeros((1, 2, 2), np.uint8)
    with pytest.raises(ValueError, match=r"\(1, 2, 3\)"):
        reliability.bin_sums(np.zeros((1, 2, 3)), bits, readers=4)
    for wrong in (-0.1, 1.5, np.nan):
        with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
            reliability.bin_sums(np.full((1, 2, 2), wrong), bits, readers=4)
