"""What a phantom is made of, part by part: which scans, nodules, vessels, chest, noise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from lungjax.ct.scan import Nodule, Reading
from lungjax.data.splits import SPLITS, split_of
from lungjax.lidc import annotations
from lungjax.preparation.phantom import anatomy, image, lesions, vessels
from lungjax.preparation.phantom.selection import choose


@pytest.mark.parametrize("seed", [0, 1])
def test_choice_is_distinct_nested_and_of_all_splits(seed: int):
    rows = choose(24, seed=seed)
    assert len({row.series_uid for row in rows}) == 24
    assert [row.scan_id for row in choose(8, seed=seed)] == [row.scan_id for row in rows[:8]]
    assert {split_of(row.patient_id) for row in rows[:8]} == set(SPLITS)
    counts = {split: sum(split_of(row.patient_id) == split for row in rows) for split in SPLITS}
    assert min(counts.values()) >= 2
    assert counts["train"] > counts["val"] + counts["test"]
    for row in rows[:8]:
        assert len(row.z_mm) <= 320
        assert max(len(nodule.readings) for nodule in annotations.nodules(row)) >= 3


def test_another_seed_chooses_others():
    first, second = ({row.scan_id for row in choose(3, seed=seed)} for seed in (0, 1))
    assert first != second


@pytest.mark.slow
def test_all_scans_can_be_chosen():
    assert {row.scan_id for row in choose(1018, seed=0)} == set(range(1, 1019))


def _nodule(
    texture: int, readers: int, *, size: int = 8, slices: int = 2, calcification: int = 6, air: int = 0
) -> Nodule:
    """Each reader marks `slices` slices of `size` rows and columns; reader r starts r columns further. The first `air`
    of them say that there is air inside."""
    mask = np.ones((slices, size, size), bool)
    ratings = [(3, 4 if r < air else 1, calcification, 3, 3, 1, 1, texture, 3) for r in range(readers)]
    return Nodule(0, tuple(Reading(r, r, ratings[r], mask, (5, 16, 32 + r)) for r in range(readers)))


def test_cover_is_the_share_of_four_readers():
    lesion = lesions.paint(_nodule(5, 3), (2.0, 0.7, 0.7), 512)
    assert lesion.origin == (5, 16, 32)
    # Readers start at columns 0, 1, 2 and mark 8: one reader, two, six columns of three, two, one.
    share = np.array([1, 2, 3, 3, 3, 3, 3, 3, 2, 1]) / 4
    np.testing.assert_array_equal(lesion.cover, np.broadcast_to(share, (2, 8, 10)).astype(np.float32))


def test_small_matrix_takes_the_mean_over_a_pixels_area():
    lesion = lesions.paint(_nodule(5, 4), (2.0, 0.7, 0.7), 128)
    assert lesion.origin == (5, 4, 8)
    columns = np.zeros(12)
    for reader in range(4):
        columns[reader : reader + 8] += 1 / 4
    expected = columns.reshape(3, 4).mean(1)
    np.testing.assert_allclose(lesion.cover, np.broadcast_to(expected, (2, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(lesion.hu[lesion.cover > 0], 30.0, rtol=1e-5)


@pytest.mark.parametrize(("texture", "rim_hu", "core_hu"), [(5, 30, 30), (3, -420, 30), (1, -600, -600)])
def test_density_follows_the_rated_texture(texture: int, rim_hu: float, core_hu: float):
    lesion = lesions.paint(_nodule(texture, 4, size=20), (2.0, 0.7, 0.7), 512)
    assert lesion.hu[0, 0, 0] == rim_hu
    np.testing.assert_allclose(lesion.hu[0, 10, 11], core_hu, atol=1e-3)


def test_calcified_core_is_denser():
    lesion = lesions.paint(_nodule(5, 4, size=20, calcification=3), (2.0, 0.7, 0.7), 512)
    np.testing.assert_allclose(lesion.hu[0, 10, 11], 380.0, atol=1e-3)


def test_a_cavity_is_where_half_of_the_readers_say_air():
    def painted(air: int) -> np.ndarray:
        lesion = lesions.paint(_nodule(5, 4, size=40, slices=12, air=air), (2.0, 0.7, 0.7), 512)
        np.testing.assert_array_equal(lesion.cover[6, 20, 10:20], 1)  # Marked as a whole, as readers do.
        hu = np.full((512, 512), -860, np.float32)
        hu[36, 53] = 200  # A vessel does not go through a cavity.
        lesion.paint(hu, 11)
        return hu

    cavity = painted(2)
    assert (cavity[36, 53], cavity[36, 36], cavity[16, 53]) == (-950, 30, 30)
    wall = np.flatnonzero(cavity[36, 35:] == -950)[0]
    assert 2 <= wall <= 10, "the wall is as thick as the cavity is wide"
    solid = painted(1)
    assert (solid[36, 53], solid[36, 60]) == (200, 30)


def test_painting_keeps_denser_things():
    lesion = lesions.paint(_nodule(5, 4), (2.0, 0.7, 0.7), 512)
    hu = np.full((512, 512), -860, np.float32)
    hu[20, 38] = 200
    before = hu.copy()
    lesion.paint(hu, 4)
    np.testing.assert_array_equal(hu, before)  # another slice
    lesion.paint(hu, 5)
    assert (hu[18, 37], hu[20, 38], hu[18, 60]) == (30, 200, -860)


def _chest(nodules_mm: np.ndarray, seed: int = 0) -> anatomy.Chest:
    rng = np.random.default_rng(seed)
    return anatomy.place(rng, field_of_view_mm=350, z_mm=np.linspace(-300, 0, 121), nodules_mm=nodules_mm)


def test_lungs_hold_every_nodule_wherever_it_lies():
    # In the right lung, in the left, in the heart's place, and where a patient's skin would be.
    nodules_mm = np.array([(-70, 20, -150), (80, 30, -100), (20, -20, -200), (0, -140, -150)], float)
    nodules_mm = np.hstack([nodules_mm, np.full((4, 3), 6.0)])
    chest = _chest(nodules_mm)
    for x, y, z, *_ in nodules_mm:
        # The pocket's half axes are at least 5 mm longer than the nodule's, in every direction.
        for step in (*np.eye(3), *-np.eye(3)):
            assert chest.lung_distance_mm(x + 6 * step[0], y + 6 * step[1], z + 6 * step[2]) < 0


def test_there_are_two_lungs_apart():
    chest = _chest(np.zeros((0, 6)))
    low, high = chest.lungs_mm
    x = np.arange(-175.0, 176.0)
    lung = chest.lung_distance_mm(x[None, :], x[:, None], low + 0.6 * (high - low)) < 0
    pieces, _ = ndimage.label(lung)  # pyright: ignore[reportGeneralTypeIssues]
    sizes = np.bincount(pieces.ravel())[1:]
    assert len(sizes) == 2
    assert sizes.min() > 0.5 * sizes.max()


def test_vessels_lie_in_lung_and_thin_to_the_tips():
    chest = _chest(np.zeros((0, 6)))
    balls = vessels.grow(chest, np.random.default_rng(1)).balls_mm
    x, y, z, radius = balls.T
    assert np.mean(chest.lung_distance_mm(x, y, z) < 0) > 0.9
    hilum = np.abs(np.hypot(x - chest.centre_mm[0], y - chest.centre_mm[1]))
    assert radius[hilum < 50].mean() > 1.5 * radius[hilum > 90].mean()
    assert radius.max() <= 4.5 + 1e-6
    assert np.all(np.diff(z) >= 0)


def test_one_ball_covers_its_disc():
    ball = vessels.Vessels(np.array([[0.0, 0.0, 10.0, 5.0]], np.float32))
    cover = ball.cover((63, 63), 1.0, 10.0, 1.0)
    np.testing.assert_allclose(cover.sum(), np.pi * 25, rtol=0.03)
    assert ball.cover((63, 63), 1.0, 16.0, 1.0).sum() == 0


def test_noise_has_a_scanners_strength_and_correlation():
    pixel_mm = 0.82
    noise = image.Noise(np.random.default_rng(3), 256, pixel_mm)
    field = noise.draw(np.random.default_rng(4))
    assert 16 < field.std() < 34
    for lag, measured in ((1, 0.75), (2, 0.32), (3, 0.08)):  # LIDC-IDRI-0003
        found = np.mean(field[:, lag:] * field[:, :-lag]) / field.var()
        np.testing.assert_allclose(found, measured, atol=0.05)


def test_doubling_keeps_a_ramp_and_the_mean():
    ramp = np.arange(16, dtype=np.float32)[None, :] + np.zeros((16, 1), np.float32)
    # Pixel centres of the larger image lie a quarter of a pixel to either side.
    expected = (np.arange(32) - 0.5) / 2
    np.testing.assert_allclose(image.double(ramp)[5, 1:-1], expected[1:-1], rtol=1e-6)
    noise = np.random.default_rng(0).normal(size=(16, 16)).astype(np.float32)
    np.testing.assert_allclose(image.double(noise).mean(), noise.mean(), atol=1e-6)
