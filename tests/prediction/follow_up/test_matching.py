"""Pairs of nodules by distance: one to one, within the gate."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from lungjax.prediction.follow_up import matching


def match(first: list[list[float]], second: list[list[float]], diameter_mm: float = 5) -> list[tuple[int, int, float]]:
    one, other = (np.array(points, float).reshape(-1, 3) for points in (first, second))
    return matching.match(one, other, np.full(len(one), diameter_mm), np.full(len(other), diameter_mm))


def test_one_to_one_where_the_nearest_would_take_one_twice():
    """Both of the first scan are nearest to the same; the sum of distances decides."""
    assert match([[0, 0, 0], [4, 0, 0]], [[3, 0, 0], [9, 0, 0]]) == [(0, 0, 3.0), (1, 1, 5.0)]


def test_the_gate():
    assert match([[0, 0, 0]], [[9.9, 0, 0]]) == [(0, 0, pytest.approx(9.9))]
    assert match([[0, 0, 0]], [[10.1, 0, 0]]) == []
    assert match([[0, 0, 0]], [[15, 0, 0]], diameter_mm=31) == [(0, 0, 15.0)]  # Of a mass, its radius.
    assert match([], [[0, 0, 0]]) == match([[0, 0, 0]], []) == []


def test_as_many_as_the_gate_allows():
    """Two pairs of 9 mm rather than one of 1 mm."""
    assert match([[0, 0, 0], [10, 0, 0]], [[9, 0, 0], [-9, 0, 0]]) == [(0, 1, 9.0), (1, 0, 1.0)]
    assert match([[0, 0, 0], [8, 0, 0]], [[9, 0, 0], [17.5, 0, 0]]) == [(0, 0, 9.0), (1, 1, 9.5)]


def test_against_every_assignment():
    """Random places: no other assignment has more pairs within the gate, or as many at a smaller sum."""
    rng = np.random.default_rng(0)
    for _ in range(40):
        first, second = rng.uniform(0, 25, (rng.integers(1, 5), 3)), rng.uniform(0, 25, (5, 3))
        pairs = match(first.tolist(), second.tolist())
        distance = np.linalg.norm(first[:, None] - second, axis=2)
        best = (0, 0.0)
        for columns in itertools.permutations(range(5), len(first)):
            within = [d for row, column in enumerate(columns) if (d := distance[row, column]) <= matching.GATE_MM]
            best = min(best, (-len(within), sum(within)))
        assert (-len(pairs), sum(mm for _, _, mm in pairs)) == (best[0], pytest.approx(best[1]))
