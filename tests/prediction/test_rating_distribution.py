"""The spread of readers' ratings, from ordinal outputs; and the type that follows from the texture."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from lungjax.ct.scan import RATING_NAMES
from lungjax.prediction import nodule_type, rating_distribution
from lungjax.tasks import classify

TEXTURE = RATING_NAMES.index("texture")


def test_each_probability_is_that_of_one_step():
    above = np.zeros((1, len(classify.STEPS)))
    texture = [number for number, (name, _) in enumerate(classify.STEPS) if name == TEXTURE]
    above[0, texture] = [0.9, 0.6, 0.5, 0.1]
    found = rating_distribution.probabilities(above)
    assert found.shape == (1, 9, 6)
    np.testing.assert_allclose(found[0, TEXTURE], [0.1, 0.3, 0.1, 0.4, 0.1, 0], atol=1e-12)
    mean = 0.1 + 2 * 0.3 + 3 * 0.1 + 4 * 0.4 + 5 * 0.1
    square = 0.1 + 4 * 0.3 + 9 * 0.1 + 16 * 0.4 + 25 * 0.1
    deviation = rating_distribution.standard_deviation(found)
    assert deviation.shape == (1, 9)
    assert deviation[0, TEXTURE] == pytest.approx(np.sqrt(square - mean**2))
    certain = np.delete(np.arange(9), TEXTURE)
    np.testing.assert_array_equal(found[0, certain, 0], 1)
    np.testing.assert_array_equal(deviation[0, certain], 0)


def test_any_logits_give_probabilities_whose_mean_is_the_expected_rating():
    """Also where a later step is likelier than an earlier one."""
    logits = np.random.default_rng(0).normal(0, 3, (50, len(classify.STEPS))).astype(np.float32)
    found = rating_distribution.probabilities(1 / (1 + np.exp(-logits)))
    assert found.min() >= 0
    np.testing.assert_allclose(found.sum(axis=-1), 1, atol=1e-9)
    expected = np.asarray(classify.expected_ratings(jnp.array(logits)))
    np.testing.assert_allclose(found @ rating_distribution.VALUES, expected, atol=1e-5)
    for place, highest in enumerate(classify.HIGHEST):
        assert not found[:, place, highest:].any()


def test_a_later_step_that_is_likelier_is_evened_out():
    above = np.zeros((1, len(classify.STEPS)))
    texture = [number for number, (name, _) in enumerate(classify.STEPS) if name == TEXTURE]
    above[0, texture] = [0.4, 0.8, 0.3, 0.1]
    found = rating_distribution.probabilities(above)
    np.testing.assert_allclose(found[0, TEXTURE], [0.4, 0, 0.3, 0.2, 0.1, 0], atol=1e-12)


@pytest.mark.parametrize(
    ("median", "kind"),
    [
        (1.0, "ground glass"),
        (2.0, "ground glass"),
        (2.5, "part-solid"),
        (3.0, "part-solid"),
        (3.5, "part-solid"),
        (4.0, "solid"),
        (5.0, "solid"),
    ],
)
def test_type_by_readers_texture(median: float, kind: str):
    assert nodule_type.of_readers(median) == kind


@pytest.mark.parametrize(
    ("probabilities", "benign"),
    [
        ((0.2, 0.1, 0.1, 0, 0.11, 0.49), True),
        ((0.2, 0.1, 0.1, 0, 0.1, 0.5), False),
        ((0, 0, 0.4, 0.6, 0, 0), False),
        ((0, 0, 0.6, 0.4, 0, 0), True),
    ],
)
def test_calcification_is_benign_unless_it_is_off_the_centre(probabilities: tuple[float, ...], benign: bool):
    assert bool(nodule_type.is_benign_calcification(np.array(probabilities))) == benign


@pytest.mark.parametrize(
    ("expected", "kind"),
    [(1.0, "ground glass"), (3.49, "ground glass"), (3.5, "part-solid"), (4.09, "part-solid"), (4.1, "solid")],
)
def test_type_by_expected_texture(expected: float, kind: str):
    assert nodule_type.of_expected(expected) == kind
