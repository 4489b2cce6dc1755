"""Enhanced CT, made of a classic series by highdicom and by hand: the same voxels at the same place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import chests
import highdicom as hd
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import EnhancedCTImageStorage, RLELossless

from lungjax.ct import dicom
from lungjax.ct.scan import Scan
from lungjax.ct.series import Series, assemble
from lungjax.errors import Fault
from lungjax.prediction import sources
from lungjax.prediction.candidates import Candidate
from lungjax.prediction.outputs import dicom_seg

SLICES, ROWS, COLUMNS = 7, 6, 10


@pytest.fixture
def classic(write_ct, tmp_path: Path) -> list[Path]:
    """From the head to the feet, of values that all differ."""
    stored = np.arange(SLICES * ROWS * COLUMNS).reshape(SLICES, ROWS, COLUMNS).astype(np.int16) * 3
    z_mm = [30.0 - 2.5 * number for number in range(SLICES)]
    needed = {"StudyDate": "", "StudyTime": "", "PatientSex": "", "PatientBirthDate": "", "AccessionNumber": ""}
    needed |= {
        "PatientName": "",
        "StudyID": "",
        "FrameOfReferenceUID": "1.2.5",
        "ReferringPhysicianName": "",
        "InstanceNumber": 1,
    }
    needed |= {"Manufacturer": "M", "SliceThickness": 2.5, "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"]}
    needed |= {"PatientPosition": "HFS", "BodyPartExamined": "CHEST", "SeriesNumber": 3}
    return write_ct(tmp_path / "classic", stored, z_mm=z_mm, tags=needed)


def functional(**groups: dict[str, Any]) -> Dataset:
    """A functional group of macros, each of one item."""
    found = Dataset()
    for name, values in groups.items():
        item = Dataset()
        for tag, value in values.items():
            setattr(item, tag, value)
        setattr(found, name, Sequence([item]))
    return found


def enhanced(paths: list[Path], out: Path) -> Path:
    """As scanners write it: what all frames share stands once; the intercept of each frame differs here."""
    images = [pydicom.dcmread(path) for path in paths]
    one = images[0]
    out.parent.mkdir(exist_ok=True)
    for tag in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept"):
        del one[tag]
    one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    one.NumberOfFrames = len(images)
    one.SharedFunctionalGroupsSequence = Sequence(
        [
            functional(
                PlaneOrientationSequence={"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]},
                PixelMeasuresSequence={"PixelSpacing": [2.0, 2.0], "SliceThickness": 2.5},
            )
        ]
    )
    one.PerFrameFunctionalGroupsSequence = Sequence(
        [
            functional(
                PlanePositionSequence={"ImagePositionPatient": [-10.0, -20.0, 30.0 - 2.5 * number]},
                PixelValueTransformationSequence={"RescaleSlope": 1, "RescaleIntercept": -1024 - number},
            )
            for number in range(len(images))
        ]
    )
    planes = [pydicom.dcmread(path).pixel_array + number for number, path in enumerate(paths)]
    one.PixelData = np.stack(planes).astype("<i2").tobytes()
    one.save_as(out)
    return out


def legacy(paths: list[Path], out: Path) -> Path:
    """By highdicom."""
    images = [pydicom.dcmread(path) for path in paths]
    out.parent.mkdir(exist_ok=True)
    with dicom_seg.database_closed(hd.legacy.LegacyConvertedEnhancedCTImage(images, hd.UID(), 4, hd.UID(), 1)) as one:
        one.save_as(out)
    return out


def assert_same(found: Series | Scan, wanted: Series) -> None:
    np.testing.assert_array_equal(found.voxels, wanted.voxels)
    np.testing.assert_allclose(found.z_mm, wanted.z_mm)
    assert found.affine_lps is not None
    np.testing.assert_allclose(found.affine_lps, wanted.affine_lps)
    assert found.spacing_mm == wanted.spacing_mm


@pytest.mark.parametrize("make", [enhanced, legacy])
@pytest.mark.parametrize("packed", [False, True])
def test_one_file_is_the_series(classic: list[Path], tmp_path: Path, make: Any, packed: bool):
    wanted = dicom.read_series(classic)
    path = make(classic, tmp_path / "one" / "all.dcm")
    if packed:
        dataset = pydicom.dcmread(path)
        dataset.compress(RLELossless, generate_instance_uid=False)
        dataset.save_as(path)
    module, (entry,), quarantined = sources.find_scans(tmp_path / "one")
    assert not quarantined
    scan = sources.read(module, entry)
    assert_same(scan, wanted)
    assert set(scan.sop_uids) == {str(pydicom.dcmread(path).SOPInstanceUID)}
    if make is enhanced and not packed:  # GDCM, too, reads the frames where we do.
        image = sitk.ReadImage(str(path))
        first = np.asarray(image.TransformIndexToPhysicalPoint((0, 0, 0)))
        np.testing.assert_allclose(first[:2], scan.affine_lps[:2, 3])  # pyright: ignore[reportOptionalSubscript]


def in_two_files(classic: list[Path], out: Path) -> list[Path]:
    """A series whose frames lie in two files, the first three and the others, as of two turns of a wide detector."""
    paths = [enhanced(classic[:3], out / "a.dcm"), enhanced(classic[3:], out / "b.dcm")]
    dataset = pydicom.dcmread(paths[1])
    for number, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence, 3):
        frame.PlanePositionSequence[0].ImagePositionPatient = [-10.0, -20.0, 30.0 - 2.5 * number]
    dataset.save_as(paths[1])
    return paths


def test_decimal_commas(classic: list[Path], tmp_path: Path):
    wanted = dicom.read_series(classic)
    path = enhanced(classic, tmp_path / "enhanced" / "one.dcm")
    written = path.read_bytes()
    assert written.count(b"2.0\\2.0") == 1
    path.write_bytes(written.replace(b"2.0\\2.0", b"2,0\\2,0"))
    assert {image.spacing_mm for image in dicom.read_slices(path)} == {wanted.spacing_mm[1:]}


def test_a_damaged_number_of_a_frame(classic: list[Path], tmp_path: Path):
    path = enhanced(classic, tmp_path / "enhanced" / "one.dcm")
    path.write_bytes(path.read_bytes().replace(b"2.0\\2.0", b"2.x\\2.0"))
    with pytest.raises(Fault, match=r"one\.dcm has a damaged PixelSpacing .*2\.x.*; use the original"):
        dicom.read_slices(path)


def test_frames_in_several_files_are_one_series(classic: list[Path], tmp_path: Path):
    in_two_files(classic, tmp_path / "two")
    module, (entry,), quarantined = sources.find_scans(tmp_path / "two")
    assert not quarantined
    assert_same(sources.read(module, entry), dicom.read_series(classic))


def test_no_segmentation_refers_to_several_files_of_frames(classic: list[Path], tmp_path: Path):
    paths = in_two_files(classic, tmp_path / "two")
    module, (entry,), _ = sources.find_scans(tmp_path / "two")
    scan = sources.read(module, entry)
    assert "several files" in str(dicom.why_not_referred(dicom.read_headers(paths, scan.sop_uids)))
    one = dicom.read_series(classic[:3])
    assert dicom.why_not_referred(dicom.read_headers(classic[:3], one.sop_uids)) is None
    frames = [image.sop_uid for image in dicom.read_slices(paths[0])]
    assert dicom.why_not_referred(dicom.read_headers(paths[:1], frames)) is None


def test_frames_of_several_phases_are_a_fault(classic: list[Path], tmp_path: Path):
    """Volumes over time in a file each, or in one."""
    for name in ("a.dcm", "b.dcm"):
        path = enhanced(classic, tmp_path / "two" / name)
        dataset = pydicom.dcmread(path)
        dataset.SOPInstanceUID = hd.UID()
        dataset.save_as(path)
    module, (entry,), _ = sources.find_scans(tmp_path / "two")
    with pytest.raises(Fault, match=r"a\.dcm and .*b\.dcm both lie at 15 mm") as caught:
        sources.read(module, entry)
    assert caught.value.name == "duplicate_positions"
    dataset.NumberOfFrames = 2 * SLICES
    dataset.PerFrameFunctionalGroupsSequence = Sequence([*dataset.PerFrameFunctionalGroupsSequence] * 2)
    dataset.PixelData = dataset.PixelData * 2
    dataset.save_as(tmp_path / "one.dcm")
    with pytest.raises(Fault, match=r"one\.dcm holds two images at 15 mm") as caught:
        assemble(dicom.read_slices(tmp_path / "one.dcm"))
    assert caught.value.name == "duplicate_positions"


def test_a_file_of_one_image_is_that_image(classic: list[Path]):
    assert_same(assemble([one for path in classic for one in dicom.read_slices(path)]), dicom.read_series(classic))


def test_faults_name_the_file(classic: list[Path], tmp_path: Path):
    path = enhanced(classic, tmp_path / "one" / "all.dcm")
    whole_file = pydicom.dcmread(path)

    def fault(change: Any) -> Fault:
        dataset = pydicom.dcmread(path)
        change(dataset)
        dataset.save_as(tmp_path / "changed.dcm")
        with pytest.raises(Fault, match=r"changed\.dcm") as caught:
            dicom.read_slices(tmp_path / "changed.dcm")
        return caught.value

    def shared(dataset: Dataset) -> Dataset:
        return dataset.SharedFunctionalGroupsSequence[0]

    assert fault(lambda d: shared(d).__delattr__("PixelMeasuresSequence")).name == "missing_tag"
    assert fault(lambda d: d.PerFrameFunctionalGroupsSequence.pop()).name == "unreadable_file"
    assert fault(lambda d: setattr(d, "PixelData", whole_file.PixelData[:-120])).name == "short_pixels"
    assert fault(lambda d: setattr(d, "Modality", "MR")).name == "not_ct"
    content = path.read_bytes()
    (tmp_path / "cut.dcm").write_bytes(content[:-2])
    with pytest.raises(Fault, match=r"cut\.dcm"):
        dicom.read_slices(tmp_path / "cut.dcm")


def test_a_header_of_billions_of_pixels_asks_for_no_memory(classic: list[Path], tmp_path: Path):
    path = enhanced(classic, tmp_path / "one" / "all.dcm")
    dataset = pydicom.dcmread(path)
    dataset.compress(RLELossless, generate_instance_uid=False)
    dataset.Rows = dataset.Columns = 65535
    dataset.save_as(path)
    module, (entry,), _ = sources.find_scans(path.parent)
    with pytest.raises(Fault, match="by the bytes of its pixels") as caught:
        sources.read(module, entry)
    assert caught.value.name == "too_large"


def test_frames_without_a_place_are_a_fault(classic: list[Path], tmp_path: Path):
    """Many images in one file as the makers of dental scanners write them: the first image's place alone is known."""
    images = [pydicom.dcmread(path) for path in classic]
    images[0].NumberOfFrames = len(images)
    images[0].PixelData = b"".join(image.PixelData for image in images)
    path = tmp_path / "one" / "all.dcm"
    path.parent.mkdir()
    images[0].save_as(path)
    module, (entry,), _ = sources.find_scans(path.parent)
    with pytest.raises(Fault, match=f"{SLICES} images in one file") as caught:
        sources.read(module, entry)
    assert caught.value.name == "missing_tag"


