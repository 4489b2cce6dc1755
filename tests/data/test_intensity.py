"""HU from sources that lost them: slices of two levels, and real scans scaled to 8 bits as others do."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lungjax.data import shards
from lungjax.data.intensity import LUNG_HU, TISSUE_HU, to_hu, window
from lungjax.preparation.run import prepare

SIDE_PX = 64


def chest_hu(*, calcified_hu: float | None = None, corner_hu: float | None = None) -> np.ndarray:
    """Lung above, tissue below, a ground-glass disk between in HU; a calcification or an empty corner if asked."""
    rows, columns = np.mgrid[:SIDE_PX, :SIDE_PX]
    hu = np.where(rows < SIDE_PX // 2, LUNG_HU, TISSUE_HU) + np.random.default_rng(0).normal(0, 15, rows.shape)
    hu[np.hypot(rows - 16, columns - 32) < 6] = -400
    if calcified_hu is not None:
        hu[np.hypot(rows - 50, columns - 50) < 3] = calcified_hu
    if corner_hu is not None:
        hu[rows + columns < 12] = corner_hu
    return hu


def to_8_bits(hu: np.ndarray) -> jax.Array:
    """Each slice (..., rows, columns) scaled by its own extremes."""
    hu = hu.astype(np.float64)
    low, high = (f(hu, axis=(-2, -1), keepdims=True) for f in (np.min, np.max))
    return jnp.asarray(np.round(255 * (hu - low) / (high - low)), jnp.uint8)


def test_window_maps_its_ends_to_0_and_1():
    hu = np.array([-3024, -1350, -600, 150, 3000], np.float32)
    np.testing.assert_allclose(window(jnp.asarray(hu)), [0, 0, 0.5, 1, 1], atol=1e-6)
    np.testing.assert_allclose(window(jnp.asarray(hu), (-600.0, 10.0)), [0, 0, 0.5, 1, 1])


def test_hu_stay_what_they_are():
    hu = np.array([[-3024, -1000], [40, 3071]], np.int16)
    np.testing.assert_array_equal(to_hu(jnp.asarray(hu), intensity="hu"), hu.astype(np.float32))


@pytest.mark.parametrize("extremes", [{}, {"calcified_hu": 2500.0}, {"corner_hu": -3024.0}])
def test_the_scaling_of_8_bits_is_undone(extremes: dict[str, float]):
    hu = chest_hu(**extremes)
    step_hu = (hu.max() - hu.min()) / 255
    found = np.asarray(to_hu(to_8_bits(hu), intensity="unit"))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[16, 32], -400, atol=1.5 * step_hu)
    np.testing.assert_allclose(found[20:, :20].ravel(), hu[20:, :20].ravel(), atol=2 * step_hu)


@pytest.mark.parametrize(
    ("intensity", "scale", "shift"), [("fraction", 1 / 4000, 0.6), ("zscore", 1 / 450, 0.8), ("zscore", 1 / 100, 4.0)]
)
def test_any_line_of_floats_is_undone(intensity, scale: float, shift: float):
    hu = np.stack([chest_hu(), chest_hu(calcified_hu=1200.0)])
    found = np.asarray(to_hu(jnp.asarray(hu * scale + shift, jnp.float32), intensity=intensity))
    np.testing.assert_allclose(found, hu, atol=25)


def test_what_a_source_filled_with_zeros_is_no_tissue():
    """Of z-scores cut out by a mask: two thirds of the slice are exactly 0."""
    hu = chest_hu()
    scores = ((hu - hu.mean()) / hu.std()).astype(np.float32)
    scores[:, 22:] = 0
    np.testing.assert_allclose(np.asarray(to_hu(jnp.asarray(scores), intensity="zscore"))[:, :22], hu[:, :22], atol=25)


def test_a_slice_of_one_value_and_one_of_one_tissue_are_finite():
    flat = np.full((SIDE_PX, SIDE_PX), 99, np.uint8)
    noise = np.random.default_rng(0).integers(0, 2, flat.shape).astype(np.uint8)
    for image in (flat, noise, np.zeros_like(flat)):
        assert np.isfinite(np.asarray(to_hu(jnp.asarray(image), intensity="unit"))).all()


def test_one_slice_and_a_batch_of_them_agree():
    images = jnp.stack([to_8_bits(chest_hu()), to_8_bits(chest_hu(corner_hu=-2000.0))])
    together = to_hu(images, intensity="unit")
    for image, found in zip(images, np.asarray(together), strict=True):
        np.testing.assert_allclose(
            jax.jit(to_hu, static_argnames="intensity")(image, intensity="unit"), found, rtol=1e-5
        )


def test_unknown_intensity():
    with pytest.raises(ValueError, match="intensity is 'raw'"):
        to_hu(jnp.zeros((4, 4), jnp.int16), intensity="raw")  # pyright: ignore[reportArgumentType]


def test_real_crops_regain_their_hu(real_data: Path, tmp_path: Path):
    """Crops of 128 x 128 px around the lungs of a real scan, each scaled by its own extremes to 8 bits."""
    prepare(real_data / "lidc-dicom" / "LIDC-IDRI" / "LIDC-IDRI-0003", tmp_path / "scan", workers=1)
    dataset = shards.open_dataset(tmp_path / "scan")
    rows = np.flatnonzero(dataset.index["lung_area_mm2"] > 5000)
    slices, rng = np.stack(dataset.pixels(rows)[0]), np.random.default_rng(0)
    hu = np.stack([one[i : i + 128, j : j + 128] for one in slices for i, j in rng.integers(100, 284, (2, 2))])
    tissue = (hu > -1000) & (hu < 100)
    both_kinds = ((hu > -1000) & (hu < -700)).mean((1, 2)) > 0.1
    both_kinds &= ((hu > -100) & (hu < 100)).mean((1, 2)) > 0.1
    assert both_kinds.mean() > 0.5
    crops = np.flatnonzero(both_kinds)
    found = np.asarray(to_hu(to_8_bits(hu[crops]), intensity="unit"))
    errors_hu = np.array([np.median(np.abs(a - b)[m]) for a, b, m in zip(found, hu[crops], tissue[crops], strict=True)])
    assert np.median(errors_hu) < 40
    assert np.quantile(errors_hu, 0.95) < 120
