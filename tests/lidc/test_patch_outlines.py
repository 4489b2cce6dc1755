"""Outlines of patches are the database's, moved to where the patch was cut, or none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lungjax.lidc import annotations as database
from lungjax.lidc import patch_outlines
from lungjax.preparation.formats import lidc as dicom_tree
from lungjax.preparation.formats import nodule_patches

SERIES = "1.3.6.1.4.1.14519.5.2.1.6279.6001.170706757615202213033480003264"  # LIDC-IDRI-0003
SIDE_PX = 71
CORNERS_PX = {1: (-186.5, (319, 329)), 2: (-171.5, (163, 273)), 3: (-169.0, (184, 186))}
"""Of three nodules the position of a slice and where LIDC's own patch of it lies, found by comparing pixels."""


@pytest.fixture(scope="module")
def row() -> database.ScanRow:
    found = database.scan_row(SERIES)
    assert found is not None
    return found


def ratings_of(row: database.ScanRow, nodule: int) -> list[tuple[int, ...]]:
    return [reading.ratings for reading in database.nodules(row)[nodule].readings]


def masks(row: database.ScanRow, z_mm: float, ratings, *, side_px: int = SIDE_PX, spacing_mm: float | None = None):
    spacing_mm = row.pixel_spacing_mm if spacing_mm is None else spacing_mm
    shape = (side_px, side_px)
    (found,) = patch_outlines.masks(row, z_mm=[z_mm], spacing_mm=spacing_mm, ratings=[ratings], shape=shape)
    return found


@pytest.mark.parametrize("nodule", CORNERS_PX)
def test_masks_are_the_scans_own_where_the_patch_was_cut(row, nodule):
    z_mm, (top, left) = CORNERS_PX[nodule]
    backwards = ratings_of(row, nodule)[::-1]
    found = masks(row, z_mm, backwards)
    assert found is not None
    number = int(np.argmin(np.abs(row.z_mm - z_mm)))
    readings = {reading.annotation_id: reading for reading in database.nodules(row)[nodule].readings}
    assert sorted(name for name, _ in found) == sorted(readings)
    for rated, (name, mask) in zip(backwards, found, strict=True):
        reading = readings[name]
        assert reading.ratings == rated
        whole = np.zeros((512, 512), bool)
        whole[reading.box[1:]] = reading.mask[number - reading.origin[0]]
        assert mask.any()
        np.testing.assert_array_equal(mask, whole[top : top + SIDE_PX, left : left + SIDE_PX])


def test_a_reader_who_marked_nothing_in_the_slice_has_an_empty_mask(row):
    found = masks(row, -169.0, ratings_of(row, 2))  # One of its four readers did not draw here.
    assert found is not None
    assert sorted(bool(mask.any()) for _, mask in found) == [False, True, True, True]


def test_what_is_not_certain_has_no_masks(row):
    z_mm, ratings = CORNERS_PX[2][0], ratings_of(row, 2)
    assert masks(row, z_mm, ratings) is not None
    assert masks(row, z_mm, ratings[:-1]) is None
    assert masks(row, z_mm, [*ratings, ratings[0]]) is None
    assert masks(row, z_mm, [(5,) * 9, *ratings[1:]]) is None
    assert masks(row, z_mm, []) is None
    assert masks(row, z_mm + 0.1, ratings) is None
    assert masks(row, z_mm - 25, ratings) is None  # Another slice.
    assert masks(row, z_mm, ratings, spacing_mm=0.8) is None


def test_a_patch_smaller_than_its_nodule_holds_the_middle_of_it(row):
    z_mm, _ = CORNERS_PX[1]
    large, small = masks(row, z_mm, ratings_of(row, 1)), masks(row, z_mm, ratings_of(row, 1), side_px=9)
    assert large is not None
    assert small is not None
    for (_, whole), (_, part) in zip(large, small, strict=True):
        np.testing.assert_array_equal(part, whole[31:40, 31:40])


def test_patches_of_the_real_file_lie_where_dicom_says(real_data: Path):
    entries, _ = dicom_tree.find(real_data / "lidc-dicom" / "LIDC-IDRI" / "LIDC-IDRI-0003")
    (entry,) = (entry for entry in entries if entry.key == SERIES)
    scan = dicom_tree.read(entry)
    patches, _ = nodule_patches.find(real_data / "lidc-nodules.npz")
    (entry,) = (entry for entry in patches if entry.key == SERIES)
    cut = nodule_patches.read(entry)
    assert len(cut.voxels) == len(CORNERS_PX)
    for index, z_mm in enumerate(cut.z_mm):
        number = int(np.argmin(np.abs(scan.z_mm - z_mm)))
        windows = np.lib.stride_tricks.sliding_window_view(scan.voxels[number], (SIDE_PX, SIDE_PX))
        middle = SIDE_PX // 2
        places = np.argwhere(windows[:, :, middle, middle] == cut.voxels[index, middle, middle])
        (corner,) = ((r, c) for r, c in places.tolist() if (windows[r, c] == cut.voxels[index]).all())
        assert (float(z_mm), corner) in CORNERS_PX.values()
        marked = scan.slice_reader_bits(number)[corner[0] : corner[0] + SIDE_PX, corner[1] : corner[1] + SIDE_PX]
        drawn = np.bitwise_count(cut.slice_reader_bits(index))
        assert drawn.any()
        own = drawn > 0  # Another nodule of the slice may reach into the patch.
        np.testing.assert_array_equal(drawn[own], np.bitwise_count(marked)[own])


@pytest.mark.parametrize(
    ("place", "centre"), [(1202, (272, 98)), (994, (335, 412)), (1355, (152, 379)), (412, (371, 371))]
)
def test_the_largest_outline_is_counted_with_its_line_and_of_equal_ones_the_last(real_data: Path, place, centre):
    """Patches whose middle was found in the 8-bit crops of the same slice; the largest mask would give another."""
    with np.load(real_data / "lidc-nodules.npz", allow_pickle=False) as stored:
        rated, z_mm, series = (stored[name][place] for name in ("reader_ratings", "z_mm", "series_uid"))
    known = database.scan_row(str(series))
    assert known is not None
    ratings = [tuple(one) for one in rated.tolist() if any(one)]
    found = masks(known, float(z_mm), ratings)
    assert found is not None
    number = int(np.argmin(np.abs(known.z_mm - z_mm)))
    readings = {reading.annotation_id: reading for nodule in database.nodules(known) for reading in nodule.readings}
    for name, mask in found:
        reading = readings[name]
        first = np.argwhere(mask)[0] + np.array(centre) - SIDE_PX // 2
        np.testing.assert_array_equal(
            first, np.argwhere(reading.mask[number - reading.origin[0]])[0] + reading.origin[1:]
        )


def test_most_of_the_real_file_has_masks(real_data: Path):
    entries, _ = nodule_patches.find(real_data / "lidc-nodules.npz")
    scans = [nodule_patches.read(entry) for entry in entries]
    known = [scan.slice_reader_bits(number).any() for scan in scans for number in range(len(scan.voxels))]
    assert (len(known), sum(known)) == (2171, 1996)
