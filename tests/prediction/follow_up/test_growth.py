"""Ratio of volumes, its interval, and the doubling time, against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lungjax.prediction.follow_up import growth
from lungjax.prediction.follow_up.growth import Growth


def ball_mm3(diameter_mm: float) -> float:
    return math.pi / 6 * diameter_mm**3


def test_of_fine_voxels_the_published_limits_remain():
    grown = growth.grown((1000.0, 1300.0), (1e-9, 1e-9))
    assert grown.ratio == pytest.approx(1.3)
    assert grown.ratio_interval == pytest.approx((1.3 / 1.25, 1.3 * 1.25), rel=2e-3)
    assert grown.change == "larger"
    assert growth.grown((1000.0, 1240.0), (1e-9, 1e-9)).change == "within measurement error"
    assert growth.grown((1000.0, 790.0), (1e-9, 1e-9)).change == "smaller"


def test_the_interval_is_wider_for_small_nodules_and_thick_slices():
    """By hand: d 10 mm and voxels of 1 mm3 give 3 ln 1.1 a scan."""
    limit = math.sqrt(math.log(1.25) ** 2 + 2 * (3 * math.log(1.1)) ** 2)
    grown = growth.grown((ball_mm3(10), ball_mm3(10)), (1.0, 1.0))
    assert grown.ratio_interval == pytest.approx((math.exp(-limit), math.exp(limit)))

    def width(diameter_mm: float, voxel_mm3: float) -> float:
        low, high = growth.grown((ball_mm3(diameter_mm), ball_mm3(diameter_mm)), (voxel_mm3, voxel_mm3)).ratio_interval
        return high / low

    assert width(5, 0.5) > width(8, 0.5) > width(20, 0.5)
    assert width(8, 0.5 * 0.5 * 5) > width(8, 0.5 * 0.5 * 1)
    assert math.isfinite(width(3, 10))


def test_balls_of_known_growth_lie_in_the_interval():
    """Counted in voxels, anywhere in the grid, thick slices and thin: 95 % and more."""
    rng = np.random.default_rng(0)
    inside = []
    for _ in range(200):
        before_mm, factor = rng.uniform(4, 20), rng.uniform(0.4, 3)
        spacings = [np.array([rng.uniform(0.6, 3), *[rng.uniform(0.5, 0.9)] * 2]) for _ in range(2)]
        diameters = before_mm, before_mm * math.cbrt(factor)
        volumes = [counted_mm3(mm, spacing, rng) for mm, spacing in zip(diameters, spacings, strict=True)]
        low, high = growth.grown((volumes[0], volumes[1]), (spacings[0].prod(), spacings[1].prod())).ratio_interval
        inside.append(low < factor < high)
    assert np.mean(inside) >= 0.95


def counted_mm3(diameter_mm: float, spacing_mm: np.ndarray, rng: np.random.Generator) -> float:
    centre = rng.uniform(-0.5, 0.5, 3)
    reach = np.ceil(diameter_mm / 2 / spacing_mm + 1).astype(int)
    z, y, x = np.meshgrid(*(np.arange(-n, n + 1) for n in reach), indexing="ij", sparse=True)
    z, y, x = ((index - c) * mm for index, c, mm in zip((z, y, x), centre, spacing_mm, strict=True))
    return np.count_nonzero(z**2 + y**2 + x**2 < (diameter_mm / 2) ** 2) * float(spacing_mm.prod())


def test_schwartz():
    """Twice the volume in 100 days; eight times, twice the diameter, in 300 days; both double in 100 days."""
    twice = growth.doubling_time(Growth(2, (1.5, 4), "larger"), 100)
    assert (twice.days, twice.reason) == (pytest.approx(100), None)
    assert twice.days_interval == pytest.approx((50, 100 * math.log(2) / math.log(1.5)))
    assert growth.doubling_time(Growth(8, (4, 16), "larger"), 300).days == pytest.approx(100)


def test_without_growth_there_is_no_doubling_time():
    slow = growth.doubling_time(Growth(1.1, (0.9, 1.3), "within measurement error"), 90)
    assert slow.days == pytest.approx(90 * math.log(2) / math.log(1.1))
    assert slow.days_interval == (pytest.approx(90 * math.log(2) / math.log(1.3)), None)
    for ratio in (1.0, 0.9):
        none = growth.doubling_time(Growth(ratio, (0.7, 1.2), "within measurement error"), 90)
        assert none.days is None
        assert none.days_interval == (pytest.approx(90 * math.log(2) / math.log(1.2)), None)
        assert none.reason == "It did not grow, so it has no doubling time."
    assert growth.doubling_time(Growth(0.5, (0.4, 0.6), "smaller"), 90).days_interval is None
