from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataelem import RawDataElement
from pydicom.uid import RLELossless

from lungjax.ct import dicom, hounsfield
from lungjax.errors import Fault


def ramp(slices: int = 4, dtype: type = np.int16, start: int = 0) -> np.ndarray:
    """(slices, 3, 4) values that all differ, so that any mix-up of slices, rows or columns shows."""
    return (np.arange(slices * 12).reshape(slices, 3, 4) + start).astype(dtype)


def fault_of(paths: list[Path]) -> Fault:
    with pytest.raises(Fault) as caught:
        dicom.read_series(paths)
    return caught.value


@pytest.mark.parametrize(
    ("stored", "tags"),
    [
        (ramp(start=-30), {}),
        (ramp(dtype=np.uint16, start=1000), {}),
        (ramp(dtype=np.uint16, start=33000), {"RescaleIntercept": -1024}),
        (ramp(start=-30), {"RescaleIntercept": 0}),
        (ramp(start=-30), {"RescaleSlope": 2, "RescaleIntercept": -1000}),
        (ramp(start=-30), {"RescaleSlope": 0.37, "RescaleIntercept": -1023.5}),
    ],
)
def test_hu_are_slope_times_stored_plus_intercept(write_ct, tmp_path: Path, stored: np.ndarray, tags: dict):
    expected = stored.astype(np.float64) * tags.get("RescaleSlope", 1) + tags.get("RescaleIntercept", -1024)
    series = dicom.read_series(write_ct(tmp_path, stored, tags=tags))
    assert series.voxels.dtype == np.int16
    np.testing.assert_array_equal(series.voxels, np.rint(expected))
    assert series.range_hu == (expected.min(), expected.max())


def test_geometry_comes_from_positions(write_ct, tmp_path: Path):
    tags = {"PixelSpacing": [0.5, 0.75], "SliceThickness": 99}
    series = dicom.read_series(write_ct(tmp_path, ramp(), z_mm=[-7.5, -5, -2.5, 0], tags=tags))
    assert series.spacing_mm == (2.5, 0.5, 0.75)
    np.testing.assert_array_equal(series.z_mm, [-7.5, -5, -2.5, 0])
    assert (series.study_uid, series.series_uid) == ("1.2.3", "1.2.3.4")


@pytest.mark.parametrize("orientation", [[1, 0, 0, 0, 1, 0], [-1, 0, 0, 0, -1, 0], [1, 0, 0, 0, -1, 0]])
def test_slices_ascend_in_whatever_order_files_come(write_ct, tmp_path: Path, orientation: list[int]):
    """Also for a patient on the belly, and for a normal that points to the feet."""
    stored = ramp(slices=9)
    descending_mm = [40 - 5 * number for number in range(9)]
    paths = write_ct(tmp_path, stored, z_mm=descending_mm, tags={"ImageOrientationPatient": orientation})
    sop_uids = [str(pydicom.dcmread(path).SOPInstanceUID) for path in paths]
    random.Random(0).shuffle(paths)
    series = dicom.read_series(paths)
    np.testing.assert_array_equal(series.z_mm, descending_mm[::-1])
    np.testing.assert_array_equal(series.voxels, stored[::-1] - 1024)
    assert series.sop_uids == tuple(sop_uids[::-1])


