"""Nodules put together from slices against the whole volumes they were cut from."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scans

from lungjax.evaluation.segmentation import overlap_matrix, surface
from lungjax.evaluation.segmentation.nodules_3d import Nodules, Place, territories

NOWHERE = (math.nan, math.nan, math.nan)


def _place(*nodules: dict, corner: tuple[int, int] = (0, 0)) -> Place:
    return Place("P", "S", 0, corner, NOWHERE, nodules)


def _nodule(index: int, *readings: tuple[int, tuple[int, int, int, int] | None]) -> dict:
    return {"index": index, "readings": tuple({"slot": slot, "box": box} for slot, box in readings)}


def test_every_pixel_is_of_the_nearest_nodule():
    bits = np.zeros((3, 10), np.uint8)
    bits[1, 1], bits[1, 8] = 0b01, 0b10
    place = _place(_nodule(4, (0, (1, 1, 1, 1))), _nodule(7, (1, (1, 1, 8, 8))))
    parts = territories(bits, place)
    assert list(parts) == [4, 7]
    np.testing.assert_array_equal(parts[4], np.tile(np.arange(10) < 5, (3, 1)))
    np.testing.assert_array_equal(parts[7], ~parts[4])


def test_one_nodule_has_the_whole_slice_and_none_has_nothing():
    bits = np.zeros((3, 4), np.uint8)
    bits[1, 1] = 1
    assert territories(bits, _place(_nodule(2, (0, (1, 1, 1, 1)))))[2].all()
    assert territories(np.zeros_like(bits), _place()) == {}
    assert territories(np.zeros_like(bits), _place(_nodule(0, (0, None)))) == {}


def test_what_lies_in_both_boxes_is_of_the_smaller():
    """Nodule 0 is an L around nodule 1, by the same reader; its box holds both."""
    bits = np.zeros((6, 6), np.uint8)
    bits[:, 0] = bits[5, :] = bits[1, 3] = 1
    parts = territories(bits, _place(_nodule(0, (0, (0, 5, 0, 5))), _nodule(1, (0, (1, 1, 3, 3)))))
    assert parts[1][1, 3]
    assert parts[0][:, 0].all()
    assert parts[0][5].all()


def test_boxes_follow_the_crop_and_what_it_leaves_out_is_missing():
    bits = np.zeros((20, 20), np.uint8)
    bits[10, 3], bits[10, 12], bits[2, 2] = 1, 1, 1
    nodules = [_nodule(0, (0, (10, 10, 3, 3))), _nodule(1, (0, (10, 10, 12, 12))), _nodule(2, (0, (2, 2, 2, 2)))]
    parts = territories(bits[8:14, 2:16], _place(*nodules, corner=(8, 2)))
    assert list(parts) == [0, 1]
    assert parts[0][2, 1]
    assert parts[1][2, 10]
    larger = territories(np.pad(bits, 5), _place(*nodules, corner=(-5, -5)))
    assert list(larger) == [0, 1, 2]
    assert larger[2][7, 7]


@pytest.mark.parametrize("cropped", [False, True])
def test_nodules_are_those_of_the_volume(cropped: bool):
    some = scans.several(4, patients=3)
    nodules = Nodules(readers=4)
    rng = np.random.default_rng(0)
    for one in some:
        for number in range(scans.SHAPE[0]):
            corner = tuple(-rng.integers(0, 4, 2)) if cropped else (0, 0)  # A crop that is larger than the slice.
            size = [side + 4 for side in scans.SHAPE[1:]] if cropped else scans.SHAPE[1:]
            prediction, bits = np.zeros(size, bool), np.zeros(size, np.uint8)
            inside = tuple(slice(-c, side - c) for c, side in zip(corner, scans.SHAPE[1:], strict=True))
            prediction[inside], bits[inside] = one.prediction[number], one.bits[number]
            nodules.add(prediction, bits, one.place(number, scans.SPACING_MM, (int(corner[0]), int(corner[1]))))
    nodules.finish()
    expected = [(one, index) for one in some for index in range(2) if one.marks[index].any()]
    assert nodules.names == [(one.name, index) for one, index in expected]
    assert nodules.units.patients == [one.patient for one, _ in expected]
    pairs = overlap_matrix.pairs_of(4).all
    surfaces = nodules.units.surfaces(pairs)
    for place, (one, index) in enumerate(expected):
        volume = _volume(one, index)
        masks = overlap_matrix.masks(*volume)
        shared = [[np.count_nonzero(one & other) for other in masks] for one in masks]
        np.testing.assert_array_equal(nodules.units.overlaps[place], shared)
        np.testing.assert_allclose(surfaces[:, place], surface.compare_pairs(masks, pairs, scans.SPACING_MM))
    assert np.isfinite(surfaces[0, :, 0]).any()
    assert (nodules.units.pixels % math.prod(scans.SHAPE[1:]) == 0).all() != cropped


def _volume(one: scans.Series, index: int) -> tuple[np.ndarray, np.ndarray]:
    """A nodule's prediction and bits: what is nearest to its marks, slice by slice, where anybody marked it."""
    bits = np.packbits(one.marks[index], axis=0, bitorder="little")[0]
    prediction = np.zeros(scans.SHAPE, bool)
    other = one.marks[1 - index].any(axis=0)
    for number in np.flatnonzero(bits.any(axis=(1, 2))):
        for row, column in np.argwhere(one.prediction[number]):
            near = min(np.hypot(*(at - (row, column))) for at in np.argwhere(bits[number]))
            far = min((np.hypot(*(at - (row, column))) for at in np.argwhere(other[number])), default=math.inf)
            assert near != far, "a made-up pixel between two nodules tests nothing"
            prediction[number, row, column] = near < far
    return prediction, bits


def test_a_slice_that_is_not_scored_parts_a_nodule():
    """HD95 over slices 0 and 2 of a nodule, 1.5 mm each: as of the volume with an empty slice 1."""
    one = scans.several(1, patients=1, seed=5)[0]
    bits = np.zeros((1, 6, 6), np.uint8)
    bits[0, 2:4, 2:4] = 1
    nodules = Nodules(readers=1)
    for number in (0, 2):
        place = Place(one.patient, "S", number, (0, 0), (1.5, 1.0, 1.0), (_nodule(0, (0, (2, 3, 2, 3))),))
        nodules.add(np.roll(bits[0] > 0, number // 2, axis=0), bits[0], place)
    nodules.finish()
    volume = np.zeros((3, 6, 6), np.uint8)
    volume[[0, 2]] = bits[0]
    prediction = volume > 0
    prediction[2] = np.roll(prediction[2], 1, axis=0)
    expected = surface.compare(*(surface.border(mask, (1.5, 1.0, 1.0)) for mask in (prediction, volume > 0)))
    assert nodules.units.surfaces(((0, 1),))[0, 0] == pytest.approx(expected)
    assert expected[0] == 1
