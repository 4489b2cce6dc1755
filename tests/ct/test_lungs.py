"""The lung mask on a chest of simple shapes, on phantom scans, on a real scan, and where there is no lung."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from lungjax.ct import lungs, morphology
from lungjax.ct.lungs import Lungs
from lungjax.ct.scan import Scan
from lungjax.preparation import phantom
from lungjax.preparation.formats import lidc

SPACING_MM = (2.5, 1.5, 1.5)
SHAPE = (104, 256, 256)
CELL_MM2 = 2.25
LUNG_X_MM, LUNG_Z_MM = 72.0, 130.0
LUNG_AXES_MM = (50.0, 75.0, 80.0)  # x, y, z


def ellipsoid(at_mm, centre_mm, axes_mm) -> np.ndarray:
    inside = sum(((u - c) / a) ** 2 for u, c, a in zip(at_mm, centre_mm, axes_mm, strict=True)) < 1
    return np.asarray(inside)


def chest() -> dict[str, np.ndarray]:
    """Named bool masks (slices, rows, columns), to be painted in this order; x to the right, y to the back, z up, mm.

    Lungs reach from z = 50 to 210; the trachea from the fork at z = 150 to the top; gas lies in the belly below 45.
    """
    z, y, x = np.meshgrid(*(np.arange(n) * mm for n, mm in zip(SHAPE, SPACING_MM, strict=True)), indexing="ij")
    x, y = x - x.mean(), y - y.mean()
    at_mm = (x, y, z)
    everywhere = np.inf
    lung = ellipsoid(at_mm, (-LUNG_X_MM, 0, LUNG_Z_MM), LUNG_AXES_MM)
    lung |= ellipsoid(at_mm, (LUNG_X_MM, 0, LUNG_Z_MM), LUNG_AXES_MM)
    body = ellipsoid(at_mm, (0, 0, 0), (145, 100, everywhere))
    rim = np.hypot(x / 137, y / 92)
    slanted = np.mod(z + 30 * np.arctan2(np.abs(x), y), 27) < 10
    bed = y - 120 + x**2 / 1500  # The table is curved and hollow, and carries the body.
    fork = np.clip(150 - z, 0, 40)
    pipe = [np.hypot(x - side * fork, y - 10) < 8 for side in (-1, 1)]
    return {
        "table": (np.abs(bed) < 16) & (np.abs(x) < 150),
        "foam": (np.abs(bed) < 13) & (np.abs(x) < 147),
        "body": body,
        "arms": np.hypot(np.abs(x) - 168, y - 10) < 24,
        "ribs": (np.abs(rim - 1) < 0.035) & slanted,
        "lung": lung,
        "heart": ellipsoid(at_mm, (10, -20, 100), (45, 40, 45)),
        "nodule": ellipsoid(at_mm, (LUNG_X_MM + 45, 0, 130), (9, 9, 9)),
        "airway": (z > 115) & (pipe[0] | pipe[1]),
        "bubble": ellipsoid(at_mm, (LUNG_X_MM, -20, 25), (45, 40, 22)),
        "bowel": ellipsoid(at_mm, (-60, -30, 20), (60, 35, 20)),
    }


HU = {
    "table": 60,
    "foam": -930,
    "body": 40,
    "arms": 40,
    "ribs": 600,
    "lung": -850,
    "heart": 40,
    "nodule": 40,
    "airway": -940,
    "bubble": -1000,
    "bowel": -700,
}


def paint(parts: dict[str, np.ndarray]) -> np.ndarray:
    hu = np.full(SHAPE, -1000.0, np.float32)
    for name, mask in parts.items():
        hu[mask] = HU[name]
    noise = np.random.default_rng(0).normal(0, 30, SHAPE)
    hu = ndimage.gaussian_filter(hu, (0, 0.4, 0.4)) + noise
    row, column = (np.arange(256) - 127.5 for _ in range(2))
    hu[:, np.hypot(row[:, None], column) > 128] = -3024  # The scanner's circle.
    return hu.astype(np.int16)


@pytest.fixture(scope="module")
def parts() -> dict[str, np.ndarray]:
    return chest()


@pytest.fixture(scope="module")
def found(parts: dict[str, np.ndarray]) -> Lungs:
    return lungs.find(paint(parts), SPACING_MM)


def test_each_part_of_a_chest_is_lung_or_is_not(parts: dict[str, np.ndarray], found: Lungs):
    mask = found.mask()
    assert mask.shape == SHAPE
    assert mask.dtype == bool
    pure = parts["lung"] & ~parts["heart"] & ~parts["airway"]
    assert mask[np.asarray(ndimage.binary_erosion(pure, iterations=2), bool)].mean() > 0.995
    # What a nodule at the pleura takes of the lung is given back: four fifths of this one, all but its rim.
    assert mask[parts["nodule"] & parts["lung"]].mean() > 0.75
    walls = np.asarray(ndimage.binary_dilation(parts["lung"], iterations=2), bool)
    hilum = np.asarray(ndimage.binary_dilation(parts["lung"], iterations=8), bool)  # `EDGE_MM`: where bronchi enter.
    for name in ("table", "foam", "arms", "ribs", "bubble", "bowel", "airway", "heart"):
        elsewhere = parts[name] & ~(hilum if name == "airway" else walls)
        assert elsewhere.sum() > 1000, name
        assert mask[elsewhere].mean() < 0.03, name
    assert not mask[~walls & ~parts["body"]].any()


def test_area_box_and_volume_of_ellipsoids_in_closed_form(found: Lungs, parts: dict[str, np.ndarray]):
    a, b, c = LUNG_AXES_MM
    z_mm = np.arange(SHAPE[0]) * SPACING_MM[0]
    scale = np.sqrt(np.maximum(1 - ((z_mm - LUNG_Z_MM) / c) ** 2, 0))
    expected_mm2 = 2 * np.pi * a * b * scale**2
    area_mm2 = found.area_mm2()
    none = expected_mm2 == 0
    assert (area_mm2[none] == 0).all()
    assert (found.boxes_px()[none] == -1).all()
    clear = (z_mm > 150) & (expected_mm2 > 3000)  # Above heart and bronchi.
    np.testing.assert_allclose(area_mm2[clear], expected_mm2[clear], rtol=0.04)
    middle_px = (np.array(SHAPE[1:]) - 1) / 2
    half_px = np.stack([b * scale, LUNG_X_MM + a * scale])[:, clear] / 1.5
    box = np.stack([middle_px[0] - half_px[0], middle_px[0] + half_px[0], middle_px[1] - half_px[1]], axis=1)
    np.testing.assert_allclose(found.boxes_px()[clear, :3], box, atol=2.5)
    np.testing.assert_allclose(found.mask().sum((1, 2)) * CELL_MM2, area_mm2, rtol=0.03, atol=60)


def test_masks_lie_in_their_boxes(found: Lungs):
    boxes = found.boxes_px()
    assert (boxes[:, 0] >= 0).sum() > 60
    for mask, box in zip(found.mask(), boxes, strict=True):
        top, bottom, left, right = box
        if top >= 0:
            assert mask.sum() == mask[top : bottom + 1, left : right + 1].sum()
        else:
            assert not mask.any()


def test_thin_slices_and_odd_sizes(parts: dict[str, np.ndarray], found: Lungs):
    # The same chest with slices of 1.25 mm, the last of them alone, on 253 columns.
    voxels = np.repeat(paint(parts), 2, axis=0)[:-1, :, :253]
    thin = lungs.find(voxels, (1.25, 1.5, 1.5))
    assert thin.step == (2, 2, 2)
    assert thin.mask().shape == voxels.shape
    np.testing.assert_allclose(thin.area_mm2(), np.repeat(found.area_mm2(), 2)[:-1], rtol=0.02)


def test_one_lung_is_enough(parts: dict[str, np.ndarray]):
    right_gone = {name: mask.copy() for name, mask in parts.items()}
    right_gone["lung"][:, :, 128:] = False
    area_mm2 = lungs.find(paint(right_gone), SPACING_MM).area_mm2()
    a, b, _ = LUNG_AXES_MM
    np.testing.assert_allclose(area_mm2.max(), np.pi * a * b, rtol=0.1)


@pytest.mark.parametrize("hu", [-3024, -1000, -850, -500, 0, 40, 3000])
def test_a_constant_scan_has_no_lung(hu: int):
    found = lungs.find(np.full((12, 40, 44), hu, np.int16), (2.5, 3.0, 3.0))
    assert not found.mask().any()
    assert (found.area_mm2() == 0).all()
    assert (found.boxes_px() == -1).all()


def test_noise_and_a_body_without_air_have_no_lung(parts: dict[str, np.ndarray]):
    only = {name: parts[name] for name in ("table", "foam", "body", "arms", "ribs", "bowel")}
    only["bowel"] = only["bowel"] & False
    assert not lungs.find(paint(only), SPACING_MM).grid.any()
    noise = np.random.default_rng(0).integers(-3024, 3071, (10, 64, 64)).astype(np.int16)
    assert not lungs.find(noise, (2.5, 3.0, 3.0)).grid.any()
    assert not lungs.find(np.zeros((1, 1, 1), np.int16), (2.5, 3.0, 3.0)).grid.any()


@pytest.mark.parametrize(
    "spacing_mm", [(float("nan"),) * 3, (2.5, 0.0, 0.7), (-1.0, 0.7, 0.7), (float("inf"), 1.0, 1.0)]
)
def test_a_scan_without_spacing_is_refused(spacing_mm: tuple[float, float, float]):
    with pytest.raises(ValueError, match="lungs are measured in mm"):
        lungs.find(np.zeros((4, 16, 16), np.int16), spacing_mm)


def test_block_means_equal_a_reshape():
    voxels = np.random.default_rng(0).integers(-3024, 32767, (5, 14, 22)).astype(np.int16)
    cut = np.clip(voxels, -1024, 1023)[:, :12, :20].astype(np.float64)
    expected = cut[:4].reshape(2, 2, 4, 3, 5, 4).mean(axis=(1, 3, 5))
    means = morphology.block_means(voxels, (2, 3, 4))
    assert means.shape == (3, 4, 5)
    np.testing.assert_allclose(means[:2], expected, atol=3)  # Rounded down three times.
    np.testing.assert_allclose(means[2], cut[4].reshape(4, 3, 5, 4).mean(axis=(1, 3)), atol=3)


def test_growing_and_closing_equal_scipys():
    mask = np.random.default_rng(0).random((6, 24, 26)) > 0.9
    cross = ndimage.generate_binary_structure(3, 1)
    np.testing.assert_array_equal(morphology.grown(mask, 0, 1, 2), ndimage.binary_dilation(mask, cross))
    np.testing.assert_array_equal(
        morphology.shrunk(~mask, 0, 1, 2), ndimage.binary_erosion(~mask, cross, border_value=1)
    )
    # Diamond and square twice over: the octagon |r|, |c| <= 4, |r| + |c| <= 6.
    row, column = np.abs(np.mgrid[-4:5, -4:5])
    octagon = (row + column <= 6)[None]
    expected = ndimage.binary_closing(np.pad(mask, 9), octagon)[9:-9, 9:-9, 9:-9]
    np.testing.assert_array_equal(morphology.closed(mask, 4.3), expected)


def outside_of_closed(mask: np.ndarray, scan: Scan, radius_mm: float) -> int:
    """How many marked voxels lie outside the mask closed by a ball; looks around each nodule only."""
    marked = scan.reader_bits() > 0
    outside = 0
    margin = np.ceil(np.divide(3 * radius_mm, scan.spacing_mm)).astype(int)
    for nodule in scan.nodules:
        low = np.min([one.origin for one in nodule.readings], axis=0) - margin
        high = np.max([np.add(one.origin, one.mask.shape) for one in nodule.readings], axis=0) + margin
        box = tuple(slice(max(a, 0), b) for a, b in zip(low.tolist(), high.tolist(), strict=True))
        near = np.asarray(ndimage.distance_transform_edt(~mask[box], scan.spacing_mm)) <= radius_mm
        closed = np.asarray(ndimage.distance_transform_edt(np.pad(near, margin.max(), "edge"), scan.spacing_mm))
        inner = tuple(slice(margin.max(), -margin.max()) for _ in range(3))
        outside += int((marked[box] & ~(closed[inner] > radius_mm)).sum())
    return outside


def test_readers_marks_lie_in_the_lungs_of_phantom_scans(tmp_path: Path):
    phantom.write(tmp_path / "dicom", scans=2, seed=0, matrix=128, workers=1)
    for entry in lidc.find(tmp_path / "dicom")[0]:
        scan = lidc.read(entry)
        found = lungs.find(scan.voxels, scan.spacing_mm)
        assert 2 < found.mask().sum() * np.prod(scan.spacing_mm) / 1e6 < 8  # litres
        assert outside_of_closed(found.mask(), scan, 5.0) == 0
        assert found.area_mm2()[0] == 0  # The phantom's first slices show a belly with gas in the stomach.


def test_real_scan(real_data: Path):
    (entry,) = lidc.find(real_data / "lidc-dicom" / "LIDC-IDRI" / "LIDC-IDRI-0003")[0]
    scan = lidc.read(entry)
    found = lungs.find(scan.voxels, scan.spacing_mm)
    mask = found.mask()
    assert outside_of_closed(mask, scan, 5.0) == 0
    marked = scan.reader_bits() > 0
    assert mask[marked].mean() > 0.999
    litres = [half.sum() * np.prod(scan.spacing_mm) / 1e6 for half in np.split(mask, 2, axis=2)]
    assert 2 < sum(litres) < 8
    assert min(litres) > 1
    # Seen in the images: lungs from slice 7 to 123, the trachea alone above, stomach gas in slices 0 to 17.
    shown = np.flatnonzero(found.area_mm2())
    assert 5 <= shown[0] <= 10
    assert 118 <= shown[-1] <= 124
    assert not mask[:18, 100:170, 230:380].any()
    assert (found.area_mm2()[marked.any(axis=(1, 2))] > 1000).all()