def test_positions_along_a_tilted_normal(write_ct, tmp_path: Path):
    """Sagittal slices: rows run to the back, columns to the feet, so slices follow one another along x."""
    stored, tags = ramp(), {"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}
    paths = []
    for number in (2, 0, 3, 1):
        here = {**tags, "ImagePositionPatient": [3.0 * number, 1.0, 2.0]}
        paths += write_ct(tmp_path / str(number), stored[[number]], tags=here)
    series = dicom.read_series(paths)
    np.testing.assert_array_equal(series.z_mm, [0, 3, 6, 9])
    np.testing.assert_array_equal(series.voxels, stored - 1024)


def test_padding_is_kept_and_reported(write_ct, tmp_path: Path):
    stored = ramp()
    stored[:, 0] = -2000
    series = dicom.read_series(write_ct(tmp_path, stored, tags={"PixelPaddingValue": -2000}))
    assert series.padding_hu == -3024
    np.testing.assert_array_equal(series.voxels, stored - 1024)


def test_padding_that_the_header_wrote_unsigned_is_signed(write_ct, tmp_path: Path):
    stored = ramp()
    stored[:, 0] = -2000
    paths = write_ct(tmp_path, stored)
    for path in paths:
        dataset = pydicom.dcmread(path)
        dataset.add_new("PixelPaddingValue", "US", 63536)
        content = dataset["PixelPaddingValue"]
        assert content.VR == "US"
        dataset.save_as(path)
    assert dicom.read_series(paths).padding_hu == -3024


@pytest.mark.parametrize("padding", [-32768, 65535])
@pytest.mark.parametrize("compressed", [False, True])
def test_padding_that_int16_cannot_hold_as_hu(write_ct, tmp_path: Path, padding: int, compressed: bool):
    """The extreme of the stored type, far from any HU once the intercept of -1024 is added."""
    stored = ramp(dtype=np.int16 if padding < 0 else np.uint16, start=100)
    stored[:, 0, :2] = padding
    stored[0] = padding  # A whole slice above the field of view.
    paths = write_ct(tmp_path, stored)
    for path in paths:
        dataset = pydicom.dcmread(path)
        dataset.add_new("PixelPaddingValue", "SS" if padding < 0 else "US", padding)
        if compressed:
            dataset.compress(RLELossless)
        dataset.save_as(path)
    series = dicom.read_series(paths)
    expected = np.where(stored == padding, -2048, stored.astype(int) - 1024)
    np.testing.assert_array_equal(series.voxels, expected)
    assert (series.padding_hu, series.range_hu) == (-2048, (-2048, expected.max()))


def test_padding_that_the_header_leaves_empty_is_none(write_ct, tmp_path: Path):
    paths = write_ct(tmp_path, ramp())
    for path in paths:
        dataset = pydicom.dcmread(path)
        dataset.add_new("PixelPaddingValue", "SS", None)
        dataset.save_as(path)
    assert dicom.read_series(paths).padding_hu is None


@pytest.mark.parametrize(
    ("low_hu", "declared_hu", "expected"),
    [
        (-1000, None, None),  # plain air
        (-2048, None, -2048),  # a plateau that no header declares
        (-2048, -3024.0, -2048),  # GE LightSpeed in LIDC: declares one value and writes another
        (-1024, -1024.0, -1024),
        (-900, -800.0, None),  # a declared value that is lung is not believed
        (-1000, -3024.0, None),  # declared, and not there
    ],
)
def test_which_value_is_padding(low_hu: int, declared_hu: float | None, expected: int | None):
    voxels = np.zeros((2, 10, 10), np.int16)
    voxels[:, :3] = low_hu
    voxels[0, 9, 9] = -1900 if low_hu == -2048 else voxels[0, 9, 9]  # a lone streak is not padding
    assert hounsfield.padding(voxels, declared_hu) == expected


def test_compressed_files_give_the_same_voxels(write_ct, tmp_path: Path):
    stored = ramp(start=-5)
    plain = dicom.read_series(write_ct(tmp_path / "plain", stored)).voxels
    packed = write_ct(tmp_path / "packed", stored)
    for path in packed:
        dataset = pydicom.dcmread(path)
        dataset.compress(RLELossless, generate_instance_uid=False)
        dataset.save_as(path)
    np.testing.assert_array_equal(dicom.read_series(packed).voxels, plain)


def test_duplicate_positions(write_ct, tmp_path: Path):
    fault = fault_of(write_ct(tmp_path, ramp(), z_mm=[0, 5, 5, 10]))
    assert fault.name == "duplicate_positions"
    assert "001.dcm" in fault.message
    assert "002.dcm" in fault.message


def test_uneven_spacing(write_ct, tmp_path: Path):
    fault = fault_of(write_ct(tmp_path, ramp(5), z_mm=[0, 5, 10, 20, 25]))
    assert (fault.name, "002.dcm" in fault.message) == ("uneven_spacing", True)


def test_rounded_positions_are_even(write_ct, tmp_path: Path):
    z_mm = [round(0.450012 * number, 3) for number in range(4)]
    assert dicom.read_series(write_ct(tmp_path, ramp(), z_mm=z_mm)).spacing_mm[0] == pytest.approx(0.45, abs=1e-4)


@pytest.mark.parametrize(
    "tags",
    [
        {"PixelSpacing": [3.0, 3.0]},
        {"ImageOrientationPatient": [0, 1, 0, 1, 0, 0]},
        {"SeriesInstanceUID": "1.2.9"},
        {"ImagePositionPatient": [90.0, 0.0, 20.0]},
    ],
)
def test_mixed_geometry(write_ct, tmp_path: Path, tags: dict):
    paths = write_ct(tmp_path / "series", ramp())
    stray = write_ct(tmp_path / "stray", ramp(1), z_mm=[20.0], tags=tags)
    assert fault_of(paths + stray).name == "mixed_geometry"


def test_one_slice_is_no_series(write_ct, tmp_path: Path):
    assert fault_of(write_ct(tmp_path, ramp(1))).name == "incomplete_series"


@pytest.mark.parametrize("tag", ["RescaleSlope", "ImagePositionPatient", "PixelSpacing"])
def test_missing_tag(write_ct, tmp_path: Path, tag: str):
    path = write_ct(tmp_path, ramp())[0]
    dataset = pydicom.dcmread(path)
    del dataset[tag]
    pydicom.dcmwrite(path, dataset, enforce_file_format=False)
    fault = fault_of([path])
    assert (fault.name, tag in fault.message, path.name in fault.message) == ("missing_tag", True, True)


def test_not_ct(write_ct, tmp_path: Path):
    assert fault_of(write_ct(tmp_path, ramp(), tags={"Modality": "DX"})).name == "not_ct"


@pytest.mark.parametrize("tags", [{}, {"PixelPaddingValue": 60001}])
def test_hu_that_int16_cannot_hold(write_ct, tmp_path: Path, tags: dict):
    stored = ramp(dtype=np.uint16, start=60000)
    assert fault_of(write_ct(tmp_path, stored, tags=tags)).name == "hu_out_of_range"


@pytest.mark.parametrize("spacing_mm", [[0, 0], [-0.7, 0.7]])
def test_pixels_without_a_size(write_ct, tmp_path: Path, spacing_mm: list[float]):
    fault = fault_of(write_ct(tmp_path, ramp(), tags={"PixelSpacing": spacing_mm}))
    assert (fault.name, f"{spacing_mm[0]:g} x {spacing_mm[1]:g} mm" in fault.message) == ("unreadable_file", True)


def test_decimal_commas(write_ct, tmp_path: Path):
    """As programs write numbers that were set to a country with a decimal comma; DICOM knows only the point."""
    tags = {"PixelSpacing": [0.5, 0.75], "RescaleSlope": 1.5, "ImagePositionPatient": None, "SliceThickness": 2.5}
    paths = []
    for number, stored in enumerate(ramp()):
        here = {**tags, "ImagePositionPatient": [1.5, 2.5, 2.5 * number + 0.25]}
        (path,) = write_ct(tmp_path / str(number), stored[None], tags=here)
        dataset = pydicom.dcmread(path)
        for name in ("PixelSpacing", "RescaleSlope", "ImagePositionPatient", "SliceThickness"):
            element = dataset.get_item(name)
            assert isinstance(element, RawDataElement)
            dataset[name] = element._replace(value=element.value.replace(b".", b","))
        dataset.save_as(path)
        assert b"0,5\\0,75" in path.read_bytes()
        paths.append(path)
    series = dicom.read_series(paths)
    assert series.spacing_mm == (2.5, 0.5, 0.75)
    np.testing.assert_array_equal(series.z_mm, [0.25, 2.75, 5.25, 7.75])
    np.testing.assert_array_equal(series.voxels, np.rint(ramp() * 1.5 - 1024))
    (image, *_) = dicom.read_headers(paths, series.sop_uids)
    assert (image.PixelSpacing, image.SliceThickness) == ([0.5, 0.75], 2.5)


def test_numbers_stored_as_text(write_ct, tmp_path: Path):
    """pydicom believes the VR of the file, and two numbers are one text then."""
    paths = write_ct(tmp_path, ramp())
    for path in paths:
        dataset = pydicom.dcmread(path)
        dataset.add_new("PixelSpacing", "UT", "0.5\\0.75")
        dataset.add_new("RescaleSlope", "LO", "2")
        dataset.save_as(path)
    series = dicom.read_series(paths)
    assert series.spacing_mm == (5.0, 0.5, 0.75)
    np.testing.assert_array_equal(series.voxels, ramp() * 2 - 1024)


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("PixelSpacing", b"0.5 "),
        ("PixelSpacing", b"0.5,0.75"),
        ("PixelSpacing", b"0.5\\0.5\\0.5 "),
        ("PixelSpacing", b"one\\one "),
        ("PixelSpacing", b"1\\inf "),
        ("RescaleSlope", b"1\\1 "),
        ("ImagePositionPatient", b"1\\2 "),
        ("ImageOrientationPatient", b"1\\0\\0\\0\\x\\0 "),
    ],
)
def test_damaged_numbers_are_named(write_ct, tmp_path: Path, name: str, written: bytes):
    paths = write_ct(tmp_path, ramp())
    dataset = pydicom.dcmread(paths[1])
    element = dataset.get_item(name)
    assert isinstance(element, RawDataElement)
    dataset[name] = element._replace(value=written, length=len(written))
    dataset.save_as(paths[1])
    fault = fault_of(paths)
    assert fault.name == "unreadable_file"
    assert f"{paths[1]} has a damaged {name} (" in fault.message
    assert fault.message.endswith("; use the original")


