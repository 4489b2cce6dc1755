"""NIfTI: names become cases, marks stay on what they mark however the axes run, and faults have names."""

from __future__ import annotations

import dataclasses
import gzip
import shutil
import struct
from pathlib import Path
from typing import Any, Literal

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

import lungjax
from lungjax.ct.scan import Scan
from lungjax.data.shards import open_dataset
from lungjax.errors import Fault, InputError
from lungjax.preparation import sources
from lungjax.preparation.formats import nifti, unmarked
from lungjax.preparation.run import prepare

SHAPE = (12, 20, 16)
SPACING_MM = (2.5, 0.8, 0.7)
FIRST, SECOND = (slice(2, 5), slice(3, 7), slice(10, 14)), (slice(8, 10), slice(15, 18), slice(2, 4))
"""Two nodules: the first low, at the front (small row), on the patient's left (large column)."""


def chest() -> tuple[sitk.Image, sitk.Image]:
    """Air with two bright nodules, no two voxels alike, and its label map, axial as a CT."""
    voxels = -900 + np.arange(np.prod(SHAPE)).reshape(SHAPE) % 97
    label = np.zeros(SHAPE, np.uint8)
    for number, box in enumerate((FIRST, SECOND), 1):
        voxels[box] += 950
        label[box] = number
    return image_of(voxels.astype(np.int16)), image_of(label)


def image_of(voxels: np.ndarray) -> sitk.Image:
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing(SPACING_MM[::-1])
    image.SetOrigin((-5.0, -7.0, -300.0))
    return image


def write(image: sitk.Image, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))
    return path


def read_all(source: Path) -> dict[str, Scan]:
    assert nifti.matches(source)
    entries, quarantined = nifti.find(source)
    assert quarantined == []
    return {entry.patient_id: nifti.read(entry) for entry in entries}


def fault_of(source: Path) -> Fault:
    (entry,), _ = nifti.find(source)
    with pytest.raises(Fault) as caught:
        nifti.read(entry)
    assert str(source) in caught.value.message
    return caught.value


def assert_is_chest(scan: Scan) -> None:
    wanted, label = map(sitk.GetArrayFromImage, chest())
    np.testing.assert_array_equal(scan.voxels, wanted)
    assert scan.voxels.dtype == np.int16
    np.testing.assert_array_equal(scan.reader_bits(), label > 0)
    np.testing.assert_allclose(scan.z_mm, -300 + 2.5 * np.arange(12), atol=1e-4)
    np.testing.assert_allclose(scan.spacing_mm, SPACING_MM, rtol=1e-6)
    assert [(one.index, [reading.slot for reading in one.readings]) for one in scan.nodules] == [(0, [0]), (1, [0])]
    assert [nodule.readings[0].box for nodule in scan.nodules] == [FIRST, SECOND]


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize(("axes", "label_axes"), [("LPS", "LPS"), ("RAS", "RAS"), ("PIR", "PIR"), ("LAS", "SRP")])
def test_marks_stay_on_what_they_mark(tmp_path, axes, label_axes, suffix):
    """The label map may even run along other axes than its volume."""
    volume, label = chest()
    write(sitk.DICOMOrient(volume, axes), tmp_path / f"a{suffix}")
    write(sitk.DICOMOrient(label, label_axes), tmp_path / f"a_seg{suffix}")
    scan = read_all(tmp_path)["a"]
    assert_is_chest(scan)
    assert scan.voxels[scan.reader_bits() > 0].min() > 0 > scan.voxels[scan.reader_bits() == 0].max()


def test_axes_are_those_of_the_patient(tmp_path):
    """A landmark by the format's own words: its x, y, z go to the right, the front and the head."""
    voxels = np.full(SHAPE, -900, np.int16)
    voxels[9, 4, 3] = 500
    path = write(image_of(voxels), tmp_path / "a.nii")
    header = bytearray(path.read_bytes())
    # i to the patient's right from x = 10, j to the front, k to the head: RAS+, as most software writes it.
    header[252:256] = struct.pack("<2h", 0, 1)
    header[280:328] = struct.pack("<12f", 0.7, 0, 0, 10, 0, 0.8, 0, 20, 0, 0, 2.5, -300)
    path.write_bytes(header)
    scan = read_all(tmp_path)["a"]
    # 3 from the right end, so 15 - 3 from the left; rows are counted from the front here, so 19 - 4.
    assert np.argwhere(scan.voxels == 500).tolist() == [[9, 19 - 4, 15 - 3]]
    np.testing.assert_allclose(scan.z_mm[[0, -1]], [-300, -272.5])


