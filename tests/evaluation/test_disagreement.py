"""GED^2 against loops over single masks, and its ceiling against drawing readers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from lungjax.evaluation.segmentation import disagreement


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    union = np.logical_or(a, b).sum()
    return 1 - np.logical_and(a, b).sum() / union if union else 0.0


def _second_ged2(samples: list[np.ndarray], readers: list[np.ndarray]) -> float:
    """As Kohl et al. write it: means over all pairs."""
    across = np.mean([_distance(s, y) for s in samples for y in readers])
    within = np.mean([_distance(s, t) for s in samples for t in samples])
    between = np.mean([_distance(y, z) for y in readers for z in readers])
    return float(2 * across - within - between)


def _masks(number: int, seed: int) -> np.ndarray:
    """Disks of several sizes, some of them empty: bool (number, 9, 9)."""
    rng = np.random.default_rng(seed)
    row, column = np.mgrid[:9, :9][:, None] - rng.uniform(3, 5, (2, number, 1, 1))
    return np.hypot(row, column) < rng.uniform(-1, 4, (number, 1, 1))


def _apart(masks: np.ndarray) -> np.ndarray:
    flat = masks.reshape(len(masks), -1).astype(np.int64)
    return disagreement.distances(flat @ flat.T)


def test_distances_by_hand():
    masks = np.zeros((4, 1, 4), bool)
    masks[0, 0, :2] = masks[1, 0, 1:3] = True  # Share 1 of 3 pixels; the others are empty.
    np.testing.assert_allclose(_apart(masks), [[0, 2 / 3, 1, 1], [2 / 3, 0, 1, 1], [1, 1, 0, 0], [1, 1, 0, 0]])


@pytest.mark.parametrize("seed", range(5))
def test_ged_matches_loops_over_masks(seed: int):
    masks = _masks(11, seed)
    found = disagreement.ged2(_apart(masks), slice(4, 11), slice(4))
    assert float(found) == pytest.approx(_second_ged2(list(masks[4:]), list(masks[:4])))


def test_readers_themselves_have_none():
    masks = np.concatenate([_masks(4, 1)] * 2)
    assert float(disagreement.ged2(_apart(masks), slice(4, 8), slice(4))) == pytest.approx(0)


def test_the_ceiling_is_what_samples_of_readers_expect():
    readers = list(_masks(4, 3))
    ceiling = disagreement.ceiling(_apart(np.array(readers)), slice(4))
    one = [_second_ged2([reader], readers) for reader in readers]
    assert ceiling[0] == pytest.approx(np.mean(one))
    rng = np.random.default_rng(0)
    apart = _apart(np.array(readers))
    for place, number in ((1, 16), (2, 100)):
        picked = rng.integers(0, 4, (4_000, number))
        drawn = [2 * apart[:, one].mean() - apart[np.ix_(one, one)].mean() - apart.mean() for one in picked]
        error = np.std(drawn) / np.sqrt(len(drawn))
        assert ceiling[place] == pytest.approx(np.mean(drawn), abs=4 * error)
    two = [_second_ged2(list(pair), readers) for pair in itertools.product(readers, repeat=2)]
    assert np.mean(two) == pytest.approx(ceiling[0] / 2)  # The law, by counting: D / n.


def test_samples_of_a_model_slice_by_slice():
    rng = np.random.default_rng(5)
    thresholds = rng.permutation(np.linspace(0.01, 1, 100)).round(2)  # Some probabilities equal one of these.
    probability = rng.uniform(0, 1, (3, 9, 9)).round(2)
    probability[1] = 0  # Every sample is empty.
    marks = _masks(12, 6).reshape(4, 3, 9, 9)
    bits = sum((mask.astype(np.uint8) << slot for slot, mask in enumerate(marks)), np.zeros((3, 9, 9), np.uint8))
    bits |= np.uint8(16) * (rng.random(bits.shape) < 0.2)  # A fifth mark is no reader's.
    found = disagreement.ged2_of_thresholds(probability, thresholds, bits, readers=4)
    samples = probability > thresholds[:, None, None, None]
    for place, number in enumerate((16, 100)):
        expected = [_second_ged2(list(samples[:number, n]), list(marks[:, n])) for n in range(3)]
        np.testing.assert_allclose(found[place], expected)
    with pytest.raises(ValueError, match="expected 100 thresholds, got 16"):
        disagreement.ged2_of_thresholds(probability, thresholds[:16], bits, readers=4)
