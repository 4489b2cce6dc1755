"""Crops around marks: one nodule where several lie too far apart, never the gap between them."""

from __future__ import annotations

import numpy as np
import pytest

from lungjax.data import crop

SIDE_PX = 64


def two_marks() -> tuple[np.ndarray, crop.Box]:
    """A 3 x 4 mark top left, a 6 x 6 one bottom right that two readers drew and that touches itself by a corner."""
    readers = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
    readers[5:8, 3:7] = 1
    readers[50:53, 52:55] = 2
    readers[53:56, 55:58] = 4
    return readers, (5, 55, 3, 57)


def test_marks_that_fit_are_kept_together():
    readers, box = two_marks()
    assert crop.nodule_box(lambda: readers, box, 55, None) == box
    assert crop.nodule_box(lambda: np.zeros((8, 8), np.uint8), (-1, -1, -1, -1), 4, 0.5) == (-1, -1, -1, -1)


def test_of_marks_far_apart_one_is_picked():
    readers, box = two_marks()
    first, second = (5, 7, 3, 6), (50, 55, 52, 57)
    assert [crop.nodule_box(lambda: readers, box, 54, pick) for pick in (0.0, 0.499, 0.5, 0.999)] == [first] * 2 + [
        second
    ] * 2
    assert crop.nodule_box(lambda: readers, box, 54, None) == second  # 18 pixels against 12


@pytest.mark.parametrize("draws", [None, *np.random.default_rng(0).random((50, 3))])
def test_a_crop_always_shows_a_whole_mark(draws):
    readers, box = two_marks()
    crop_px = 24
    place, pick = (None, None) if draws is None else (draws[:2], draws[2])
    corner = crop.crop_corner(readers.shape, crop.nodule_box(lambda: readers, box, crop_px, pick), crop_px, place)
    seen = crop.cut(readers, corner, crop_px, 0)
    assert np.count_nonzero(seen) in (12, 18)


def test_without_marks_the_crop_is_anywhere_inside():
    corners = {crop.crop_corner((64, 32), None, 16, draws) for draws in np.random.default_rng(0).random((200, 2))}
    rows, columns = zip(*corners, strict=True)
    assert (min(rows), max(rows), min(columns), max(columns)) == (0, 48, 0, 16)
