"""NIfTI that nobody should have sent: a volume or a fault with a name, no memory, no other file."""

from __future__ import annotations

import gzip
import math
import struct
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from hostile import FEW, MANY, changed, peak_mib, read
from hypothesis import given
from hypothesis import strategies as st

from lungjax.ct.source import Entry
from lungjax.preparation.formats import nifti

SHAPE = (6, 8, 8)
FIELDS = "i10s18sihcB8h3f4h8f3fhBB4f2i80s24s2h6f12f16s4s"
"""A NIfTI-1 header, field by field."""
NUMBERS = st.sampled_from(
    [0.0, -0.0, 1.0, -1.0, 0.5, 351.0, 352.5, 3e38, -3e38, 1e-40, math.nan, math.inf, -math.inf, 2.0**24, 2.0**31]
)


def itk_bytes(voxels: np.ndarray, folder: Path) -> bytes:
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing((0.7, 0.8, 2.5))
    sitk.WriteImage(image, str(folder / "written.nii"))
    return (folder / "written.nii").read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A sound NIfTI file of int16."""
    voxels = np.arange(math.prod(SHAPE), dtype=np.int16).reshape(SHAPE) * 3 - 1000
    return itk_bytes(voxels, tmp_path_factory.mktemp("nifti"))


def read_nifti(folder: Path, content: bytes, *, packed: bool = False) -> str:
    """As `read`; packed as it is, or as it would be by gzip if it is not."""
    path = folder / ("a.nii.gz" if packed else "a.nii")
    path.write_bytes(gzip.compress(content, 1) if packed and content[:2] != b"\x1f\x8b" else content)
    return read(nifti, Entry("a", "a", str(path), (str(path), None)))


def fuzz_nifti_bytes(whole: bytes, folder: Path, data: st.DataObject) -> None:
    read_nifti(folder, changed(whole[:352], data) + whole[352:], packed=data.draw(st.booleans()))


def fuzz_nifti_fields(whole: bytes, folder: Path, data: st.DataObject) -> None:
    fields = list(struct.unpack(f"<{FIELDS}", whole[:348]))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(fields) - 1))
        if isinstance(fields[at], float):
            fields[at] = data.draw(NUMBERS)
        elif isinstance(fields[at], bytes):
            fields[at] = data.draw(st.binary(max_size=len(fields[at]), min_size=len(fields[at])))
        else:
            fields[at] = data.draw(st.sampled_from([0, 1, 2, 3, 4, 16, 64, 127]))
    order = data.draw(st.sampled_from("<>"))
    read_nifti(folder, struct.pack(f"{order}{FIELDS}", *fields) + whole[348:], packed=data.draw(st.booleans()))


def fuzz_gzip(whole: bytes, folder: Path, data: st.DataObject) -> None:
    packed = gzip.compress(whole, 1)
    spoiled = changed(packed, data, first=2)
    name = read_nifti(folder, spoiled, packed=True)
    if not name:  # Only what says nothing of the content may change: a time, a name, flags of the packer.
        assert gzip.decompress(spoiled) == whole


def fuzz_nifti_2(whole: bytes, folder: Path, data: st.DataObject) -> None:
    """The same voxels behind the header of version 2."""
    image = nibabel.Nifti2Image.from_image(nibabel.Nifti1Image.from_bytes(whole))
    content = image.to_bytes()
    read_nifti(folder, changed(content[:544], data) + content[544:], packed=data.draw(st.booleans()))


FUZZERS = [fuzz_nifti_bytes, fuzz_nifti_fields, fuzz_nifti_2, fuzz_gzip]


@pytest.mark.parametrize("fuzz", FUZZERS)
@FEW
@given(data=st.data())
def test_nifti_is_a_volume_or_a_fault(whole, tmp_path, fuzz, data):
    fuzz(whole, tmp_path, data)


@pytest.mark.exhaustive
@pytest.mark.parametrize("fuzz", FUZZERS)
@MANY
@given(data=st.data())
def test_nifti_is_a_volume_or_a_fault_many_times(whole, tmp_path, fuzz, data):
    fuzz(whole, tmp_path, data)


def header(whole: bytes, **fields: tuple[int, str, tuple]) -> bytes:
    spoiled = bytearray(whole)
    for offset, form, values in fields.values():
        struct.pack_into(f"<{form}", spoiled, offset, *values)
    return bytes(spoiled)


@pytest.mark.parametrize(
    ("offset", "form", "values", "name"),
    [
        (40, "4h", (3, 32767, 32767, 32767), "too_large"),
        (40, "4h", (3, 2000, 2000, 500), "unreadable_file"),  # 4 GB, which this file cannot hold, packed or not.
        (40, "4h", (3, -8, 8, 6), "not_3d"),
        (40, "4h", (0, 8, 8, 6), "not_3d"),
        (70, "h", (128,), "not_3d"),  # Red, green and blue.
        (70, "h", (0,), "unreadable_file"),
        (80, "f", (math.nan,), "unreadable_file"),
        (80, "f", (0.0,), "unreadable_file"),
        (108, "f", (math.nan,), "unreadable_file"),
        (108, "f", (2.0**25,), "unreadable_file"),
        (108, "f", (-352.0,), "unreadable_file"),
        (112, "2f", (1e30, 0), "hu_out_of_range"),
        (344, "4s", (b"ni1\0",), "unreadable_file"),  # Voxels in another file, a.img.
        (344, "4s", (bytes(4),), "unreadable_file"),  # ANALYZE, which knows no left from right.
        (0, "i", (540,), "unreadable_file"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_headers_of_nifti_that_cannot_be(whole, tmp_path, offset, form, values, name, packed):
    (tmp_path / "a.img").write_bytes(whole[352:])
    assert read_nifti(tmp_path, header(whole, it=(offset, form, values)), packed=packed) == name
    path = str(tmp_path / ("a.nii.gz" if packed else "a.nii"))
    assert nifti.check(Entry("a", "a", path, (path, None))).faults


@pytest.mark.parametrize("affine", ["sform", "qform"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e30])
def test_an_affine_of_nifti_that_cannot_be(whole, tmp_path, affine, bad):
    """The other one is used, if there is any."""
    fields = {"it": (280, "f", (bad,)) if affine == "sform" else (256, "f", (bad,))}
    assert read_nifti(tmp_path, header(whole, **fields)) == ""
    fields["other"] = (252, "h", (0,)) if affine == "sform" else (254, "h", (0,))
    assert read_nifti(tmp_path, header(whole, **fields)) == "unreadable_file"


def test_an_affine_of_nifti_that_its_pixdim_denies(whole, tmp_path):
    denied = header(whole, pixdim=(80, "3f", (1.4, 1.6, 5.0)))
    assert read_nifti(tmp_path, denied) == "", "the qform has its steps from there"
    assert read_nifti(tmp_path, header(denied, qform=(252, "h", (0,)))) == "unreadable_file"


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_voxels_of_nifti_that_are_no_numbers(tmp_path, bad):
    voxels = np.arange(math.prod(SHAPE), dtype=np.float32).reshape(SHAPE) * 4 - 900
    (tmp_path / "a_seg.nii").write_bytes(itk_bytes((voxels > -700).astype(np.float32), tmp_path))
    (tmp_path / "a.nii").write_bytes(itk_bytes(voxels, tmp_path))
    entry = Entry("a", "a", str(tmp_path / "a.nii"), (str(tmp_path / "a.nii"), str(tmp_path / "a_seg.nii")))
    assert read(nifti, entry) == ""
    for name in ("a_seg.nii", "a.nii"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[:-4] + struct.pack("<f", bad))
        # Where the file ends is where NaN means that nothing was measured.
        is_padding = name == "a.nii" and math.isnan(bad)
        assert read(nifti, entry) == ("" if is_padding else "not_finite")
        (tmp_path / name).write_bytes(content)


def test_a_gzip_without_end_takes_no_memory(whole, tmp_path):
    """A gigabyte behind what the header asks for, and damage at its end, where nobody comes."""
    zeros = gzip.compress(bytes(2**26), 1)
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(whole, 1) + 16 * zeros + b"no gzip")
    entry = Entry("a", "a", str(tmp_path / "a.nii.gz"), (str(tmp_path / "a.nii.gz"), None))
    assert peak_mib(lambda: read(nifti, entry)) < 32
    assert read(nifti, entry) == ""


@pytest.mark.parametrize("affine", ["sform", "qform"])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("units", [2, 3, 0])
@pytest.mark.parametrize("axes", ["LPS", "RAS", "PIR", "LPI"])
def test_nifti_lies_where_itk_says(whole, tmp_path, affine, order, units, axes):
    """SimpleITK as a second implementation, in both byte orders, by each affine alone, oblique by six degrees."""
    turn = np.array(sitk.Euler3DTransform((0, 0, 0), 0.1, -0.05, 0.03).GetMatrix()).reshape(3, 3)
    image = sitk.GetImageFromArray(np.arange(math.prod(SHAPE), dtype=np.int16).reshape(SHAPE) * 3 - 1000)
    image.SetSpacing((0.7, 0.8, 2.5))
    image.SetOrigin((-30.0, 40.0, -500.0))
    turned = sitk.DICOMOrient(image, axes)
    turned.SetDirection((turn @ np.reshape(turned.GetDirection(), (3, 3))).ravel().tolist())
    path = tmp_path / "a.nii"
    sitk.WriteImage(turned, str(path))
    fields = list(struct.unpack(f"<{FIELDS}", path.read_bytes()[:348]))
    codes, units_at = 44, 35
    assert fields[codes : codes + 2] == [1, 1]
    fields[codes + (affine == "qform")] = 0
    fields[units_at] = units
    voxels = np.frombuffer(path.read_bytes()[352:], "<i2").astype(f"{order}i2")
    path.write_bytes(struct.pack(f"{order}{FIELDS}", *fields) + bytes(4) + voxels.tobytes())
    wanted = sitk.DICOMOrient(sitk.ReadImage(str(path)), "LPS")
    scan = nifti.read(Entry("a", "a", str(path), (str(path), None)))
    np.testing.assert_array_equal(scan.voxels, sitk.GetArrayFromImage(wanted))
    np.testing.assert_allclose(scan.spacing_mm, wanted.GetSpacing()[::-1], rtol=1e-6)
    normal = np.reshape(wanted.GetDirection(), (3, 3))[:, 2]
    np.testing.assert_allclose(scan.z_mm[0], wanted.GetOrigin() @ normal, rtol=1e-5)


def test_a_sound_file_is_read(whole, tmp_path):
    assert read_nifti(tmp_path, whole) == read_nifti(tmp_path, whole, packed=True) == ""
