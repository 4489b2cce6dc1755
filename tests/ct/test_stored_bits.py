"""HU from any way of storing a pixel: equal to pydicom's own, whatever lies in the spare bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
import source_files
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import FileDataset
from pydicom.pixels.encoders.base import get_encoder
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from lungjax.ct import dicom, dicom_pixels
from lungjax.errors import Fault

MANY = settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
NATIVE = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
SIDE = 5


def write(folder: Path, raw: np.ndarray, *, bits: int, signed: bool, syntax: str, **tags: object) -> Path:
    """One image of unsigned `raw` numbers, of which the lowest `bits` are the value."""
    size = raw.dtype.itemsize
    signed_tags = {"BitsAllocated": 8 * size, "BitsStored": bits, "HighBit": bits - 1, "PixelRepresentation": signed}
    (path,) = source_files.write_ct(folder, raw.astype(np.int16)[None], tags={**signed_tags, **tags})
    dataset = pydicom.dcmread(path)
    little = syntax != ExplicitVRBigEndian
    dataset.PixelData = raw.astype(raw.dtype.newbyteorder("<" if little else ">")).tobytes()
    dataset["PixelData"].VR = "OB" if size == 1 else "OW"
    if size == 4 and not little:  # Words of 16 bits are swapped, not longer ones.
        dataset.PixelData = raw.astype("<u4").view("<u2").astype(">u2").tobytes()
    if len(dataset.PixelData) % 2:
        dataset.PixelData += b"\0"
    if syntax == RLELossless:
        dataset.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
        pydicom.dcmwrite(path, dataset)
        return path
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    implicit = syntax == ImplicitVRLittleEndian
    pydicom.dcmwrite(path, dataset, implicit_vr=implicit, little_endian=little, force_encoding=True)
    return path


def read(path: Path) -> np.ndarray:
    image = dicom.read_slice(path)
    hu = np.empty(image.pixels.shape, np.int16)
    dicom_pixels.read_hu(image.pixels, hu)
    return hu


def by_pydicom(path: Path) -> np.ndarray:
    dataset: FileDataset = pydicom.dcmread(path)
    return np.rint(dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept))


@MANY
@given(data=st.data())
@pytest.mark.filterwarnings("ignore")  # pydicom's, of byte orders that DICOM has retired.
def test_hu_equal_pydicoms(tmp_path: Path, data):
    """Every number of bits, allocated and stored, signed or not, in every byte order and in RLE."""
    size = data.draw(st.sampled_from([1, 2, 2, 2, 4]))
    signed = data.draw(st.booleans())
    syntax = data.draw(st.sampled_from([*NATIVE, RLELossless] if size < 4 else NATIVE))
    # pydicom's encoder, not its decoder, drops bytes that hold spare bits alone.
    bits = data.draw(st.integers(8 * size - 7 if syntax == RLELossless else 1, 8 * size))
    raw = np.random.default_rng(data.draw(st.integers(0, 99))).integers(0, 256, (SIDE, SIDE * size), np.uint8)
    raw = raw.view(f"<u{size}").astype(f"u{size}")
    slope = data.draw(st.sampled_from([1.0, 4000 / 2**bits, 0.37]))
    intercept = data.draw(st.sampled_from([-1024.0, -1000.5, 0.0]))
    path = write(
        tmp_path, raw, bits=bits, signed=signed, syntax=syntax, RescaleSlope=f"{slope:.10g}", RescaleIntercept=intercept
    )
    expected = by_pydicom(path)
    lowest = -(2 ** (bits - 1)) if signed else 0
    ends = [float(f"{slope:.10g}") * stored + intercept for stored in (lowest, lowest + 2**bits - 1)]
    if not (ends[0] <= -500 and ends[1] >= -100):
        with pytest.raises(Fault, match="wrong_rescale"):
            read(path)
    elif expected.min() < -32768 or expected.max() > 32767:
        with pytest.raises(Fault, match="hu_out_of_range"):
            read(path)
    else:
        np.testing.assert_array_equal(read(path), expected)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless, JPEG2000Lossless, JPEGLSLossless])
def test_an_overlay_in_a_spare_bit_is_no_hu(tmp_path: Path, syntax: UID):
    """12 of 16 bits stored, an overlay in bit 12, also where the encoder was given all 16."""
    if syntax.is_compressed and not get_encoder(syntax).is_available:
        pytest.skip(f"nothing installed encodes {syntax.name}")
    values = np.random.default_rng(0).integers(0, 4096, (8, 8)).astype(np.uint16)
    path = write(tmp_path, values | 0x1000, bits=16, signed=False, syntax=ExplicitVRLittleEndian)
    dataset = pydicom.dcmread(path)
    if syntax.is_compressed:
        dataset.compress(syntax, generate_instance_uid=False)
    dataset.BitsStored, dataset.HighBit = 12, 11
    dataset.save_as(path)
    np.testing.assert_array_equal(read(path), values.astype(int) - 1024)


@pytest.mark.parametrize("tags", [{"HighBit": 15}, {"HighBit": 10}, {"BitsStored": 17, "HighBit": 16}])
def test_bits_that_readers_disagree_on_are_refused(tmp_path: Path, tags: dict[str, int]):
    raw = np.arange(16, dtype=np.uint16).reshape(4, 4)
    path = write(tmp_path, raw, bits=12, signed=False, syntax=ExplicitVRLittleEndian, **tags)
    with pytest.raises(Fault, match=r"wrong_bits: .*000\.dcm stores"):
        dicom.read_slice(path)


@pytest.mark.parametrize("declared", [63536, 2096])
def test_padding_is_read_as_pixels_are(tmp_path: Path, declared: int):
    """-2000 in 16 bits, or in the 12 that are stored; the header declares it with an unsigned VR."""
    raw = np.full((4, 4), 0x830, np.uint16)
    path = write(tmp_path, raw, bits=12, signed=True, syntax=ExplicitVRLittleEndian, RescaleIntercept=0)
    dataset = pydicom.dcmread(path)
    dataset.add_new("PixelPaddingValue", "US", declared)
    dataset.save_as(path)
    assert (read(path) == -2000).all()
    assert dicom.read_slice(path).padding_hu == -2000