@pytest.mark.parametrize(
    ("image", "label", "case"),
    [
        ("imagesTr/lung_001_0000.nii.gz", "labelsTr/lung_001.nii.gz", "lung_001"),
        ("imagesTr/lung_0001_0000.nii.gz", "labelsTr/lung_0001.nii.gz", "lung_0001"),
        ("imagesTr/lung_001.nii.gz", "labelsTr/lung_001.nii.gz", "lung_001"),
        ("imagesTr/lung_0000.nii.gz", "labelsTr/lung_0000.nii.gz", "lung_0000"),
        ("images/x.nii", "labels/x.nii.gz", "x"),
        ("p.1.nii.gz", "p.1_mask.nii.gz", "p.1"),
        ("site/p_2019.nii.gz", "site/p_2019_label.nii.gz", "p_2019"),
        ("case_00001/ct.nii.gz", "case_00001/mask.nii.gz", "case_00001"),
        ("case_00001/imaging.nii.gz", "case_00001/segmentation.nii.gz", "case_00001"),
        ("p1/t0/Image.nii", "p1/t0/Label.nii.gz", "p1_t0"),
        ("sub-01/ses-2/ct.nii.gz", "sub-01/ses-2/seg.nii.gz", "sub-01"),
        ("ct.nii.gz", "nodules.nii.gz", "ct"),
        ("ct/x.nii.gz", "mask/x.nii.gz", "x"),
        ("x.nii.gz", "segmentations/x.nii.gz", "x"),
    ],
)
def test_names_join_a_volume_and_its_label(tmp_path, image, label, case):
    for content, name in zip(chest(), (image, label), strict=True):
        write(content, tmp_path / name)
    (tmp_path / "._x.nii.gz").write_bytes(b"macOS")
    (tmp_path / "dataset.json").write_text("{}")
    scans = read_all(tmp_path)
    assert list(scans) == [case]
    assert_is_chest(scans[case])


def test_a_folder_for_each_case(tmp_path: Path):
    """Two volumes with the same name are two cases, each with its own label map."""
    for folder in ("a", "b"):
        for content, name in zip(chest(), ("ct", "mask"), strict=True):
            write(content, tmp_path / folder / f"{name}.nii.gz")
    (tmp_path / "b" / "mask.nii.gz").unlink()
    with_marks, without = read_all(tmp_path).values()
    assert_is_chest(with_marks)
    assert (with_marks.patient_id, without.patient_id) == ("a", "b")
    assert without.nodules == ()


