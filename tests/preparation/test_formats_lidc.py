from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from source_files import write_scan

from lungjax.ct.scan import RATING_NAMES, Reading
from lungjax.errors import Fault, InputError
from lungjax.lidc import annotations
from lungjax.lidc.annotations import ScanRow
from lungjax.preparation.formats import lidc
from lungjax.preparation.run import prepare

SMALL = "LIDC-IDRI-0957"
"""65 slices, the fewest in the database; two nodules."""


def rows_of(rows: list[ScanRow], patient_id: str) -> list[ScanRow]:
    return [row for row in rows if row.patient_id == patient_id]


def fault_of(source: Path) -> Fault:
    (entry,), _ = lidc.find(source)
    with pytest.raises(Fault) as caught:
        lidc.read(entry)
    return caught.value


def test_a_series_is_found_wherever_its_files_are(rows, tmp_path: Path):
    """Two folders, no suffix, an XML and a picture beside them: TCIA changed its layout twice."""
    (row,) = rows_of(rows, SMALL)
    paths = write_scan(tmp_path / "a" / "b", row)
    (tmp_path / "c").mkdir()
    for path in paths[::2]:
        path.rename(tmp_path / "c" / f"IM{path.stem}")
    (tmp_path / "a" / "069.xml").write_text("<x/>")
    (tmp_path / "c" / "LICENSE").write_text("CC BY 3.0 " * 50)
    (tmp_path / "c" / "._000.dcm").write_bytes(bytes(4096))
    assert lidc.matches(tmp_path)
    (entry,), quarantined = lidc.find(tmp_path)
    assert quarantined == []
    assert (entry.key, entry.patient_id) == (row.series_uid, SMALL)
    assert pickle.loads(pickle.dumps(entry)) == entry
    scan = lidc.read(entry)
    assert (scan.patient_id, scan.series_uid, scan.intensity) == (SMALL, row.series_uid, "hu")
    np.testing.assert_allclose(scan.z_mm, row.z_mm, atol=1e-6)
    expected = annotations.nodules(row, matrix=128)
    assert len(scan.nodules) == len(expected) == 2
    for ours, theirs in zip(scan.nodules, expected, strict=True):
        for one, other in zip(ours.readings, theirs.readings, strict=True):
            np.testing.assert_array_equal(one.mask, other.mask)
            assert one.origin == other.origin
    assert scan.reader_bits().any()


def test_both_scans_of_a_patient_in_one_folder(rows, tmp_path: Path):
    first, second = rows_of(rows, "LIDC-IDRI-0365")
    for row in (first, second):
        for path in write_scan(tmp_path / "written", row):
            (tmp_path / "tree").mkdir(exist_ok=True)
            path.rename(tmp_path / "tree" / f"{row.scan_id}-{path.name}")
    entries, quarantined = lidc.find(tmp_path)
    assert quarantined == []
    assert [entry.key for entry in entries] == sorted([first.series_uid, second.series_uid])
    scans = {scan.series_uid: scan for scan in map(lidc.read, entries)}
    for row in (first, second):
        assert len(scans[row.series_uid].z_mm) == len(row.z_mm)
        assert len(scans[row.series_uid].nodules) == len(annotations.nodules(row))


def test_what_is_no_scan_of_lidc_is_listed(write_ct, tmp_path: Path):
    stored = np.zeros((1, 4, 4), np.int16)
    write_ct(tmp_path / "x-ray", stored, series_uid="1.2.1", tags={"Modality": "DX"})
    write_ct(tmp_path / "other", stored, series_uid="1.2.2")
    write_ct(tmp_path / "magnet", stored, series_uid="1.2.3", tags={"Modality": "MR"})
    write_ct(tmp_path / "anonymous", stored, tags={"SeriesInstanceUID": None})
    (tmp_path / "empty.dcm").touch()
    entries, quarantined = lidc.find(tmp_path)
    assert entries == []
    assert [(one.key, one.name) for one in quarantined] == [
        ("1.2.1", "x_ray"),
        ("1.2.2", "not_in_database"),
        ("1.2.3", "not_ct"),
        ("anonymous/000.dcm", "missing_tag"),
        ("empty.dcm", "unreadable_file"),
    ]
    assert all(one.where in one.message for one in quarantined)


@pytest.mark.parametrize("gone", [0, 30, -1])
def test_incomplete_series_wherever_the_gap_is(rows, tmp_path: Path, gone: int):
    write_scan(tmp_path, *rows_of(rows, SMALL))[gone].unlink()
    fault = fault_of(tmp_path)
    assert fault.name == "incomplete_series"
    assert "64 of 65 slices" in fault.message


def test_a_slice_more_than_the_database_has(rows, tmp_path: Path):
    (row,) = rows_of(rows, SMALL)
    more_mm = np.append(row.z_mm, 2 * row.z_mm[-1] - row.z_mm[-2])
    write_scan(tmp_path, row, z_mm=more_mm)
    assert fault_of(tmp_path).name == "incomplete_series"


def test_the_same_file_twice(rows, tmp_path: Path):
    path = write_scan(tmp_path, *rows_of(rows, SMALL))[7]
    shutil.copy(path, tmp_path / "copy.dcm")
    (entry,), left = lidc.find(tmp_path)
    assert [one.name for one in left] == ["left_out"]
    assert "copy.dcm" in left[0].message
    assert len(lidc.read(entry).z_mm) == len(list(tmp_path.rglob("*.dcm"))) - 1


