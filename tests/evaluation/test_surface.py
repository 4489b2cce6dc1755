"""Borders against closed forms, and against a loop over corners with marching squares' table."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import surface_distance
from scipy import ndimage
from scipy.spatial import KDTree

from lungjax.evaluation.segmentation import surface


def _box(shape: tuple[int, ...], *sides: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[tuple(slice(*side) for side in sides)] = True
    return mask


def _blobs(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Two that resemble each other; parts of them are single pixels and touch by corners."""
    field = ndimage.gaussian_filter(rng.normal(size=shape), 1.0)
    return field > 0.1, field + 0.3 * rng.normal(size=shape) > 0.2


def test_length_of_a_rectangle_and_area_of_a_box():
    """Straight sides reach from the first to the last corner element, which cut off the corners."""
    dr, dc = 0.5, 2.0
    rectangle = surface.border(_box((9, 9), (2, 5), (1, 7)), (dr, dc))  # 3 x 6 px
    assert rectangle.sizes.sum() == pytest.approx(2 * (2 * dr + 5 * dc) + 4 * math.hypot(dr, dc) / 2)
    dz, (nz, nr, nc) = 3.0, (2, 3, 4)
    box = surface.border(_box((6, 6, 6), (1, 1 + nz), (2, 2 + nr), (1, 1 + nc)), (dz, dr, dc))
    faces = (nr - 1) * (nc - 1) * dr * dc + (nz - 1) * (nc - 1) * dz * dc + (nz - 1) * (nr - 1) * dz * dr
    edges = (nz - 1) * dz * math.hypot(dr, dc) + (nr - 1) * dr * math.hypot(dz, dc) + (nc - 1) * dc * math.hypot(dz, dr)
    corners = 8 * math.hypot(dr * dc, dz * dc, dz * dr) / 4
    assert box.sizes.sum() == pytest.approx(2 * faces + 4 * edges / 2 + corners)


def test_two_pixels_two_apart():
    """Of the four corners of each, two lie 1 mm from the other's and two 2 mm."""
    a, b = _box((3, 6), (1, 2), (1, 2)), _box((3, 6), (1, 2), (3, 4))
    found = surface.compare(surface.border(a, (0.7, 1.0)), surface.border(b, (0.7, 1.0)))
    assert found == pytest.approx((2.0, 0.5, 1.0))
    tight = surface.compare(surface.border(a, (0.7, 1.1)), surface.border(b, (0.7, 1.1)))
    assert tight == pytest.approx((2.2, 0.0, 0.5))


def test_a_twentieth_of_a_border_may_lie_anywhere():
    """HD95 of a bar with a far pixel is 0 in one direction until that pixel's border is more than 5 % of all."""
    line = _box((200, 40), (0, 150), (5, 6))
    spot = line.copy()
    spot[100, 30] = True
    spacing = (1.0, 1.0)
    assert surface.compare(surface.border(line, spacing), surface.border(spot, spacing))[0] == 0
    short = _box((200, 40), (95, 105), (5, 6))
    spot = short.copy()
    spot[100, 30] = True
    assert surface.compare(surface.border(short, spacing), surface.border(spot, spacing))[0] == pytest.approx(25)


def test_tolerance_forgives_rounding():
    a, b = _box((3, 15), (1, 2), (1, 2)), _box((3, 15), (1, 2), (12, 13))
    assert 12 * 0.1 - 2 * 0.1 > 1  # Ten steps of 0.1 mm, by the last bit.
    assert surface.compare(surface.border(a, (1.0, 0.1)), surface.border(b, (1.0, 0.1)))[1] == pytest.approx(0.5)


def _second_border(mask: np.ndarray, spacing: tuple[float, ...]) -> list[tuple[np.ndarray, float]]:
    """Corner by corner. In 2-D: marching squares by cases; in 3-D: the pairs around a corner, counted."""
    found = []
    padded = np.pad(mask, 1)
    for corner in itertools.product(*(range(side - 1) for side in padded.shape)):
        around = padded[tuple(slice(place, place + 2) for place in corner)]
        number = int(around.sum())
        if number in (0, around.size):
            continue
        if mask.ndim == 2:
            dr, dc = spacing
            diagonal = math.hypot(dr, dc) / 2
            if number != 2:
                size = diagonal
            elif around[0, 0] == around[1, 1]:
                size = 2 * diagonal
            else:
                size = dr if around[0, 0] == around[1, 0] else dc
        else:
            squares = 0.0
            for axis in range(3):
                first, second = np.take(around, 0, axis), np.take(around, 1, axis)
                area = math.prod(spacing) / spacing[axis]
                squares += (float((first != second).sum()) / 4 * area) ** 2
            size = math.sqrt(squares)
        found.append((np.array(corner) * spacing, size))
    return found


