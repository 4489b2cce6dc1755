"""LUNA16's MetaImage gives what the DICOM gives, however its axes run, or a named fault."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from source_files import luna16_image, write_luna16

from lungjax.ct.scan import Scan
from lungjax.data.shards import open_dataset
from lungjax.errors import Fault
from lungjax.lidc import annotations
from lungjax.lidc.annotations import ScanRow
from lungjax.preparation import phantom
from lungjax.preparation.formats import lidc, luna16
from lungjax.preparation.run import prepare


def assert_same(scan: Scan, wanted: Scan) -> None:
    assert (scan.patient_id, scan.study_uid, scan.series_uid) == (
        wanted.patient_id,
        wanted.study_uid,
        wanted.series_uid,
    )
    np.testing.assert_array_equal(scan.voxels, wanted.voxels)
    np.testing.assert_array_equal(scan.reader_bits(), wanted.reader_bits())
    np.testing.assert_allclose(scan.z_mm, wanted.z_mm, atol=1e-6)
    np.testing.assert_allclose(scan.spacing_mm, wanted.spacing_mm, rtol=1e-5)
    assert scan.padding_hu == wanted.padding_hu


@pytest.fixture(scope="module")
def dicom_scan(tmp_path_factory: pytest.TempPathFactory) -> Scan:
    """A phantom series of 64 x 64 pixels, read from its DICOM files."""
    folder = tmp_path_factory.mktemp("phantom") / "dicom"
    phantom.write(folder, scans=1, seed=0, matrix=64, workers=1)
    ((entry,), _) = lidc.find(folder)
    scan = lidc.read(entry)
    assert scan.reader_bits().any()
    return scan


def read_one(source: Path) -> Scan:
    (entry,), quarantined = luna16.find(source)
    assert quarantined == []
    return luna16.read(entry)


def fault_of(source: Path) -> Fault:
    (entry,), _ = luna16.find(source)
    with pytest.raises(Fault) as caught:
        luna16.read(entry)
    assert str(source) in caught.value.message
    return caught.value


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("axes", ["LPS", "RPS", "LAS", "LPI", "RAI", "SLP"])
def test_axes_may_run_any_way(dicom_scan, tmp_path, axes, packed):
    write_luna16(tmp_path, dicom_scan.series_uid, sitk.DICOMOrient(luna16_image(dicom_scan), axes), packed=packed)
    assert luna16.matches(tmp_path)
    assert_same(read_one(tmp_path), dicom_scan)


@pytest.mark.parametrize("axes", ["RAS", "LPS", "LPI"])
def test_images_that_lie_the_other_way_round_stay_so(dicom_scan, tmp_path, monkeypatch, axes):
    """A scan whose DICOM images have columns to the right and rows to the front: the outlines are drawn on those."""
    row = annotations.scan_row(dicom_scan.series_uid)
    assert row is not None
    assert row.scan_id not in luna16.TURNED
    monkeypatch.setattr(luna16, "TURNED", frozenset({row.scan_id}))
    write_luna16(tmp_path, dicom_scan.series_uid, sitk.DICOMOrient(luna16_image(dicom_scan, turned=True), axes))
    assert_same(read_one(tmp_path), dicom_scan)


def test_float_headers_and_lung_masks_do_not_matter(dicom_scan, tmp_path):
    image = luna16_image(dicom_scan)
    image.SetSpacing([float(np.float32(step)) for step in image.GetSpacing()])
    path = write_luna16(tmp_path, dicom_scan.series_uid, image)
    masks = tmp_path / "seg-lungs-LUNA16"
    masks.mkdir()
    (masks / path.name).write_bytes(path.read_bytes())
    (tmp_path / "candidates.csv").write_text("seriesuid\n")
    scan = read_one(tmp_path)
    assert_same(scan, dicom_scan)
    row = annotations.scan_row(scan.series_uid)
    assert row is not None
    np.testing.assert_array_equal(scan.z_mm, row.z_mm)


def test_names_decide_what_it_is(dicom_scan, tmp_path):
    (tmp_path / "brain.mhd").write_text("NDims = 3\n")
    assert not luna16.matches(tmp_path)
    assert not luna16.matches(tmp_path / "brain.mhd")
    for folder in ("subset0", "subset1"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{dicom_scan.series_uid}.mhd").touch()
    (tmp_path / "subset0" / "1.2.3.4.5.6.7.mhd").touch()
    entries, quarantined = luna16.find(tmp_path)
    assert [entry.where for entry in entries] == [str(tmp_path / "subset0" / f"{dicom_scan.series_uid}.mhd")]
    assert [(one.key, one.name) for one in quarantined] == [
        ("1.2.3.4.5.6.7", "not_in_database"),
        (f"subset1/{dicom_scan.series_uid}.mhd", "duplicate_series"),
    ]


def test_a_link_to_a_folder_is_listed(dicom_scan, tmp_path):
    write_luna16(tmp_path / "source/subset0", dicom_scan.series_uid, luna16_image(dicom_scan))
    (tmp_path / "source/subset1").symlink_to(tmp_path / "source/subset0")
    entries, quarantined = luna16.find(tmp_path / "source")
    assert [one.key for one in entries] == [dicom_scan.series_uid]
    assert [(one.key, one.name) for one in quarantined] == [("subset1/", "link")]


def test_voxels_that_are_not_there(dicom_scan, tmp_path):
    path = write_luna16(tmp_path, dicom_scan.series_uid, luna16_image(dicom_scan))
    raw = path.with_suffix(".raw")
    whole = raw.read_bytes()
    raw.write_bytes(whole[:-1])
    assert (fault_of(tmp_path).name, fault_of(tmp_path).message) == (
        "unreadable_file",
        f"{raw} is cut short: it has {len(whole) - 1} of {len(whole)} bytes; fetch it again",
    )
    raw.unlink()
    assert fault_of(tmp_path).name == "missing_file"
    assert str(raw) in fault_of(tmp_path).message


@pytest.mark.parametrize("keep", [0.001, 0.5, 0.99])
def test_packed_voxels_cut_short(dicom_scan, tmp_path, keep):
    packed = write_luna16(tmp_path, dicom_scan.series_uid, luna16_image(dicom_scan), packed=True).with_suffix(".zraw")
    content = packed.read_bytes()
    packed.write_bytes(content[: int(keep * len(content))])
    assert fault_of(tmp_path).name == "unreadable_file"


@pytest.mark.parametrize("named", ["../../etc/passwd.raw", "/etc/x.raw", "LOCAL", "LIST", "%03d.raw 1 9 1", "x.png"])
def test_a_header_names_one_file_beside_it(dicom_scan, tmp_path, named):
    path = write_luna16(tmp_path, dicom_scan.series_uid, luna16_image(dicom_scan))
    path.write_text(path.read_text().replace(f"{dicom_scan.series_uid}.raw", named))
    assert fault_of(tmp_path).name in ("unreadable_file", "missing_file")


@pytest.mark.parametrize(
    ("line", "instead", "name"),
    [
        ("DimSize = 64 64", "DimSize = 100000 100000", "too_large"),
        ("NDims = 3", "NDims = 2", "not_3d"),
        ("ElementType = MET_SHORT", "ElementType = MET_LEMON", "unreadable_file"),
        ("TransformMatrix = 1 0 0 0 1 0", "TransformMatrix = 0.8 0.6 0 -0.6 0.8 0", "oblique_orientation"),
        ("ObjectType = Image", "<html>", "unreadable_file"),
    ],
)
def test_a_spoiled_header(dicom_scan, tmp_path, line, instead, name):
    path = write_luna16(tmp_path, dicom_scan.series_uid, luna16_image(dicom_scan))
    assert line in path.read_text()
    path.write_text(path.read_text().replace(line, instead))
    fault = fault_of(tmp_path)
    assert fault.name == name
    assert "0x" not in fault.message  # an address, another on each run


def test_what_does_not_fit_the_database(dicom_scan, tmp_path):
    image = luna16_image(dicom_scan)
    lifted = sitk.Image(image)
    lifted.SetOrigin((0, 0, float(dicom_scan.z_mm[0]) + dicom_scan.spacing_mm[0]))
    narrow = sitk.Image(image)
    narrow.SetSpacing((0.9 * image.GetSpacing()[0], 0.9 * image.GetSpacing()[1], image.GetSpacing()[2]))
    oblong = sitk.Image(image)
    oblong.SetSpacing((0.9 * image.GetSpacing()[0], *image.GetSpacing()[1:]))
    for case, (faulty, name) in {
        "first slices missing": (image[:, :, 2:], "incomplete_series"),
        "last slice missing": (image[:, :, :-1], "incomplete_series"),
        "one slice higher": (lifted, "incomplete_series"),
        "cropped": (image[8:-8, 8:-8], "matrix_mismatch"),
        "other field": (narrow, "matrix_mismatch"),
        "no squares": (oblong, "non_square_pixels"),
        "scaled": (sitk.Cast(image, sitk.sitkFloat32) / 3000, "not_hu"),
        "too large": (sitk.Cast(image, sitk.sitkInt32) * 100, "hu_out_of_range"),
        "not a number": (sitk.Cast(image, sitk.sitkFloat32) * float("nan"), "not_finite"),
    }.items():
        folder = tmp_path / case
        write_luna16(folder, dicom_scan.series_uid, faulty)
        assert fault_of(folder).name == name, case


def test_the_real_scan_prepared_from_both_is_the_same(real_data: Path, tmp_path: Path):
    """LIDC-IDRI-0003: records, index and all, but for the SOPInstanceUIDs, which MetaImage has no place for."""
    tree = real_data / "lidc-dicom" / "LIDC-IDRI" / "LIDC-IDRI-0003"
    prepare(tree, tmp_path / "dicom", workers=1)
    wanted = open_dataset(tmp_path / "dicom")
    (entry,), _ = lidc.find(tree)
    scan = lidc.read(entry)
    for name, axes, packed in (("plain", "LPS", False), ("flipped", "RAI", False), ("packed", "LPI", True)):
        write_luna16(tmp_path / name, scan.series_uid, sitk.DICOMOrient(luna16_image(scan), axes), packed=packed)
        prepare(tmp_path / name, tmp_path / f"{name} out", workers=1)
        got = open_dataset(tmp_path / f"{name} out")
        assert len(got) == len(wanted) == 140
        lost = ["sop_uid"]
        pd.testing.assert_frame_equal(got.index.drop(columns=lost), wanted.index.drop(columns=lost), rtol=1e-12)
        for one, other in zip(got.read(range(140)), wanted.read(range(140)), strict=True):
            np.testing.assert_array_equal(one.image, other.image)
            np.testing.assert_array_equal(one.readers, other.readers)
            assert (one.z_mm, one.spacing_mm, one.padding_hu) == (other.z_mm, other.spacing_mm, other.padding_hu)
            assert one.nodules == other.nodules


def test_which_scans_are_turned_follows_from_the_findings(real_data: Path):
    """LUNA16's findings are in patient coordinates: outlines lie over them one way round, not the other."""
    tables = [pd.read_csv(real_data / "luna16" / name) for name in ("annotations.csv", "annotations_excluded.csv")]
    findings = dict(list(pd.concat(tables).groupby("seriesuid")))
    for row in annotations.all_scans():
        if row.series_uid in findings and (row.scan_id in luna16.TURNED or row.scan_id % 25 == 0):
            upright, turned = (_most_that_agree(row, findings[row.series_uid], sign) for sign in (1, -1))
            assert (turned > upright) == (row.scan_id in luna16.TURNED), row.scan_id


def _most_that_agree(row: ScanRow, found: pd.DataFrame, sign: int) -> int:
    """How many readings one and the same field centre, within 5 cm of the scanner's axis, lays over a finding."""
    boxes = [
        (one.origin, np.array(one.mask.shape) - 1) for nodule in annotations.nodules(row) for one in nodule.readings
    ]
    centres = np.array([origin + size / 2 for origin, size in boxes]).reshape(-1, 3)  # (readings, 3)
    z_mm = np.interp(centres[:, 0], np.arange(len(row.z_mm)), row.z_mm)
    which, reading = np.nonzero(np.abs(found["coordZ"].to_numpy()[:, None] - z_mm) < 1.5 * row.slice_thickness_mm)
    in_plane_mm = sign * (centres[:, :0:-1] - 255.5) * row.pixel_spacing_mm  # x, y from the field's centre
    field_mm = found[["coordX", "coordY"]].to_numpy()[which] - in_plane_mm[reading]
    agree = np.asarray((np.abs(field_mm[:, None] - field_mm) < 2).all(axis=2))
    return max((len(set(reading[one])) for one in agree[np.abs(field_mm[:, 0]) < 50]), default=0)
