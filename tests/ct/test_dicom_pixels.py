"""Pixels are read after the header, straight into the volume: the same values from whatever way they lie in a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from lungjax.ct import dicom, hounsfield
from lungjax.ct.series import assemble
from lungjax.errors import Fault


def noise(*, side: int = 64) -> np.ndarray:
    """(3, side, side): at 64 long enough to be left in the file at first, at 4 too short for that."""
    return np.random.default_rng(0).integers(-1000, 3000, (3, side, side)).astype(np.int16)


@pytest.mark.parametrize("side", [4, 64])
@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_every_byte_order_and_packing_gives_the_same_voxels(write_ct, tmp_path: Path, side: int, syntax: str):
    stored = noise(side=side)
    paths = write_ct(tmp_path, stored)
    for path, image in zip(paths, stored, strict=True):
        dataset = pydicom.dcmread(path)
        if syntax == ExplicitVRBigEndian:
            dataset.PixelData = image.astype(">i2").tobytes()
            dataset["PixelData"].VR = "OW"
        little = syntax != ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = UID(syntax)
        pydicom.dcmwrite(
            path, dataset, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=little, force_encoding=True
        )
    np.testing.assert_array_equal(dicom.read_series(paths).voxels, stored - 1024)


@pytest.mark.parametrize("group_length", [True, False])
def test_a_deflated_bomb_is_not_inflated(write_ct, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group_length: bool):
    """Whether or not the file tells how long its first group is, pydicom never gets to see what follows."""
    (path,) = write_ct(tmp_path, noise()[:1])
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.PixelData = bytes(2**27)
    pydicom.dcmwrite(path, dataset, implicit_vr=False, little_endian=True, force_encoding=True)
    assert path.stat().st_size < 2**18
    if not group_length:
        content = path.read_bytes()
        path.write_bytes(content[:132] + content[144:])
    monkeypatch.setattr(pydicom, "dcmread", None)
    for read in (dicom.read_header, dicom.read_slice):
        with pytest.raises(Fault, match=r"too_large: .*000\.dcm inflated asks for"):
            read(path)


def test_eight_bits(write_ct, tmp_path: Path):
    stored = (noise() % 256).astype(np.uint8)
    tags = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "RescaleSlope": 8}
    np.testing.assert_array_equal(
        dicom.read_series(write_ct(tmp_path, stored, tags=tags)).voxels, stored.astype(int) * 8 - 1024
    )


def test_elements_after_the_pixels_are_no_pixels(write_ct, tmp_path: Path):
    stored = noise()
    paths = write_ct(tmp_path, stored, tags={"DataSetTrailingPadding": bytes(4096)})
    np.testing.assert_array_equal(dicom.read_series(paths).voxels, stored - 1024)
    short = write_ct(tmp_path / "short", stored[:, 1:], tags={"Rows": 64, "DataSetTrailingPadding": bytes(4096)})
    with pytest.raises(Fault, match=r"short_pixels: .*000\.dcm is whole but it has 8064 of the 8192 bytes"):
        dicom.read_series(short)


@pytest.mark.parametrize("left", [0, 1000])
def test_a_file_that_shrinks_after_its_header_was_read(write_ct, tmp_path: Path, left: int):
    paths = write_ct(tmp_path, noise())
    slices = [dicom.read_slice(path) for path in paths]
    paths[1].write_bytes(paths[1].read_bytes()[:left])
    with pytest.raises(Fault, match=r"unreadable_file: .*001\.dcm"):
        assemble(slices)


def test_a_file_that_is_gone_after_its_header_was_read(write_ct, tmp_path: Path):
    paths = write_ct(tmp_path, noise())
    slices = [dicom.read_slice(path) for path in paths]
    paths[2].unlink()
    with pytest.raises(Fault, match=r"unreadable_file: .*002\.dcm"):
        assemble(slices)


@pytest.mark.parametrize("seed", range(40))
def test_padding_is_what_a_whole_histogram_says(seed: int):
    """Lowest, not lowest, or equally common, on either side of -1500 and of a thousandth of the volume."""
    rng = np.random.default_rng(seed)
    values_hu = np.array([-3024, -2048, -2000, -1500, -1499, -1000, 40], np.int16)
    weights = rng.choice([0, 1e-4, 1e-3, 0.1, 0.2], len(values_hu) - 1)
    counts = np.floor(weights * 4000).astype(int)
    voxels = np.repeat(values_hu, [*counts, 4000 - counts.sum()]).reshape(4, 10, 100)
    low_hu, low_counts = np.unique(voxels[voxels <= -1500], return_counts=True)
    expected = None
    if low_counts.size and low_counts.max() >= 4:
        expected = low_hu[low_counts.argmax()]
    assert hounsfield.padding(rng.permuted(voxels, axis=0), None) == expected