def _second_compare(a: np.ndarray, b: np.ndarray, spacing: tuple[float, ...]) -> tuple[float, ...]:
    one, other = _second_border(a, spacing), _second_border(b, spacing)
    away = [
        sorted((min(float(np.linalg.norm(p - q)) for q, _ in there), size) for p, size in here)
        for here, there in ((one, other), (other, one))
    ]
    far = 0.0
    for direction in away:
        total, covered = sum(size for _, size in direction), 0.0
        for distance, size in direction:
            covered += size
            if covered >= 0.95 * total:
                far = max(far, distance)
                break
    both = [*away[0], *away[1]]
    total = sum(size for _, size in both)
    return far, *(sum(size for distance, size in both if distance <= tolerance) / total for tolerance in (1, 2))


@pytest.mark.parametrize("shape", [(14, 12), (4, 6, 5)], ids=["2-D", "3-D"])
def test_random_masks_against_loops(shape: tuple[int, ...]):
    rng = np.random.default_rng(0)
    for _ in range(4):
        a, b = _blobs(rng, shape)
        spacing = tuple(rng.uniform(0.4, 1.6, len(shape)))
        found = surface.compare(surface.border(a, spacing), surface.border(b, spacing))
        assert found == pytest.approx(_second_compare(a, b, spacing))
        assert 0 < found[1] < 1
        assert found == pytest.approx(surface.compare(surface.border(b, spacing), surface.border(a, spacing)))


@pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning")  # Of what SciPy moved, and it looks for.
@pytest.mark.parametrize("shape", [(40, 30), (12, 20, 18)], ids=["2-D", "3-D"])
def test_deepminds_surface_distance_as_a_second_implementation(shape: tuple[int, ...]):
    """The same elements, as far apart. In 3-D their sizes differ at corners, of which smooth masks have few."""
    rng = np.random.default_rng(2)
    for _ in range(4):
        field = ndimage.gaussian_filter(rng.normal(size=shape), 2.0)
        masks = field > 0, np.roll(field, 1, axis=1) > 0.01
        spacing = tuple(rng.uniform(0.4, 1.6, len(shape)).tolist())
        ours = [surface.border(mask, spacing) for mask in masks]
        theirs = surface_distance.compute_surface_distances(*masks, spacing)
        sizes = [theirs["surfel_areas_gt"].sum(), theirs["surfel_areas_pred"].sum()]
        assert [one.sizes.sum() for one in ours] == pytest.approx(sizes, rel=1e-6 if len(shape) == 2 else 0.05)
        for here, there, name in zip(ours, ours[::-1], ("distances_gt_to_pred", "distances_pred_to_gt"), strict=True):
            away_mm = KDTree(there.points_mm).query(here.points_mm)[0]
            np.testing.assert_allclose(np.sort(away_mm), np.sort(theirs[name]), atol=1e-5)
        if len(shape) == 2:
            dice = [surface_distance.compute_surface_dice_at_tolerance(theirs, mm) for mm in surface.TOLERANCES_MM]
            wanted = (surface_distance.compute_robust_hausdorff(theirs, 95), *dice)
            assert surface.compare(*ours) == pytest.approx(wanted)


def test_where_a_mask_lies_in_its_image_does_not_matter():
    a, b = _blobs(np.random.default_rng(1), (12, 12))
    bare = surface.compare(surface.border(a, (0.7, 0.9)), surface.border(b, (0.7, 0.9)))
    wide = [surface.border(np.pad(mask, ((3, 5), (7, 2))), (0.7, 0.9)) for mask in (a, b)]
    assert surface.compare(*wide) == pytest.approx(bare)


def test_equal_empty_and_one_empty():
    mask, empty = _box((4, 5), (1, 3), (1, 4)), np.zeros((4, 5), bool)
    pairs = [(0, 0), (1, 1), (0, 1), (1, 0)]
    found = surface.compare_pairs(np.stack([mask, empty]), pairs, (1.0, 1.0))
    nan = math.nan
    np.testing.assert_array_equal(found, [[0, 1, 1], [nan, 1, 1], [nan, 0, 0], [nan, 0, 0]])


def test_pairs_of_many_masks_are_those_of_each_two():
    """Wherever they begin, and where some are equal or empty."""
    rng = np.random.default_rng(3)
    a, b = _blobs(rng, (12, 10))
    masks = np.stack([a, b, np.zeros_like(a), a, a & b, b])
    pairs = list(itertools.permutations(range(len(masks)), 2))
    spacing, start = (0.7, 0.9), (40, 30)
    found = surface.compare_pairs(masks, pairs, spacing, start=start)
    in_image = [surface.border(np.pad(mask, ((start[0], 3), (start[1], 1))), spacing) for mask in masks]
    expected = [surface.compare(in_image[min(pair)], in_image[max(pair)]) for pair in pairs]
    np.testing.assert_array_equal(found, expected)


def test_without_spacing_nothing_is_known_and_a_spacing_must_be_one():
    mask = _box((4, 5), (1, 3), (1, 4))
    assert np.isnan(surface.compare_pairs(mask[None], [(0, 0)], (math.nan, math.nan))).all()
    assert surface.compare_pairs(mask[None], [], (1.0, 1.0)).shape == (0, len(surface.NAMES))
    for spacing in ((1.0,), (1.0, 0.0)):
        with pytest.raises(ValueError, match=r"needs \d spacings above 0"):
            surface.border(mask, spacing)