def test_what_is_no_case_is_listed(tmp_path):
    for name in (
        "imagesTr/a_0000.nii.gz",
        "imagesTr/a_0001.nii.gz",
        "imagesTs/b_0000.nii.gz",
        "more/c.nii.gz",
        "more/again/c.nii",
        "labelsTr/gone.nii.gz",
        "plain_0001.nii.gz",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    entries, quarantined = nifti.find(tmp_path)
    assert [entry.key for entry in entries] == ["a", "b", "c", "plain_0001"]
    assert [(one.key, one.name) for one in quarantined] == [
        ("imagesTr/a_0001.nii.gz", "several_channels"),
        ("labelsTr/gone.nii.gz", "missing_image"),
        ("more/again/c.nii", "duplicate_series"),
    ]


def test_links_to_files_kept_elsewhere_are_the_files(tmp_path: Path):
    """As git-annex and DataLad lay data out: each file once in the tree, as a link, and once in their own folder."""
    kept = tmp_path / ".git" / "annex" / "objects"
    for name, image in zip(("a.nii.gz", "a_label.nii.gz"), chest(), strict=True):
        key = f"MD5E-s1--{name}"
        write(image, kept / key / key)
        (tmp_path / name).symlink_to(kept / key / key)
    assert sources.format_of(tmp_path, "auto") == "nifti"
    assert {key: len(scan.nodules) for key, scan in read_all(tmp_path).items()} == {"a": 2}
    entries, left_out = unmarked.find(tmp_path)
    assert ([entry.key for entry in entries], left_out) == (["a", "a_label"], [])


def test_a_link_to_a_folder_is_listed_and_takes_no_case_with_it(tmp_path):
    source = tmp_path / "source"
    write(chest()[0], source / "a.nii.gz")
    (source / "a").symlink_to(tmp_path)
    summary = prepare(source, tmp_path / "out", format="nifti", workers=1)
    assert (summary.scans, summary.quarantined) == (1, {"link": 1})


def test_without_label_or_with_an_empty_one_there_are_no_nodules(tmp_path):
    volume, label = chest()
    write(volume, tmp_path / "a.nii.gz")
    write(volume, tmp_path / "b.nii.gz")
    write(label * 0, tmp_path / "b_mask.nii.gz")
    assert [scan.nodules for scan in read_all(tmp_path).values()] == [(), ()]


def test_pieces_that_touch_by_a_corner_are_one_nodule(tmp_path):
    marks = np.zeros(SHAPE, np.uint8)
    for voxel in ((1, 1, 1), (2, 2, 2), (4, 4, 4)):
        marks[voxel] = 7
    write(chest()[0], tmp_path / "a.nii.gz")
    write(image_of(marks), tmp_path / "a_label.nii.gz")
    origins = [nodule.readings[0].origin for nodule in read_all(tmp_path)["a"].nodules]
    assert origins == [(1, 1, 1), (4, 4, 4)]


def test_a_slope_in_the_header_is_applied(tmp_path):
    volume, label = chest()
    path = write(volume + 1024, tmp_path / "a.nii")
    header = bytearray(path.read_bytes())
    header[112:120] = struct.pack("<2f", 1, -1024)
    path.write_bytes(header)
    write(label, tmp_path / "a_label.nii")
    assert_is_chest(read_all(tmp_path)["a"])


def turned_by(image: sitk.Image, degrees: float) -> sitk.Image:
    turned = sitk.Image(image)
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turned.SetDirection((1, 0, 0, 0, cosine, -sine, 0, sine, cosine))
    return turned


def test_a_little_oblique_is_still_axial(tmp_path):
    write(turned_by(chest()[0], 8), tmp_path / "a.nii.gz")
    scan = read_all(tmp_path)["a"]
    np.testing.assert_array_equal(scan.voxels, sitk.GetArrayFromImage(chest()[0]))
    # Along the normal (0, -sin, cos), from the first voxel at y -7, z -300.
    np.testing.assert_allclose(scan.z_mm[0], 7 * np.sin(np.radians(8)) - 300 * np.cos(np.radians(8)), rtol=1e-5)
    np.testing.assert_allclose(np.diff(scan.z_mm), 2.5, rtol=1e-5)


def shifted(image: sitk.Image) -> sitk.Image:
    moved = sitk.Image(image)
    moved.SetOrigin((-5.0, -7.0, -297.5))
    return moved


def stretched(image: sitk.Image) -> sitk.Image:
    wide = sitk.Image(image)
    wide.SetSpacing((0.7, 0.9, 2.5))
    return wide


@pytest.mark.parametrize("suffix", [".mha", ".mhd"])
def test_metaimage_is_read_likewise(tmp_path: Path, suffix: str):
    volume, label = chest()
    for folder, kind in (("nifti", ".nii.gz"), ("metaimage", suffix)):
        write(volume, tmp_path / folder / "imagesTr" / f"a_0000{kind}")
        write(label, tmp_path / folder / "labelsTr" / f"a{kind}")
    wanted, scan = (read_all(tmp_path / folder)["a"] for folder in ("nifti", "metaimage"))
    np.testing.assert_array_equal(scan.voxels, wanted.voxels)
    assert scan.affine_lps is not None
    assert wanted.affine_lps is not None
    np.testing.assert_allclose(scan.affine_lps, wanted.affine_lps, atol=1e-4)
    np.testing.assert_array_equal(scan.reader_bits(), wanted.reader_bits())
    assert len(scan.nodules) == len(wanted.nodules) == 2


@pytest.mark.parametrize("stored", [np.uint8, np.int16])
def test_labels_that_a_program_scaled_are_labels(tmp_path: Path, stored: type):
    """nibabel fills the integer type of a header with labels that are floats, so that they come back rounded."""
    volume, label = chest()
    write(volume, tmp_path / "a.nii.gz")
    plain: Any = nibabel.load(write(label, tmp_path / "a_seg.nii.gz"))
    header, floats = plain.header.copy(), np.asarray(plain.dataobj, np.float64)
    header.set_data_dtype(stored)
    nibabel.save(nibabel.Nifti1Image(floats, plain.affine, header), tmp_path / "a_seg.nii.gz")
    written: Any = nibabel.load(tmp_path / "a_seg.nii.gz")
    again = np.asarray(written.dataobj)
    assert 0 < np.abs(again - floats).max() < 0.05
    (scan,) = read_all(tmp_path).values()
    np.testing.assert_array_equal(scan.reader_bits() > 0, sitk.GetArrayFromImage(label) > 0)
    (entry,), _ = nifti.find(tmp_path)
    (nodule,) = nifti.read(dataclasses.replace(entry, locator=(*entry.locator, (2,)))).nodules
    assert nodule.readings[0].origin == tuple(side.start for side in SECOND)


def test_what_nnunet_ignores_is_no_nodule(tmp_path: Path):
    volume, label = chest()
    write(volume, tmp_path / "imagesTr" / "a_0000.nii.gz")
    write(label, tmp_path / "labelsTr" / "a.nii.gz")
    description = tmp_path / "dataset.json"
    for text in ("", "[]", '{"labels": {"background": 0, "nodule": 1, "other": 2}}', '{"labels": {"ignore": 9}}'):
        description.write_text(text)
        assert len(read_all(tmp_path)["a"].nodules) == 2
    description.write_text('{"labels": {"background": 0, "nodule": 1, "ignore": 2}}')
    fault = fault_of(tmp_path)
    assert (fault.name, "label 2" in fault.message, "--label" in fault.message) == ("ignored_label", True, True)
    (entry,), _ = nifti.find(tmp_path)
    (nodule,) = nifti.read(dataclasses.replace(entry, locator=(*entry.locator, (1,)))).nodules
    assert nodule.readings[0].origin == tuple(side.start for side in FIRST)


def test_volumes_and_labels_with_a_fault(tmp_path):
    volume, label = chest()
    floats = sitk.Cast(volume, sitk.sitkFloat32)
    for name, (image, mask) in {
        "oblique_orientation": (turned_by(volume, 20), label),
        "hu_out_of_range": (sitk.Cast(volume, sitk.sitkInt32) * 100, label),
        "not_hu": (floats / 1000, label),
        "not_3d": (volume[:, :, 3:4], label),
        "mask_shape": (volume, label[:, :, 1:]),
        "mask_position": (volume, shifted(label)),
        "mask_position, by its spacing": (volume, stretched(label)),
        "not_a_label": (volume, sitk.Cast(label, sitk.sitkFloat32) / 2),
    }.items():
        folder = tmp_path / name
        write(image, folder / "a.nii.gz")
        write(mask, folder / "a_seg.nii.gz")
        assert fault_of(folder).name == name.split(",")[0]


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("keep", [0.0, 0.02, 0.5, 0.999])
def test_a_file_cut_short_is_never_read_as_whole(tmp_path, keep, suffix):
    path = write(chest()[0], tmp_path / f"a{suffix}")
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    assert fault_of(tmp_path).name == "unreadable_file"


def test_a_damaged_gzip(tmp_path):
    path = write(chest()[0], tmp_path / "a.nii.gz")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    assert fault_of(tmp_path).name == "unreadable_file"


def test_damage_that_nibabel_does_not_notice(tmp_path):
    """Why the voxels are not read by nibabel, which stops before gzip's checksum."""
    path = tmp_path / "a.nii.gz"
    content = bytearray(gzip.compress(write(chest()[0], tmp_path / "whole" / "a.nii").read_bytes(), 0))  # Stored.
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    shutil.rmtree(tmp_path / "whole")
    read = np.asarray(nibabel.Nifti1Image.from_filename(path).dataobj).T
    assert np.count_nonzero(read != sitk.GetArrayFromImage(chest()[0])) == 1
    assert fault_of(tmp_path).name == "unreadable_file"


def test_a_rounded_quaternion_that_nibabel_refuses(tmp_path):
    """Why the header is not read by nibabel: half a turn in five digits is no unit quaternion to it; ITK reads it."""
    image = chest()[0]
    image.SetDirection([0, 1, 0, 1, 0, 0, 0, 0, -1])
    path = write(image, tmp_path / "a.nii")
    header = bytearray(path.read_bytes())
    header[252:256] = struct.pack("<2h", 1, 0)  # The qform alone.
    assert np.abs(struct.unpack("<3f", header[256:268])) == pytest.approx([0.707107, 0.707107, 0], abs=1e-6)
    header[256:268] = struct.pack("<3f", *np.round(struct.unpack("<3f", header[256:268]), 5))
    path.write_bytes(header)
    with pytest.raises(ValueError, match="w2 should be positive"):
        nibabel.Nifti1Image.from_filename(path)
    wanted = sitk.GetArrayFromImage(sitk.DICOMOrient(sitk.ReadImage(str(path)), "LPS"))
    np.testing.assert_array_equal(read_all(tmp_path)["a"].voxels, wanted)


@pytest.mark.parametrize(
    ("offset", "content", "name"),
    [
        (40, struct.pack("<8h", 3, 30000, 30000, 30000, 1, 1, 1, 1), "too_large"),
        (40, struct.pack("<8h", 4, 16, 20, 6, 2, 1, 1, 1), "not_3d"),
        (108, struct.pack("<f", 1e5), "unreadable_file"),
        (252, struct.pack("<2h", 0, 0), "missing_orientation"),
        (280, struct.pack("<12f", 0.7, 0.5, 0, 0, 0, 0.8, 0, 0, 0, 0, 2.5, 0), "unreadable_file"),
        (0, b"<html>404</html>" * 40, "unreadable_file"),
    ],
)
def test_a_spoiled_header(tmp_path, offset, content, name):
    path = write(chest()[0], tmp_path / "a.nii")
    header = bytearray(path.read_bytes())
    if offset == 280:
        header[252:254] = struct.pack("<h", 0)  # the sform alone counts, and is sheared
    header[offset : offset + len(content)] = content
    path.write_bytes(header)
    fault = fault_of(tmp_path)
    assert fault.name == name
    assert "0x" not in fault.message  # an address, another on each run


def test_prepared_by_itself_and_by_name(tmp_path):
    for case in "abc":
        for content, name in zip(chest(), (f"imagesTr/{case}_0000", f"labelsTr/{case}"), strict=True):
            write(content, tmp_path / "source" / f"{name}.nii.gz")
    (tmp_path / "source" / "imagesTr" / "c_0000.nii.gz").write_bytes(b"")
    summary = prepare(tmp_path / "source", tmp_path / "out", workers=1)
    assert (summary.scans, summary.slices, summary.quarantined) == (2, 24, {"unreadable_file": 1})
    dataset = open_dataset(tmp_path / "out", verify=True)
    assert dataset.manifest["source"]["format"] == "nifti"
    assert dataset.intensity == "hu"
    assert set(dataset.index["patient_id"]) == {"a", "b"}
    with pytest.raises(InputError, match="holds no scans of this format"):
        prepare(tmp_path / "source", tmp_path / "other", format="luna16", workers=1)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("packed", [False, True])
def test_version_2_is_read_as_version_1(tmp_path: Path, order: Literal["<", ">"], packed: bool):
    """nibabel, FSL and ANTs write it for large volumes; scaled, in metres, and turned."""
    voxels = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE[::-1]) - 1000
    affine = np.array([[0, -0.8, 0, 3.1], [0.7, 0, 0, -4], [0, 0, 2.5, 100], [0, 0, 0, 1.0]])
    affine[:3] /= 1000
    scans = []
    for kind in (nibabel.Nifti1Image, nibabel.Nifti2Image):
        image = kind(voxels, affine, kind.header_class(endianness=order))
        image.header.set_xyzt_units("meter")
        image.header.set_slope_inter(2, -24)
        folder = tmp_path / kind.__name__
        folder.mkdir()
        nibabel.save(image, folder / f"a.nii{'.gz' if packed else ''}")
        (scan,) = read_all(folder).values()
        scans.append(scan)
    first, second = scans
    np.testing.assert_array_equal(first.voxels, second.voxels)
    np.testing.assert_allclose(second.spacing_mm, first.spacing_mm, rtol=1e-6)
    assert first.affine_lps is not None
    assert second.affine_lps is not None
    np.testing.assert_allclose(second.affine_lps, first.affine_lps, rtol=1e-5, atol=1e-5)


def test_an_image_in_two_files_is_refused_by_its_name(tmp_path: Path):
    nibabel.save(nibabel.Nifti1Pair(np.zeros(SHAPE, np.int16), np.eye(4)), tmp_path / "a.img")
    with pytest.raises(
        InputError, match=r"a\.hdr is the header of an image in two files \(\.hdr and \.img\); save it as"
    ):
        lungjax.read_scan(tmp_path / "a.hdr")
