"""Side, zone and distance to the pleura, of balls drawn at known places in two lungs of known shape."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lungjax.ct import lungs
from lungjax.ct.lungs import Lungs
from lungjax.prediction.location import AT_PLEURA_MM, LungMap

SPACING_MM = (2.5, 0.8, 0.8)
SHAPE = (90, 256, 320)
MIDDLE, HALF_MM = (45, 128, 160), (85.0, 70.0, 42.0)
"""Of the lungs: their middle slice and row, the body's middle column; half axes of each in mm."""
ASIDE_PX = 80
"""Columns between the body's middle and that of each lung."""
LPS = np.array([[0.8, 0, 0, -10], [0, 0.8, 0, -20], [0, 0, 2.5, 30], [0, 0, 0, 1.0]])


def ellipsoid(centre: Any, half_mm: Any) -> np.ndarray:
    """bool `SHAPE`; `centre` in voxels."""
    axes = (
        (np.arange(size) - at) * mm / half
        for size, at, mm, half in zip(SHAPE, centre, SPACING_MM, half_mm, strict=True)
    )
    z, y, x = np.ix_(*axes)
    return z**2 + y**2 + x**2 < 1


def lung_at(side: int) -> np.ndarray:
    return ellipsoid((MIDDLE[0], MIDDLE[1], MIDDLE[2] + side * ASIDE_PX), HALF_MM)


@pytest.fixture(scope="module")
def hu() -> np.ndarray:
    """A body with two lungs, no nodule."""
    hu = np.full(SHAPE, -1000, np.int16)
    hu[ellipsoid(MIDDLE, (1e6, 95, 122))] = 40
    for side in (-1, 1):
        hu[lung_at(side)] = -850
    return hu


@pytest.fixture(scope="module")
def lung(hu: np.ndarray) -> Lungs:
    return lungs.find_lungs(hu, SPACING_MM)


def ball(side: int, up_mm: float, aside_mm: float, radius_mm: float) -> np.ndarray:
    """Voxels of a ball in one of the lungs: above the middle, and from the lung's middle towards the chest wall."""
    column = MIDDLE[2] + side * (ASIDE_PX + aside_mm / SPACING_MM[2])
    return np.argwhere(ellipsoid((MIDDLE[0] + up_mm / SPACING_MM[0], MIDDLE[1], column), (radius_mm,) * 3))


@pytest.mark.parametrize("side", [-1, 1])
@pytest.mark.parametrize(
    ("up_mm", "zone"), [(-70, "lower"), (-32, "lower"), (-24, "middle"), (24, "middle"), (40, "upper")]
)
def test_side_and_zone_are_the_patients(lung: Lungs, side: int, up_mm: float, zone: str):
    """Wherever the picture has them: columns may run to the patient's left or right, slices to the head or the feet."""
    voxels = ball(side, up_mm, 0.0, 4.0)
    left = "left" if side > 0 else "right"
    found = LungMap(lung, LPS).locate(voxels)
    assert (found.side, found.zone) == (left, zone)
    mirrored = LungMap(lung, LPS @ np.diag([-1.0, 1, 1, 1])).locate(voxels)
    assert (mirrored.side, mirrored.zone) == ("right" if side > 0 else "left", zone)
    headless = LungMap(lung, LPS @ np.diag([1.0, 1, -1, 1])).locate(voxels)
    assert (headless.side, headless.zone) == (left, {"lower": "upper", "upper": "lower"}.get(zone, zone))
    assert mirrored.pleura_mm == headless.pleura_mm == found.pleura_mm


def test_without_an_affine_side_and_zone_are_unknown(lung: Lungs):
    voxels = ball(1, 0.0, 0.0, 5.0)
    found = LungMap(lung, None).locate(voxels)
    assert (found.side, found.zone) == (None, None)
    assert found.pleura_mm == LungMap(lung, LPS).locate(voxels).pleura_mm
    oblique = LPS.copy()
    oblique[:3, :3] = np.array([[0.7, 0, -0.7], [0, 1, 0], [0.7, 0, 0.7]]) @ oblique[:3, :3]
    assert (LungMap(lung, oblique).locate(voxels).side, LungMap(lung, oblique).locate(voxels).zone) == (None, None)


@pytest.mark.parametrize("side", [-1, 1])
@pytest.mark.parametrize("gap_mm", [3.0, 6.0, 10.0, 20.0])
def test_the_distance_to_the_chest_wall(lung: Lungs, side: int, gap_mm: float):
    """The lung is widest in the middle, so the wall is nearest straight aside."""
    radius_mm = 4.0
    voxels = ball(side, 0.0, HALF_MM[2] - gap_mm - radius_mm, radius_mm)
    assert LungMap(lung, LPS).locate(voxels).pleura_mm == pytest.approx(gap_mm, abs=AT_PLEURA_MM)


