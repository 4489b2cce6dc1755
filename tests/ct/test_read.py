"""`lungjax.ct.read`: one series from its folder or file, the same whatever it was stored as, by a short way."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import source_files

from lungjax.ct import read
from lungjax.ct.scan import Scan
from lungjax.errors import Fault

STORED = np.random.default_rng(0).integers(0, 1500, (6, 20, 24)).astype(np.int16)
MOST_MODULES = 8
"""That a series which was found passes on its way from its files to a scan."""


def only(source: Path) -> Scan:
    assert read.matches(source)
    (entry,), quarantined = read.find(source)
    assert quarantined == []
    return read.read(entry)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    source_files.write_ct(tmp_path / "dicom", STORED)
    return tmp_path / "dicom"


def image_of(scan: Scan) -> sitk.Image:
    image = source_files.luna16_image(scan)
    assert scan.affine_lps is not None
    image.SetOrigin(scan.affine_lps[:3, 3].tolist())
    return image


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize("name", ["case.nii", "case.nii.gz", "case.mhd", "case.mha"])
def test_a_file_holds_the_same_scan(folder: Path, tmp_path: Path, name: str, packed: bool):
    wanted = only(folder)
    sitk.WriteImage(image_of(wanted), str(tmp_path / name), useCompression=packed)
    scan = only(tmp_path / name)
    assert (scan.patient_id, scan.series_uid, scan.intensity) == ("case", "case", "hu")
    np.testing.assert_array_equal(scan.voxels, wanted.voxels)
    np.testing.assert_allclose(scan.spacing_mm, wanted.spacing_mm, rtol=1e-6)
    assert scan.affine_lps is not None
    assert wanted.affine_lps is not None
    np.testing.assert_allclose(scan.affine_lps, wanted.affine_lps, atol=1e-4)
    assert scan.padding_hu == wanted.padding_hu


@pytest.mark.parametrize(("written", "name"), [("case.nii", "case.nii.gz"), ("case.nii.gz", "case.nii")])
def test_a_name_does_not_tell_whether_a_file_is_packed(folder: Path, tmp_path: Path, written: str, name: str):
    wanted = only(folder)
    sitk.WriteImage(image_of(wanted), str(tmp_path / written))
    (tmp_path / written).rename(tmp_path / name)
    np.testing.assert_array_equal(only(tmp_path / name).voxels, wanted.voxels)


@pytest.mark.parametrize("name", ["case.mhd", "case.mha"])
def test_what_itk_adds_to_a_header_does_not_matter(folder: Path, tmp_path: Path, name: str):
    """Tags of DICOM, and 64 bits, which NumPy's whole numbers have."""
    wanted = only(folder)
    image = sitk.Cast(image_of(wanted), sitk.sitkInt64)
    image.SetMetaData("0008|103e", "chest = lung, 5 mm")
    sitk.WriteImage(image, str(tmp_path / name))
    header = (tmp_path / name).read_bytes()[:1000]
    assert b"0008|103e = chest = lung, 5 mm" in header
    assert b"MET_LONG_LONG" in header
    np.testing.assert_array_equal(only(tmp_path / name).voxels, wanted.voxels)


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
def test_voxels_behind_their_header_are_whole_or_a_fault(folder: Path, tmp_path: Path, packed: bool):
    path = tmp_path / "case.mha"
    sitk.WriteImage(image_of(only(folder)), str(path), useCompression=packed)
    whole = path.read_bytes()
    for size in (*range(0, 600, 7), len(whole) - 1):
        path.write_bytes(whole[:size])
        (entry,), _ = read.find(path)
        with pytest.raises(Fault) as caught:
            read.read(entry)
        assert str(path) in caught.value.message
        assert caught.value.name in ("unreadable_file", "not_3d")


def test_nothing_else_is_taken_for_a_scan(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / ".hidden.nii").write_bytes(b"")
    assert not read.matches(tmp_path / "notes.txt")
    assert not read.matches(tmp_path / ".hidden.nii")
    assert not read.matches(tmp_path)
    assert not read.matches(tmp_path / "missing")


def test_uneven_slices_are_read_where_that_is_known(tmp_path: Path):
    source_files.write_ct(tmp_path, STORED, z_mm=[0, 1, 2, 3, 4, 6])
    (entry,), _ = read.find(tmp_path)
    with pytest.raises(Fault, match="uneven_spacing"):
        read.read(entry)
    scan = read.read(entry, uneven=True)
    assert scan.spacing_mm[0] == 1
    assert scan.z_mm.tolist() == [0, 1, 2, 3, 4, 6]


def test_the_way_of_a_series_is_short(folder: Path):
    """A reader who follows one DICOM series from its files to a `Scan` opens no more modules than this."""
    passed: set[str] = set()

    def note(frame, event, _) -> None:
        name = frame.f_globals.get("__name__", "")
        if event == "call" and name.startswith("lungjax.") and frame.f_code.co_name != "<module>":
            passed.add(name)

    (entry,), _ = read.find(folder)
    read.read(entry)  # What is imported on first use is no part of the way.
    sys.setprofile(note)
    try:
        read.read(entry)
    finally:
        sys.setprofile(None)
    assert {"lungjax.ct.read", "lungjax.ct.dicom", "lungjax.ct.series"} <= passed
    assert len(passed) <= MOST_MODULES, sorted(passed)
