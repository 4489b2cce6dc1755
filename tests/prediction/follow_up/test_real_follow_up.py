"""A real scan and a copy that was turned, shifted, breathed out and resampled: where registration puts its nodules."""

from __future__ import annotations

from pathlib import Path

import moved_chests
import numpy as np

from lungjax.ct import lungs
from lungjax.prediction.follow_up import registration
from lungjax.preparation.formats import lidc


def test_nodules_of_a_real_scan_lie_where_they_were_moved(real_data: Path):
    """LIDC-IDRI-0003: its nodules within 3 mm, points throughout its lungs within 3 mm in the median."""
    (entry,), _ = lidc.find(real_data / "lidc-dicom" / "LIDC-IDRI" / "LIDC-IDRI-0003")
    scan = lidc.read(entry)
    affine = scan.affine_lps
    assert affine is not None
    mask = lungs.find_lungs(scan.voxels, scan.spacing_mm).mask()
    centres = np.array([_centre(nodule) for nodule in scan.nodules])
    voxels = np.concatenate([centres, np.argwhere(mask)[::20011]])
    points_mm = voxels[:, ::-1] @ affine[:3, :3].T + affine[:3, 3]
    span_mm = (float(points_mm[:, 2].min()), float(points_mm[:, 2].max()))
    motion = moved_chests.Motion(span_mm=span_mm)
    second_affine = moved_chests.affine_lps(256, 400.0, 2.0)
    second_affine[:3, 3] += [*points_mm[:, :2].mean(axis=0), span_mm[0] - 20]
    second_affine[:3, 3] += motion.shift_mm
    later = moved_chests.moved(scan.voxels, affine, motion, (160, 256, 256), second_affine)
    later += np.random.default_rng(0).normal(0, 20, later.shape)
    nowhere = np.zeros(scan.voxels.shape, np.uint8), np.zeros(later.shape, np.uint8)
    registered = registration.register(scan, moved_chests.scan(later, second_affine, name="2"), *nowhere)
    error_mm = np.linalg.norm(registered.to_second(points_mm) - motion.forth(points_mm), axis=1)
    at_nodules_mm, in_lungs_mm = error_mm[: len(centres)], error_mm[len(centres) :]
    print(f"nodules {at_nodules_mm.round(2)}, lungs {np.percentile(in_lungs_mm, [50, 95, 100]).round(2)} mm")
    assert len(at_nodules_mm) == 4
    assert at_nodules_mm.max() < 3
    assert np.median(in_lungs_mm) < 3
    assert registered.lung_dice > 0.9


def _centre(nodule) -> np.ndarray:
    """The mean of the voxels that the first reader marked."""
    reading = nodule.readings[0]
    return np.argwhere(reading.mask).mean(axis=0) + reading.origin
