"""Outlines and windows against masks small enough to draw by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from lungjax.evaluation.plots import mask_edges


def _sides(mask: np.ndarray) -> set[tuple[tuple[float, float], ...]]:
    return {tuple(sorted(map(tuple, side.tolist()))) for side in mask_edges.edges(mask)}


def test_one_pixel_has_four_sides():
    mask = np.zeros((3, 4), bool)
    mask[1, 2] = True  # Centred on x = 2, y = 1.
    a, b, c, d = (1.5, 0.5), (2.5, 0.5), (1.5, 1.5), (2.5, 1.5)
    assert _sides(mask) == {(a, b), (a, c), (b, d), (c, d)}
    assert len(mask_edges.edges(np.zeros((3, 3), bool))) == 0


def test_sides_are_closed_and_as_many_as_the_perimeter():
    mask = ndimage.binary_opening(np.random.default_rng(0).random((20, 20)) < 0.7)
    mask[0, :5] = True  # The image's own border closes an outline, too.
    perimeter = sum(
        not (0 <= r < 20 and 0 <= c < 20 and mask[r, c])
        for row, column in np.argwhere(mask)
        for r, c in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1))
    )
    sides = mask_edges.edges(mask)
    assert len(_sides(mask)) == len(sides) == perimeter
    np.testing.assert_array_equal(np.abs(sides[:, 1] - sides[:, 0]).sum(axis=1), 1)
    _, ends = np.unique(sides.reshape(-1, 2), axis=0, return_counts=True)
    assert set(ends % 2) == {0}  # Every corner is entered as often as it is left.


@pytest.mark.parametrize(
    ("row", "column", "expected"),
    [(100, 60, (92, 108, 52, 68)), (0, 0, (0, 16, 0, 16)), (199, 119, (184, 200, 104, 120))],
    ids=["middle", "first corner", "last corner"],
)
def test_window_stays_inside_and_keeps_its_size(row: int, column: int, expected: tuple[int, ...]):
    marked = np.zeros((200, 120), bool)
    marked[row, column] = True
    assert mask_edges.window(marked, side_px=16) == expected


def test_window_grows_with_what_is_marked():
    marked = np.zeros((200, 200), bool)
    marked[80:120, 90:110] = True  # 40 x 20 px around row 100, column 100.
    assert mask_edges.window(marked, side_px=16, margin=1.0) == (60, 140, 60, 140)
    assert mask_edges.window(marked, side_px=500) == (0, 200, 0, 200)
    assert mask_edges.window(np.zeros((20, 30), bool), side_px=4) == (0, 20, 0, 30)
