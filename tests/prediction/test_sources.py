"""Whole scans to look at: read as `prepare` reads them, and placed as SimpleITK places them."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import source_files
from pydicom.uid import generate_uid

from lungjax.ct.scan import Scan
from lungjax.data.shards import open_dataset
from lungjax.errors import Fault, InputError
from lungjax.prediction import sources
from lungjax.preparation.formats import lidc

STORED = np.random.default_rng(0).integers(0, 1500, (6, 20, 24)).astype(np.int16)


def read_all(source: Path) -> list[Scan]:
    module, entries, quarantined = sources.find_scans(source)
    assert list(quarantined) == []
    return [sources.read(module, entry) for entry in entries]


def itk_series(folder: Path) -> sitk.Image:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()


def place(scan: Scan, column: float, row: float, number: float) -> np.ndarray:
    assert scan.affine_lps is not None
    return (scan.affine_lps @ (column, row, number, 1))[:3]


@pytest.mark.parametrize(
    "orientation",
    [[1, 0, 0, 0, 1, 0], [-1, 0, 0, 0, -1, 0], [1, 0, 0, 0, -1, 0]],
    ids=["usual", "half a turn", "from below"],
)
def test_a_series_lies_where_simpleitk_reads_it(tmp_path: Path, orientation: list[float]):
    source_files.write_ct(tmp_path, STORED, tags={"ImageOrientationPatient": orientation, "PixelSpacing": [2.0, 2.5]})
    (scan,) = read_all(tmp_path)
    assert (scan.patient_id, scan.series_uid, scan.nodules) == ("TEST-1", "1.2.3.4", ())
    image = itk_series(tmp_path)
    assert scan.spacing_mm == (5.0, 2.0, 2.5)
    values = sitk.GetArrayFromImage(image)
    for column, row, number in ((0, 0, 0), (23, 0, 0), (0, 19, 0), (23, 19, 5), (4, 7, 2)):
        at_mm = place(scan, column, row, number)
        theirs = image.TransformPhysicalPointToIndex(at_mm.tolist())
        assert values[theirs[::-1]] == scan.voxels[number, row, column]
        np.testing.assert_allclose(image.TransformIndexToPhysicalPoint(theirs), at_mm, atol=1e-6)


def test_a_tilted_series_lies_where_simpleitk_reads_it(tmp_path: Path):
    """Positions along the slices' normal, eight degrees off the body's axis."""
    angle = np.radians(8)
    orientation = [1, 0, 0, 0, np.cos(angle), np.sin(angle)]
    normal = np.cross(orientation[:3], orientation[3:])
    for number, image in enumerate(STORED):
        tags: dict[str, Any] = {
            "ImagePositionPatient": [round(float(v), 9) for v in np.array([-10, -20, 3]) + 4 * number * normal],
            "ImageOrientationPatient": [round(float(v), 9) for v in orientation],
            "SOPInstanceUID": generate_uid(),
        }
        source_files.write_ct(tmp_path / str(number), image[None], tags=tags)
        shutil.move(tmp_path / str(number) / "000.dcm", tmp_path / f"{number}.dcm")
    (scan,) = read_all(tmp_path)
    image = itk_series(tmp_path)
    for index in ((0, 0, 0), (23, 19, 5), (4, 7, 2)):
        np.testing.assert_allclose(image.TransformIndexToPhysicalPoint(index), place(scan, *index), atol=1e-5)


def test_several_series_in_one_tree_and_what_is_none(tmp_path: Path):
    source_files.write_ct(tmp_path / "a", STORED, series_uid="1.2.1")
    source_files.write_ct(tmp_path / "a", STORED[:4], series_uid="1.2.2", suffix=".ima", tags={"PatientID": "TEST-2"})
    source_files.write_ct(tmp_path / "b", STORED[:4], series_uid="1.2.3", z_mm=[0, 5, 15, 20])
    source_files.write_ct(tmp_path / "c", STORED[:1], series_uid="1.2.4", tags={"Modality": "MR"})
    source_files.write_ct(tmp_path / "d", STORED[:2], series_uid="1.2.5", tags={"PatientID": None})
    module, entries, quarantined = sources.find_scans(tmp_path)
    assert [(one.key, one.patient_id) for one in entries] == [
        ("1.2.1", "TEST-1"),
        ("1.2.2", "TEST-2"),
        ("1.2.3", "TEST-1"),
        ("1.2.5", "1.2.3"),  # Without a PatientID, the study stands for the patient.
    ]
    assert [(one.key, one.name) for one in quarantined] == [("1.2.4", "not_ct")]
    assert [len(sources.read(module, entry).voxels) for entry in entries[:2]] == [6, 4]
    with pytest.raises(Fault, match="uneven_spacing"):
        sources.read(module, entries[2])


@pytest.mark.parametrize(
    ("tags", "fault"),
    [
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}, "oblique_orientation"),
        ({"RescaleIntercept": 2000}, "wrong_rescale"),
        ({"RescaleSlope": None}, "missing_tag"),
    ],
)
def test_a_series_is_checked_as_prepare_does(tmp_path: Path, tags: dict[str, Any], fault: str):
    source_files.write_ct(tmp_path, STORED, tags=tags)
    module, (entry,), _ = sources.find_scans(tmp_path)
    with pytest.raises(Fault, match=fault):
        sources.read(module, entry)


def test_a_series_of_lidc_is_held_against_the_database(tmp_path: Path, rows):
    row = min(rows, key=lambda one: len(one.z_mm))
    paths = source_files.write_scan(tmp_path, row)
    (scan,) = read_all(tmp_path)
    (entry,), _ = lidc.find(tmp_path)
    expected = lidc.read(entry)
    np.testing.assert_array_equal(scan.voxels, expected.voxels)
    assert (scan.z_mm == expected.z_mm).all()
    assert scan.nodules == ()  # What readers marked is nothing that a model is given.
    paths[-1].unlink()
    module, (entry,), _ = sources.find_scans(tmp_path)
    with pytest.raises(Fault, match="incomplete_series"):
        sources.read(module, entry)


def test_a_prepared_data_set_gives_its_scans_back(phantom_dataset: Path):
    dataset = open_dataset(phantom_dataset)
    found = read_all(phantom_dataset)
    assert [one.series_uid for one in found] == sorted(dataset.index["series_uid"].unique())
    for scan in found:
        rows = np.flatnonzero(dataset.index["series_uid"] == scan.series_uid)
        assert len(scan.voxels) == len(rows)
        assert (np.diff(scan.z_mm) > 0).all()
        for record in dataset.read(rows[::20]):
            np.testing.assert_array_equal(scan.voxels[record.slice_index], record.image)
            assert scan.spacing_mm == record.spacing_mm
        assert scan.affine_lps is None


def test_a_nifti_file_lies_where_simpleitk_reads_it(tmp_path: Path):
    image = sitk.GetImageFromArray(STORED - 1024)
    image.SetSpacing((0.7, 0.8, 2.5))
    image.SetOrigin((-5, -7, -300))
    image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
    sitk.WriteImage(image, str(tmp_path / "case.nii.gz"))
    for source in (tmp_path / "case.nii.gz", tmp_path):
        (scan,) = read_all(source)
        assert scan.patient_id == "case"
        for index in ((0, 0, 0), (23, 19, 5), (4, 7, 2)):
            at_mm = place(scan, *index)
            theirs = image.TransformPhysicalPointToIndex(at_mm.tolist())
            np.testing.assert_allclose(image.TransformIndexToPhysicalPoint(theirs), at_mm, atol=1e-4)
            assert image[theirs] == scan.voxels[index[::-1]]


def test_what_holds_no_scan(tmp_path: Path, kaggle_tree: Path):
    (tmp_path / "notes.txt").write_text("no scan")
    nrrd, packed = tmp_path / "slicer", tmp_path / "scans.zip"
    nrrd.mkdir()
    sitk.WriteImage(sitk.GetImageFromArray(STORED), str(nrrd / "a.nrrd"))
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a.dcm", "")
    for source, says in (
        (tmp_path / "nowhere", "no such file or folder"),
        (tmp_path, "holds no scans"),
        (tmp_path / "notes.txt", "no NIfTI or MetaImage file"),
        (kaggle_tree, "holds no scans"),
        (nrrd, r"prepared data: a\.nrrd is a NRRD file; save it as NIfTI \(\.nii\.gz\) or MetaImage"),
        (nrrd / "a.nrrd", r"no NIfTI or MetaImage file: a\.nrrd is a NRRD file; save it as"),
        (packed, r"no NIfTI or MetaImage file: scans\.zip is a compressed file; unpack it first"),
    ):
        with pytest.raises(InputError, match=says):
            sources.find_scans(source)