def test_a_segmentation_refers_to_its_frames(classic: list[Path], tmp_path: Path):
    path = legacy(classic, tmp_path / "one" / "all.dcm")
    module, (entry,), _ = sources.find_scans(path.parent)
    scan = sources.read(module, entry)
    mask = np.zeros(scan.voxels.shape, np.uint8)
    mask[1:3, 2:4, 5:9] = 1
    nodule = Candidate(np.argwhere(mask == 1), 0.9, 100.0, 7.5, 4.0, 11, -50.0)
    report = chests.report(scan, [nodule], name="m", step=3)
    dicom_seg.write(tmp_path, dicom.read_headers([path], scan.sop_uids), mask, report)
    found = np.zeros(mask.shape, np.uint8)
    with dicom_seg.database_closed(hd.seg.segread(tmp_path / dicom_seg.SEG_FILE)) as segmentation:
        planes = segmentation.pixel_array
    for frame, groups in zip(planes, segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        place_mm = float(groups.PlanePositionSequence[0].ImagePositionPatient[2])
        found[int(np.abs(scan.z_mm - place_mm).argmin())][frame > 0] = 1
        (source,) = groups.DerivationImageSequence[0].SourceImageSequence
        assert source.ReferencedSOPInstanceUID == scan.sop_uids[0]
        of = pydicom.dcmread(path).PerFrameFunctionalGroupsSequence[int(source.ReferencedFrameNumber) - 1]
        assert float(of.PlanePositionSequence[0].ImagePositionPatient[2]) == place_mm
    np.testing.assert_array_equal(found, mask)