@pytest.mark.parametrize("name", ["GantryDetectorTilt", "SliceThickness"])
def test_damaged_numbers_that_nothing_needs(write_ct, tmp_path: Path, name: str):
    """Positions tell both of these."""
    paths = write_ct(tmp_path, ramp(), tags={name: 0})
    for path in paths:
        dataset = pydicom.dcmread(path)
        element = dataset.get_item(name)
        assert isinstance(element, RawDataElement)
        dataset[name] = element._replace(value=b"none", length=4)
        dataset.save_as(path)
    ((key, files),) = dicom.find_series(tmp_path, dicom.read_header)[0].items()
    assert (key, len(files)) == ("1.2.3.4", len(paths))
    np.testing.assert_array_equal(dicom.read_series(paths).voxels, ramp() - 1024)


def test_every_truncation_is_a_fault_that_names_the_file(write_ct, tmp_path: Path):
    """Cut anywhere at all, from the last byte to the first."""
    path = write_ct(tmp_path, ramp(1))[0]
    content = path.read_bytes()
    for size in range(len(content) - 1, -1, -7):
        path.write_bytes(content[:size])
        fault = fault_of([path])
        assert fault.name in ("unreadable_file", "missing_tag", "not_ct"), size
        assert path.name in fault.message


def test_header_of_other_files_is_none(tmp_path: Path):
    path = tmp_path / "069.xml"
    path.write_text("<LidcReadMessage/>" * 50)
    assert dicom.read_header(path) is None


def test_real_series_equals_pydicom(real_data: Path):
    paths = sorted((real_data / "lidc-dicom" / "LIDC-IDRI" / "LIDC-IDRI-0003").rglob("*.dcm"))
    random.Random(0).shuffle(paths)
    series = dicom.read_series(paths)
    datasets = sorted(map(pydicom.dcmread, paths), key=lambda one: float(one.ImagePositionPatient[2]))
    assert series.voxels.shape == (140, 512, 512)
    for index, one in enumerate(datasets):
        expected_hu = one.pixel_array * float(one.RescaleSlope) + float(one.RescaleIntercept)
        np.testing.assert_array_equal(series.voxels[index], expected_hu)
        assert series.z_mm[index] == float(one.ImagePositionPatient[2])
    assert series.spacing_mm == (2.5, 0.820312, 0.820312)
    assert (np.diff(series.z_mm) > 0).all()
    assert series.padding_hu == -2048
