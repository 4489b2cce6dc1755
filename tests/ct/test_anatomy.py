"""An affine that lies is noticed by trachea, spine and heart; a chest that lies as it says is not doubted."""

from __future__ import annotations

from pathlib import Path

import chests
import moved_chests
import numpy as np
import pytest

from lungjax.ct import anatomy, lungs, read

UPSIDE_DOWN, BACK_TO_FRONT = "trachea seems to lie at the lower end", "spine seems to lie in front"
MIRRORED = "heart seems to lie on the right"


def chest() -> np.ndarray:
    """A chest with a trachea in the upper third, a spine behind the lungs and a thin sternum."""
    hu = chests.chest()
    hu[26:, 56:61, 62:67] = -990
    hu[:, 92:108, 58:71] = 400
    hu[:, 20:22, 60:69] = 400
    return hu


def told(hu: np.ndarray, spacing_mm: tuple[float, float, float] = chests.SPACING_MM) -> list[str]:
    hu = np.ascontiguousarray(hu)
    return anatomy.contradictions(hu, lungs.find_lungs(hu, spacing_mm))


def assert_noticed(hu: np.ndarray, spacing_mm: tuple[float, float, float]) -> None:
    assert told(hu, spacing_mm) == []
    (sentence,) = told(hu[::-1], spacing_mm)
    assert UPSIDE_DOWN in sentence


def test_a_chest_upside_down_or_back_to_front():
    assert_noticed(chest(), chests.SPACING_MM)
    (sentence,) = told(chest()[:, ::-1])
    assert BACK_TO_FRONT in sentence
    assert len(told(chest()[::-1, ::-1])) == 2


def test_a_mirrored_chest():
    scan = moved_chests.drawn([]).scans[0]
    assert told(scan.voxels, scan.spacing_mm) == []
    (sentence,) = told(scan.voxels[:, :, ::-1], scan.spacing_mm)
    assert MIRRORED in sentence
    assert told(chest()[:, :, ::-1]) == []  # Its heart is in the middle.


def test_nothing_is_said_where_the_body_says_nothing():
    for hu in (chests.chest(), np.full(chests.SHAPE, -1000, np.int16), chest()[:20]):
        assert told(hu) == told(hu[::-1]) == []


@pytest.mark.parametrize("folder", ["lidc-dicom/LIDC-IDRI/LIDC-IDRI-0003", "normal-dicom/normal001"])
def test_real_scans(real_data: Path, folder: str):
    (entry,), _ = read.find(real_data / folder)
    scan = read.read(entry)
    assert_noticed(scan.voxels, scan.spacing_mm)
    if folder.startswith("normal"):  # In the other, contrast fills the heart.
        (sentence,) = told(scan.voxels[:, ::-1], scan.spacing_mm)
        assert BACK_TO_FRONT in sentence
    (sentence,) = told(scan.voxels[:, :, ::-1], scan.spacing_mm)
    assert MIRRORED in sentence
    half = len(scan.voxels) // 2
    for part in (scan.voxels[half:], scan.voxels[:half]):
        assert told(part, scan.spacing_mm) == told(part[:, :, ::-1], scan.spacing_mm) == []