def test_a_scan_that_the_scanner_spaced_unevenly(rows, tmp_path: Path):
    row = rows[520 - 1]  # 38 mm are missing in the middle, in LIDC itself
    paths = write_scan(tmp_path, row, matrix=8)
    (entry,), _ = lidc.find(tmp_path)
    scan = lidc.read(entry)
    np.testing.assert_allclose(scan.z_mm, row.z_mm)
    assert scan.spacing_mm[0] == 2.0
    assert len(scan.nodules) == len(annotations.nodules(row))
    paths[3].unlink()
    assert fault_of(tmp_path).name == "incomplete_series"


def test_a_slice_too_many_is_uneven(rows, write_scan, tmp_path: Path):
    path = write_scan(tmp_path, *rows_of(rows, SMALL))[7]
    dataset = pydicom.dcmread(path)
    dataset.ImagePositionPatient[2] += 0.5
    dataset.save_as(tmp_path / "between.dcm")
    assert fault_of(tmp_path).name == "uneven_spacing"


def test_truncated_file(rows, tmp_path: Path):
    path = write_scan(tmp_path, *rows_of(rows, SMALL))[3]
    path.write_bytes(path.read_bytes()[:-100])
    fault = fault_of(tmp_path)
    assert (fault.name, str(path) in fault.message) == ("unreadable_file", True)


@pytest.mark.parametrize(("matrix", "field_share"), [(64, 0.5), (64, 0.98), (64, 1.02), (96, 1.0)])
def test_outlines_of_another_grid_do_not_fit(rows, tmp_path: Path, matrix: int, field_share: float):
    """The field of view must be the database's within 1 %, and the matrix divide 512."""
    (row,) = rows_of(rows, SMALL)
    spacing_mm = round(row.pixel_spacing_mm * 512 / matrix * field_share, 6)
    write_scan(tmp_path, row, matrix=matrix, PixelSpacing=[spacing_mm, spacing_mm])
    assert fault_of(tmp_path).name == "matrix_mismatch"


def test_what_does_not_match(tmp_path: Path):
    (tmp_path / "picture.png").write_bytes(bytes(200))
    (tmp_path / "README").write_text("nothing here")
    assert not lidc.matches(tmp_path)
    assert not lidc.matches(tmp_path / "README")
    assert not lidc.matches(tmp_path / "nowhere")
    assert lidc.find(tmp_path) == ([], [])


def test_junk_is_not_called_a_series(write_ct, tmp_path: Path):
    """Three things are quarantined, of which one is a series; what is no DICOM and does not claim to be is nothing."""
    source = tmp_path / "source"
    write_ct(source / "x-ray", np.zeros((2, 4, 4), np.int16), tags={"Modality": "DX"})
    (source / "notes").write_text("no DICOM " * 50)
    (source / "broken.dcm").write_text("no DICOM " * 50)
    (source / "linked").symlink_to(tmp_path)
    with pytest.raises(InputError, match="nothing could be prepared, 3 quarantined, the first because ") as caught:
        prepare(source, tmp_path / "out", workers=1)
    assert "series could be prepared" not in str(caught.value)


def test_a_link_named_like_a_series_is_not_that_series(rows, write_scan, tmp_path: Path):
    (row,) = rows_of(rows, SMALL)
    write_scan(tmp_path / "source" / "files", row, matrix=16)
    (tmp_path / "source" / row.series_uid).symlink_to(tmp_path)
    summary = prepare(tmp_path / "source", tmp_path / "out", workers=1)
    assert (summary.scans, summary.quarantined) == (1, {"link": 1})


def test_real_tree(real_data: Path):
    """LIDC-IDRI-0003 is whole; of LIDC-IDRI-0001 the download broke off after 17 of 133 slices."""
    source = real_data / "lidc-dicom"
    assert lidc.matches(source)
    entries, quarantined = lidc.find(source)
    assert quarantined == []
    by_patient = {entry.patient_id: entry for entry in entries}
    assert sorted(by_patient) == ["LIDC-IDRI-0001", "LIDC-IDRI-0003"]
    with pytest.raises(Fault, match="17 of 133 slices") as caught:
        lidc.read(by_patient["LIDC-IDRI-0001"])
    assert caught.value.name == "incomplete_series"
    scan = lidc.read(by_patient["LIDC-IDRI-0003"])
    assert scan.voxels.shape == (140, 512, 512)
    assert scan.spacing_mm == (2.5, 0.820312, 0.820312)
    assert [len(nodule.readings) for nodule in scan.nodules] == [1, 4, 4, 4]
    # The masks lie on the image and not on its mirror image: where all readers agree on a nodule, and its
    # texture is not ground glass (rated 1), there is tissue. Mirrored, these read -800 HU and less.
    for nodule in scan.nodules[1:]:
        inside = np.logical_and.reduce([_at(scan.voxels.shape, one) for one in nodule.readings])
        assert min(one.ratings[RATING_NAMES.index("texture")] for one in nodule.readings) >= 3
        assert np.median(scan.voxels[inside]) > -200


def _at(shape: tuple[int, ...], reading: Reading) -> np.ndarray:
    grid = np.zeros(shape, bool)
    grid[reading.box] = reading.mask
    return grid
