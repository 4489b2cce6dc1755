"""Findings: pieces, diameters and volumes against closed forms and SciPy."""

from __future__ import annotations

import math
from typing import Any

import chests
import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial import ConvexHull

from lungjax.prediction import candidates, measure


def pixels_of(inside) -> np.ndarray:
    rows, columns = np.mgrid[:120, :120]
    return np.argwhere(inside(rows - 60.0, columns - 60.0))


@pytest.mark.parametrize("turn", [0.0, 0.4, math.pi / 4, 1.3, math.pi / 2])
def test_diameters_of_an_ellipse_are_its_axes(turn: float):
    a, b = 30.0, 17.0

    def inside(y, x):
        u, v = x * math.cos(turn) + y * math.sin(turn), -x * math.sin(turn) + y * math.cos(turn)
        return (u / a) ** 2 + (v / b) ** 2 <= 1

    longest, perpendicular = measure.in_slice(pixels_of(inside), (0.5, 0.5))
    assert longest == pytest.approx(2 * a * 0.5, abs=0.5)
    assert perpendicular == pytest.approx(2 * b * 0.5, abs=0.5)


def test_diameters_are_in_mm_along_either_axis():
    """A rhombus of one pixel: its corners are the middles of the pixel's sides."""
    assert measure.in_slice(np.array([[5, 7]]), (1.0, 3.0)) == pytest.approx((3.0, 1.0))
    line = np.stack([np.full(9, 4), np.arange(9)], axis=1)
    assert measure.in_slice(line, (0.7, 0.5)) == pytest.approx((4.5, 0.7))
    assert measure.in_slice(line[:, ::-1], (0.5, 0.7)) == pytest.approx((4.5, 0.7))


def test_perpendicular_is_the_longest_chord_at_right_angles():
    """Against chords of the hull, one every twentieth of a pixel, cut with each of its sides."""
    y, x = np.mgrid[:60, :60]
    band = np.argwhere((np.abs(y - x) <= 6) & (y + x > 30) & (y + x < 80))
    longest, perpendicular = measure.in_slice(band, (1.0, 1.0))
    points = (band[:, None] + [(-0.5, 0), (0.5, 0), (0, -0.5), (0, 0.5)]).reshape(-1, 2)
    corners = points[ConvexHull(points).vertices]
    apart = np.linalg.norm(corners[:, None] - corners[None], axis=-1)
    assert longest == pytest.approx(apart.max())
    first, second = np.unravel_index(apart.argmax(), apart.shape)
    along = (corners[second] - corners[first]) / longest
    turned = (corners - corners[first]) @ np.stack([along, (-along[1], along[0])], axis=1)
    chords = []
    for at in np.arange(0.025, longest, 0.05):
        cuts = [
            y0 + (y1 - y0) * (at - x0) / (x1 - x0)
            for (x0, y0), (x1, y1) in zip(turned, np.roll(turned, -1, axis=0), strict=True)
            if (x0 - at) * (x1 - at) < 0
        ]
        chords.append(max(cuts) - min(cuts))
    assert perpendicular == pytest.approx(max(chords), abs=0.1)
    assert perpendicular < np.ptp(turned[:, 1]) - 1  # Not how far it reaches to both sides.


def test_the_widest_slice_counts():
    voxels = np.array([[3, 5, 5], [4, 5, 5], [4, 5, 6], [4, 5, 7], [5, 5, 5]])
    assert measure.recist(voxels, (2.0, 1.0, 1.0)) == pytest.approx((4, 3.0, 1.0))


def test_a_ball_is_measured():
    hu, lungs = chests.chest(), np.ones(chests.SHAPE, bool)
    (centre, radius_mm), _ = chests.BALLS
    probability = np.where(chests.ball(centre, radius_mm), 0.8, 0.1)
    (one,) = candidates.ranked_candidates(probability, hu, lungs, chests.SPACING_MM)
    count = int(chests.ball(centre, radius_mm).sum())
    assert one.volume_mm3 == count * 5 * 2.5 * 2.5
    assert one.volume_mm3 == pytest.approx(4 / 3 * math.pi * radius_mm**3, rel=0.15)
    assert (one.longest_mm, one.perpendicular_mm) == pytest.approx((2 * radius_mm, 2 * radius_mm), abs=2.5)
    assert one.widest == centre[0]
    assert one.centre_voxel == pytest.approx(centre)
    assert one.slices == (14, 16)
    assert one.mean_hu == chests.NODULE_HU
    assert one.score == pytest.approx(0.8)


