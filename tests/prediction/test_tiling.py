"""Tiles over a slice: they cover what is asked for, and their mean gives back what they were cut from."""

from __future__ import annotations

import numpy as np
import pytest
import runs

from lungjax.data import crop
from lungjax.prediction.tiling import Blend, Tiling


@pytest.mark.parametrize(
    "tiling", [Tiling(32, 8, False), Tiling(32, 9, True), Tiling(40, 40, True), Tiling(9, 4, True)]
)
@pytest.mark.parametrize("shape", [(64, 50), (33, 70), (20, 24)])
def test_the_mean_of_tiles_is_the_slice_they_were_cut_from(tiling: Tiling, shape: tuple[int, int]):
    image = np.random.default_rng(0).normal(0, 1, shape).astype(np.float32)
    region = np.zeros(shape, bool)
    region[3:15, 5:19] = region[-1, -1] = True
    blend = Blend(shape, tiling)
    for corner in tiling.corners(region):
        blend.add(crop.cut(image, corner, tiling.tile_px), corner)
    np.testing.assert_allclose(blend.mean()[region], image[region], rtol=1e-4, atol=1e-5)


def test_every_pixel_lies_in_the_core_of_some_tile():
    tiling = Tiling(32, 8, False)
    region = np.random.default_rng(1).random((70, 61)) > 0.9
    middles = np.array(tiling.corners(region)) + 15.5
    for pixel in np.argwhere(region):
        assert np.abs(middles - pixel).max(axis=1).min() <= 4


def test_tiles_stay_inside_as_crops_did_in_training():
    region = np.ones((50, 64), bool)
    corners = np.array(Tiling(32, 8, True).corners(region))
    assert corners.min() == 0
    assert (corners.max(axis=0) == (50 - 32, 64 - 32)).all()
    assert np.array(Tiling(32, 8, False).corners(region)).min() < 0
    assert Tiling(32, 8, True).corners(np.zeros((50, 64), bool)) == []


def test_nothing_far_from_the_region_is_looked_at():
    region = np.zeros((512, 512), bool)
    region[100:108, 200:208] = True
    assert len(Tiling(128, 32, False).corners(region)) <= 4


def test_a_pixel_near_a_tiles_middle_follows_that_tile():
    """The weights fall linearly from one middle to the next."""
    tiling = Tiling(32, 8, False)
    blend = Blend((64, 64), tiling)
    blend.add(np.zeros((32, 32), np.float32), (10, 10))
    blend.add(np.ones((32, 32), np.float32), (10, 18))
    mean = blend.mean()
    row = 25
    assert mean[row, 25] == pytest.approx(0, abs=2e-3)  # Half a pixel before the first middle, at 25.5.
    assert mean[row, 29] == pytest.approx(3.5 / 8, abs=1e-6)
    assert mean[row, 31] == pytest.approx(5.5 / 8, abs=1e-6)
    assert mean[0, 0] == 0


def test_tiles_are_those_of_the_training(tmp_path):
    config = runs.small_config("segment", tmp_path)  # 64 px, around nodules, shifted by up to 5 %.
    assert Tiling.of(config, None) == Tiling(64, round(2 * 64 * 0.3), True)
    config.data.crop_at = "random"
    assert Tiling.of(config, None) == Tiling(80, 60, True)  # Anywhere: larger tiles, a multiple of the stride.
    config.data.crop_px = 0
    assert Tiling.of(config, None) == Tiling(128, 32, False)
    assert Tiling.of(config, 96) == Tiling(96, 24, False)
    config.augment.shift = 0.2
    assert Tiling.of(config, 100) == Tiling(100, 40, False)
