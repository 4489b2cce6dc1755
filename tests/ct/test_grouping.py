"""Files of one series that are one scan, and those that are not: each left out, told apart or refused by name."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pydicom.config
import pytest
import source_files
from pydicom.uid import SecondaryCaptureImageStorage, generate_uid

from lungjax.ct import read
from lungjax.ct.scan import Scan
from lungjax.errors import Fault
from lungjax.prediction import sources
from lungjax.preparation import doctor

STORED = np.random.default_rng(0).integers(0, 1500, (8, 20, 24)).astype(np.int16)


def found(folder: Path) -> tuple[list[Scan], list[tuple[str, str]]]:
    """The scans of a source, and name and message of what else is in it."""
    reader, entries, quarantined = sources.find_scans(folder)
    return [sources.read(reader, entry) for entry in entries], [(one.name, one.message) for one in quarantined]


def edited(path: Path, **tags: Any) -> None:
    dataset = pydicom.dcmread(path)
    for tag, value in tags.items():
        setattr(dataset, tag, value)
    dataset.save_as(path)


def stray(folder: Path, name: str, **tags: Any) -> Path:
    """An image like the first of the folder, but for some tags."""
    path = folder / name
    shutil.copy(folder / "000.dcm", path)
    edited(path, **{"SOPInstanceUID": generate_uid(), **tags})
    return path


STRAYS = {
    "localizer": {
        "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"],
        "ImageOrientationPatient": [1, 0, 0, 0, 0, -1],
    },
    "axial localizer": {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
    "unnamed scout": {"ImageType": ["ORIGINAL", "PRIMARY"], "ImageOrientationPatient": [0, 1, 0, 0, 0, -1]},
    "capture": {"SOPClassUID": SecondaryCaptureImageStorage},
    "colour": {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"},
    "structured report": {"Modality": "SR", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.33"},
}


@pytest.mark.parametrize("name", STRAYS)
@pytest.mark.parametrize("first", [True, False], ids=["first", "last"])
def test_what_is_no_image_of_the_scan_is_left_out(tmp_path: Path, name: str, first: bool):
    source_files.write_ct(tmp_path, STORED)
    path = stray(tmp_path, "00.dcm" if first else "stray.dcm", **STRAYS[name])
    (scan,), notes = found(tmp_path)
    np.testing.assert_array_equal(scan.voxels, STORED - 1024)
    ((note, message),) = notes
    assert (note, str(path) in message, path in scan.dicom_files) == ("left_out", True, False)
    report = doctor.examine(tmp_path, format="unmarked")
    assert (report.faults, report.scans) == ((), 1)
    assert [one.name for one in report.notes] == ["left_out"]


def test_copies_are_left_out(tmp_path: Path):
    source_files.write_ct(tmp_path / "a", STORED)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    (scan,), ((note, message),) = found(tmp_path)
    np.testing.assert_array_equal(scan.voxels, STORED - 1024)
    assert (note, "and 7 more files" in message, "a copy" in message) == ("left_out", True, True)


def test_the_same_place_twice_is_no_copy(tmp_path: Path):
    source_files.write_ct(tmp_path, STORED)
    stray(tmp_path, "other.dcm", PixelData=(STORED[1] + 1).tobytes())
    with pytest.raises(Fault, match="duplicate_positions"):
        found(tmp_path)


@pytest.mark.parametrize(
    ("tag", "fault"),
    [
        ("PatientID", "several_patients"),
        ("StudyInstanceUID", "several_studies"),
        ("FrameOfReferenceUID", "several_studies"),
    ],
)
def test_a_scan_has_one_patient_study_and_frame(tmp_path: Path, tag: str, fault: str):
    paths = source_files.write_ct(tmp_path, STORED, tags={tag: "1.2.1"})
    edited(paths[5], **{tag: "1.2.2"})
    _, entries, (line,) = sources.find_scans(tmp_path)
    assert entries == []
    assert (line.name, "1.2.1" in line.message, "1.2.2" in line.message) == (fault, True, True)
    assert {one.name for one in doctor.examine(tmp_path, format="unmarked").faults} == {fault}


@pytest.mark.parametrize("name", [".AppleDouble", "__MACOSX", "@eaDir", ".Trash-1000"])
def test_folders_of_the_file_system_are_left_out(tmp_path: Path, name: str):
    for path in source_files.write_ct(tmp_path, STORED):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / path.name).write_bytes(b"attributes")
    (scan,), notes = found(tmp_path)
    np.testing.assert_array_equal(scan.voxels, STORED - 1024)
    assert notes == []


def test_other_hidden_folders_are_read(tmp_path: Path):
    """Folders are named after series, whose names may begin with a dot."""
    source_files.write_ct(tmp_path / ".6 mm LUNG", STORED)
    (scan,), notes = found(tmp_path)
    np.testing.assert_array_equal(scan.voxels, STORED - 1024)
    assert notes == []


def test_images_of_an_unknown_class_are_one_scan_of_one_patient(tmp_path: Path):
    """Anonymisers replace that UID, too, and converters write captures; what holds for other scans, holds for these."""
    paths = source_files.write_ct(tmp_path / "a", STORED, tags={"SOPClassUID": "2.25.1234"})
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    (scan,), ((note, _),) = found(tmp_path)
    np.testing.assert_array_equal(scan.voxels, STORED - 1024)
    assert note == "left_out"
    edited(paths[5], PatientID="TEST-2", SOPInstanceUID=generate_uid())
    _, entries, (line,) = sources.find_scans(tmp_path / "a")
    assert (entries, line.name) == ([], "several_patients")


def test_uids_of_every_file_are_not_all_listed(tmp_path: Path):
    """Some anonymisers give each file new ones."""
    for path in source_files.write_ct(tmp_path, STORED):
        edited(path, FrameOfReferenceUID=generate_uid())
    _, entries, (line,) = sources.find_scans(tmp_path)
    assert (entries, line.name, line.message.count("1.2.826."), "and 5 more;" in line.message) == (
        [],
        "several_studies",
        3,
        True,
    )


def test_images_that_are_each_a_series_are_one_sentence(tmp_path: Path):
    source_files.write_ct(tmp_path / "whole", STORED)
    for path in source_files.write_ct(tmp_path / "scattered", STORED, series_uid="1.2.3.5"):
        edited(path, SeriesInstanceUID=generate_uid())
    (scan,), ((name, message),) = found(tmp_path)
    np.testing.assert_array_equal(scan.voxels, STORED - 1024)
    assert (name, "8 CT images" in message, str(tmp_path / "scattered") in message) == ("incomplete_series", True, True)
    report = doctor.examine(tmp_path, format="unmarked")
    assert ([one.name for one in report.faults], report.scans) == (["incomplete_series"], 1)


@pytest.mark.parametrize(
    ("declared", "encoding", "expected"),
    [
        ("ISO_IR 192", "utf-8", "Müller-山田"),
        ("GB18030", "gb18030", "Müller-山田"),
        ("\\ISO 2022 IR 87", "iso2022_jp", "山田"),
        ("ISO_IR 100", "latin-1", "Müller"),
        (None, "latin-1", "Müller"),
        ("Not Supplied", "latin-1", "Müller"),
        ("ISO_IR 192", "gb18030", "ÍõÎ÷"),  # Not what the file says: no letter is lost, so no two patients are one.
    ],
)
def test_patients_are_named_in_the_files_character_set(
    tmp_path: Path, declared: str | None, encoding: str, expected: str, recwarn: pytest.WarningsRecorder
):
    written = ("王西" if expected.startswith("Í") else expected).encode(encoding)
    written += b" " * (len(written) % 2)
    placeholder = "?" * len(written)
    for path in source_files.write_ct(tmp_path, STORED, tags={"PatientID": placeholder}):
        if declared is not None:
            with pydicom.config.disable_value_validation():
                edited(path, SpecificCharacterSet="x" * (len(declared) + len(declared) % 2))
            text = f"{declared}{' ' * (len(declared) % 2)}"
            path.write_bytes(path.read_bytes().replace(b"x" * len(text), text.encode()))
        path.write_bytes(path.read_bytes().replace(placeholder.encode(), written))
    recwarn.clear()
    (scan,), notes = found(tmp_path)
    assert (scan.patient_id, notes, [str(one.message) for one in recwarn]) == (expected, [], [])


@pytest.mark.parametrize(
    ("tag", "values", "labels"),
    [
        ("ConvolutionKernel", ("B30f", "B70f"), ("B30f", "B70f")),
        ("ConvolutionKernel", (["Br40f", "3"], ["Br64f", "3"]), ("Br40f\\3", "Br64f\\3")),
        ("SliceThickness", (1.25, 5), ("1.25 mm", "5 mm")),
    ],
)
def test_reconstructions_are_told_apart(tmp_path: Path, tag: str, values: Any, labels: tuple[str, str]):
    for number, value in enumerate(values):
        tags = {tag: value}
        for path in source_files.write_ct(tmp_path / str(number), STORED + number, tags=tags):
            edited(path, SOPInstanceUID=generate_uid())
    scans, ((note, message),) = found(tmp_path)
    assert note == "several_reconstructions"
    assert all(f"{label} (8 files)" in message for label in labels)
    assert len({scan.series_uid for scan in scans}) == 2
    for number, scan in enumerate(scans):
        np.testing.assert_array_equal(scan.voxels, STORED + number - 1024)


def test_acquisitions_of_the_same_places_are_told_apart(tmp_path: Path):
    """As before and after contrast."""
    for number in range(2):
        tags = {"AcquisitionNumber": str(number + 1)}
        for path in source_files.write_ct(tmp_path / str(number), STORED + number, tags=tags):
            edited(path, SOPInstanceUID=generate_uid())
    scans, ((note, message),) = found(tmp_path)
    assert note == "several_reconstructions"
    assert "acquisition 1 (8 files) and acquisition 2 (8 files)" in message
    assert len({scan.series_uid for scan in scans}) == 2
    for number, scan in enumerate(scans):
        np.testing.assert_array_equal(scan.voxels, STORED + number - 1024)


def test_a_long_scan_acquired_in_parts_is_one_scan(tmp_path: Path):
    for number, path in enumerate(source_files.write_ct(tmp_path, STORED)):
        edited(path, AcquisitionNumber=str(1 + number // 4))
    (scan,), notes = found(tmp_path)
    assert (len(scan.voxels), notes) == (8, [])


def test_one_stack_of_two_kernels_is_one_scan(tmp_path: Path):
    for number, path in enumerate(source_files.write_ct(tmp_path, STORED)):
        edited(path, ConvolutionKernel="B30f" if number < 4 else "B31f")
    (scan,), notes = found(tmp_path)
    assert (len(scan.voxels), notes) == (8, [])


def test_a_patient_is_named_by_the_study_where_none_is(tmp_path: Path):
    source_files.write_ct(tmp_path, STORED, tags={"PatientID": None})
    (scan,), notes = found(tmp_path)
    assert (scan.patient_id, notes) == ("1.2.3", [])
    (fault,) = doctor.examine(tmp_path, format="unmarked").faults
    assert (fault.name, "split" in fault.message) == ("missing_tag", True)


def test_uids_that_are_none_are_no_warning(tmp_path: Path):
    """A warning is an error in these tests."""
    uuid = "7c1d4f3e-27f0-4b8e-9f0a-8a3f3a1f2b11"
    tags = {"SOPInstanceUID": None, "StudyInstanceUID": uuid, "FrameOfReferenceUID": uuid}
    paths = source_files.write_ct(tmp_path, STORED)
    for path in paths:
        content = path.read_bytes()
        dataset = pydicom.dcmread(path)
        del dataset.SOPInstanceUID
        with pydicom.config.disable_value_validation():
            dataset.StudyInstanceUID = dataset.SeriesInstanceUID = tags["StudyInstanceUID"]
            pydicom.dcmwrite(path, dataset, enforce_file_format=False)
        assert path.read_bytes() != content
    (scan,), notes = found(tmp_path)
    assert (scan.series_uid, scan.sop_uids[0], notes) == (uuid, "", [])
    np.testing.assert_array_equal(scan.voxels, STORED - 1024)


@pytest.mark.parametrize("kind", ["implicit", "explicit", "with group 2"])
def test_files_without_a_preamble(tmp_path: Path, kind: str):
    for path in source_files.write_ct(tmp_path, STORED):
        dataset = pydicom.dcmread(path)
        if kind == "with group 2":
            path.write_bytes(path.read_bytes()[132:])
            continue
        explicit = kind == "explicit"
        bare = pydicom.Dataset({element.tag: element for element in dataset})
        with path.open("wb") as file:
            pydicom.dcmwrite(file, bare, implicit_vr=not explicit, little_endian=True)
    assert (tmp_path / "000.dcm").read_bytes()[128:132] != b"DICM"
    (scan,), notes = found(tmp_path)
    assert notes == []
    np.testing.assert_array_equal(scan.voxels, STORED - 1024)


def test_suffixes_in_capitals(tmp_path: Path):
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(STORED - 1024)
    sitk.WriteImage(image, str(tmp_path / "a.nii.gz"))
    (tmp_path / "a.nii.gz").rename(tmp_path / "CASE.NII.GZ")
    assert read.matches(tmp_path / "CASE.NII.GZ")
    for source in (tmp_path, tmp_path / "CASE.NII.GZ"):
        (scan,), _ = found(source)
        assert (scan.patient_id, scan.voxels.shape) == ("CASE", STORED.shape)