def test_pieces_are_scipys_ranked_by_score():
    rng = np.random.default_rng(0)
    probability = ndimage.gaussian_filter(rng.normal(0, 1, (12, 40, 44)), 1.2)
    probability = 0.4 + 0.6 * probability / np.abs(probability).max()
    probability = np.where(probability > candidates.VOXEL_THRESHOLD, probability, 0.0)  # Nothing between to join them.
    hu = rng.integers(-1000, 400, probability.shape).astype(np.int16)
    lungs = np.ones(probability.shape, bool)
    found = candidates.ranked_candidates(probability, hu, lungs, (1.0, 1.5, 1.5))
    labelled: Any = ndimage.label(probability > candidates.VOXEL_THRESHOLD)
    labels, count = labelled
    sizes = np.bincount(labels.ravel())[1:]
    large = [k for k in range(1, count + 1) if sizes[k - 1] * 2.25 >= candidates.LEAST_MM3]
    assert 3 <= len(large) < count
    expected = {(int(sizes[k - 1]), round(float(probability[labels == k].mean()), 9)) for k in large}
    assert {(len(one.voxels), round(one.score, 9)) for one in found} == expected
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    for one in found:
        number = labels[tuple(one.voxels[0])]
        np.testing.assert_array_equal(one.voxels, np.argwhere(labels == number))
        assert one.mean_hu == pytest.approx(hu[labels == number].mean())


def test_pieces_are_joined_where_less_probable_voxels_lead_from_one_to_the_other():
    """A large ground-glass nodule that falls to pieces at the threshold is one candidate, of its sure voxels alone."""
    probability = np.zeros((5, 30, 40))
    probability[1:4, 5:12, 5:12], probability[1:4, 5:12, 16:23] = 0.9, 0.7
    probability[2, 8, 12:16] = 0.3
    probability[2, 20:26, 5:12] = 0.8
    hu, lungs = np.zeros(probability.shape, np.int16), np.ones(probability.shape, bool)
    joined, other = sorted(
        candidates.ranked_candidates(probability, hu, lungs, (1.0, 1.0, 1.0)), key=lambda one: -one.volume_mm3
    )
    assert (len(joined.voxels), len(other.voxels)) == (2 * 3 * 7 * 7, 6 * 7)
    assert (probability[tuple(joined.voxels.T)] > candidates.VOXEL_THRESHOLD).all()
    assert joined.slices == (1, 3)
    probability[2, 8, 13] = candidates.JOIN_THRESHOLD
    assert len(candidates.ranked_candidates(probability, hu, lungs, (1.0, 1.0, 1.0))) == 3


def test_without_lungs_all_candidates_count():
    probability = np.zeros((3, 20, 20))
    probability[1, 5:10, 5:10] = 0.9
    hu = np.zeros(probability.shape, np.int16)
    assert len(candidates.ranked_candidates(probability, hu, None, (1.0, 1.0, 1.0))) == 1


def test_specks_and_what_lies_in_the_wall_are_left_out():
    probability = np.zeros((6, 30, 30))
    probability[2, 4:8, 4:8] = probability[2, 20:24, 20:24] = probability[4, 2, 2] = 0.9
    hu = np.zeros(probability.shape, np.int16)
    lungs = np.zeros(probability.shape, bool)
    lungs[2, 4, 4:8] = True  # A quarter of the first.
    lungs[4] = True
    (one,) = candidates.ranked_candidates(probability, hu, lungs, (1.0, 1.0, 1.0))
    assert one.centre_voxel == pytest.approx((2, 5.5, 5.5))
    assert candidates.ranked_candidates(np.zeros((2, 3, 3)), hu[:2, :3, :3], lungs[:2, :3, :3], (1.0, 1.0, 1.0)) == []


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("threshold", [0.02, 0.1999, 0.2, 0.5])
def test_probabilities_are_compared_as_numpy_does(dtype: Any, threshold: float):
    near = np.float16(threshold)
    values = np.array([0, 1e-7, threshold, near, np.nextafter(near, near + 1), np.nextafter(near, near - 1), 1], dtype)
    np.testing.assert_array_equal(candidates._is_above(values, threshold), values > threshold)