@pytest.mark.parametrize(("inside_mm", "pleura_mm"), [(0.0, 0), (-2.0, 0), (-4.0, 0)])
def test_what_touches_the_pleura_is_at_it(hu: np.ndarray, inside_mm: float, pleura_mm: float):
    """A ball that touches the wall, or reaches into it, in a scan in which it is as dense as the wall."""
    voxels = ball(1, 0.0, HALF_MM[2] - 4.0 - inside_mm, 4.0)
    with_ball = hu.copy()
    with_ball[tuple(voxels.T)] = 40
    assert LungMap(lungs.find_lungs(with_ball, SPACING_MM), LPS).locate(voxels).pleura_mm == pleura_mm


def test_the_end_of_the_scan_is_no_pleura(hu: np.ndarray):
    """A ball near the last slice of a scan that cuts the lungs off is as far from the wall as in the whole scan."""
    cut = hu[:52]
    voxels = ball(1, 10.0, 0.0, 4.0)
    found = LungMap(lungs.find_lungs(cut, SPACING_MM), LPS).locate(voxels)
    assert voxels[:, 0].max() == 50
    assert found.pleura_mm == pytest.approx(HALF_MM[2] * np.sqrt(1 - (10 / HALF_MM[0]) ** 2) - 4, abs=2.0)
    assert found.zone == "upper", "of what is seen"


def test_lungs_that_touch_come_apart(hu: np.ndarray):
    """A bridge of air in front of the heart, 10 mm thick, makes them one component."""
    bridged = hu.copy()
    bridged[40:50, 122:134, MIDDLE[2] - ASIDE_PX : MIDDLE[2] + ASIDE_PX] = -850
    joined = lungs.find_lungs(bridged, SPACING_MM)
    for side, left in ((-1, "right"), (1, "left")):
        assert LungMap(joined, LPS).locate(ball(side, 0.0, -30.0, 4.0)).side == left


@pytest.mark.parametrize(("side", "left"), [(-1, "right"), (1, "left")])
def test_a_single_lung_has_its_side(hu: np.ndarray, side: int, left: str):
    single = np.where(lung_at(-side), 40, hu).astype(np.int16)
    found = LungMap(lungs.find_lungs(single, SPACING_MM), LPS).locate(ball(side, 40.0, 0.0, 4.0))
    assert (found.side, found.zone) == (left, "upper")


def test_a_nodule_outside_the_lungs_belongs_to_the_nearest(lung: Lungs):
    voxels = ball(-1, 0.0, HALF_MM[2] + 8, 4.0)
    found = LungMap(lung, LPS).locate(voxels)
    assert (found.side, found.zone, found.pleura_mm) == ("right", "middle", 0)


@pytest.mark.parametrize("radius_mm", [1.0, 6.0, 12.0])
def test_the_distance_is_the_least_of_all_pairs(lung: Lungs, radius_mm: float):
    points_mm = ball(1, 20.0, -6.0, radius_mm) * SPACING_MM
    place = LungMap(lung, LPS)
    pairs_mm = [np.sqrt(((place._border.data - point) ** 2).sum(axis=1)).min() for point in points_mm[::7]]
    least_mm = place._to_border_mm(points_mm[::7])
    assert least_mm == pytest.approx(min(pairs_mm), rel=1e-12)
    assert place._to_border_mm(points_mm) == place._border.query(points_mm)[0].min() <= least_mm


def test_a_single_lung_is_on_its_side_of_the_body(hu: np.ndarray):
    alone = np.where(lung_at(-1), np.int16(40), hu)
    lung = lungs.find_lungs(alone, SPACING_MM)
    assert lung.is_one()
    for up_mm, aside_mm in ((-40, -25), (0, 0), (40, 25)):
        assert LungMap(lung, LPS).locate(ball(1, up_mm, aside_mm, 5)).side == "left"
        assert LungMap(lung, np.diag([-1, 1, 1, 1]) @ LPS).locate(ball(1, up_mm, aside_mm, 5)).side == "right"


@pytest.mark.parametrize("columns", [slice(160, 320), slice(140, 320), slice(0, 160)])
def test_of_a_field_of_view_with_one_lung_the_side_is_not_known(hu: np.ndarray, columns: slice):
    lung = lungs.find_lungs(np.ascontiguousarray(hu[..., columns]), SPACING_MM)
    assert lung.is_one()
    for up_mm, zone in ((-60, "lower"), (0, "middle"), (60, "upper")):
        side = 1 if columns.start else -1
        for aside_mm in (-20, 20):
            found = LungMap(lung, LPS).locate(ball(side, up_mm, aside_mm, 5) - [0, 0, columns.start])
            assert (found.side, found.zone) == (None, zone)


def test_two_lungs_are_not_one(lung: Lungs):
    assert not lung.is_one()
    assert not Lungs(np.zeros((2, 3, 4), bool), (1, 1, 1), (2, 3, 4), SPACING_MM, 0.0).is_one()
