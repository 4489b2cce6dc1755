"""MetaImage that nobody should have sent: a scan or a fault with a name, no memory, no other file."""

from __future__ import annotations

import math
import zlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hostile import FEW, MANY, changed, peak_mib, read
from hypothesis import given
from hypothesis import strategies as st

from lungjax.ct.source import Entry
from lungjax.lidc import annotations
from lungjax.preparation.formats import luna16

ROW = min(annotations.all_scans(), key=lambda row: len(row.z_mm))
WORDS = st.sampled_from(
    [
        "",
        "0",
        "-1",
        "3",
        "1e400",
        "nan",
        "99999999999999999999",
        "4294967297",
        "1" * 5000,
        "1 " * 9,
        "LIST",
        "LOCAL",
        "True",
        "\0",
        "False",
        "MET_FLOAT",
        "MET_OTHER",
        "MET_SHORT_ARRAY",
        "../x.raw",
        "/etc/passwd",
        "x.raw",
        "%d.raw",
        "É",
        "1_0",
    ]
)
KEYS = st.sampled_from(
    [
        "NDims",
        "DimSize",
        "HeaderSize",
        "ElementSize",
        "ElementNumberOfChannels",
        "CompressedDataSize",
        "BinaryData",
        "CompressedData",
        "ElementType",
        "ElementDataFile",
        "TransformMatrix",
        "Offset",
        "Position",
        "ElementSpacing",
        "Comment",
        "ObjectType",
        "ElementByteOrderMSB",
        "BinaryDataByteOrderMSB",
        "AnatomicalOrientation",
        "Name",
        " ",
    ]
)


@pytest.fixture(scope="module")
def meta(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, tuple[str, bytes]]:
    """The header and the voxels of a sound series, plain and packed."""
    folder = tmp_path_factory.mktemp("meta")
    side_mm = ROW.pixel_spacing_mm * 512 / 16
    shape = (len(ROW.z_mm), 16, 16)
    image = sitk.GetImageFromArray((np.arange(math.prod(shape)).reshape(shape) % 3000 - 1000).astype(np.int16))
    image.SetSpacing((side_mm, side_mm, float(ROW.z_mm[-1] - ROW.z_mm[0]) / (shape[0] - 1)))
    image.SetOrigin((-100.0, -100.0, float(ROW.z_mm[0])))
    made = {}
    for packed in (False, True):
        sitk.WriteImage(image, str(folder / "x.mhd"), useCompression=packed)
        content = (folder / ("x.zraw" if packed else "x.raw")).read_bytes()
        made[packed] = (folder / "x.mhd").read_text(), content
    return made


def read_meta(folder: Path, text: str | bytes, content: bytes | None) -> str:
    path = folder / f"{ROW.series_uid}.mhd"
    path.write_bytes(text.encode("latin-1") if isinstance(text, str) else text)
    if content is not None:
        for suffix in (".raw", ".zraw"):
            (folder / f"x{suffix}").write_bytes(content)
    return read(luna16, Entry(ROW.series_uid, ROW.patient_id, str(path), str(path)))


def fuzz_meta_lines(meta: dict, folder: Path, data: st.DataObject) -> None:
    text, content = meta[data.draw(st.booleans())]
    lines = text.splitlines()
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(lines) - 1))
        line = data.draw(st.sampled_from(["{0} = {1}", "{2} = {1}", "{2} = {3}", "{0}:{1}", "{0} =", ""]))
        key, _, value = lines[at].partition(" = ")
        new = line.format(key, data.draw(WORDS), data.draw(KEYS), value)
        if data.draw(st.booleans()):
            lines[at] = new
        else:
            lines.insert(at, new)
    read_meta(folder, "\n".join(lines), content)


def fuzz_meta_bytes(meta: dict, folder: Path, data: st.DataObject) -> None:
    text, content = meta[data.draw(st.booleans())]
    read_meta(folder, changed(text.encode(), data), content)


def fuzz_zraw(meta: dict, folder: Path, data: st.DataObject) -> None:
    text, content = meta[True]
    spoiled = changed(content, data)
    if not read_meta(folder, text, spoiled):
        assert zlib.decompress(spoiled) == zlib.decompress(content)


def fuzz_one_file(meta: dict, folder: Path, data: st.DataObject) -> None:
    packed = data.draw(st.booleans())
    text, content = meta[packed]
    header = text.replace("x.zraw" if packed else "x.raw", "LOCAL").encode()
    assert not read_meta(folder, header + content, None)
    read_meta(folder, changed(header + content, data), None)


META_FUZZERS = [fuzz_meta_lines, fuzz_meta_bytes, fuzz_zraw, fuzz_one_file]


@pytest.mark.parametrize("fuzz", META_FUZZERS)
@FEW
@given(data=st.data())
def test_metaimage_is_a_scan_or_a_fault(meta, tmp_path, fuzz, data):
    fuzz(meta, tmp_path, data)


@pytest.mark.exhaustive
@pytest.mark.parametrize("fuzz", META_FUZZERS)
@MANY
@given(data=st.data())
def test_metaimage_is_a_scan_or_a_fault_many_times(meta, tmp_path, fuzz, data):
    fuzz(meta, tmp_path, data)


@pytest.mark.parametrize(
    ("line", "instead", "name"),
    [
        ("DimSize = 16 16 ", "DimSize = 9999999999 16 ", "too_large"),
        ("DimSize = 16 16 ", "DimSize = 20000 9000 ", "too_large"),
        ("DimSize = 16 16 ", "DimSize = 40000 2 ", "too_large"),
        ("DimSize = 16 16 ", "DimSize = 512 512 ", "unreadable_file"),
        ("DimSize = 16 16 ", "DimSize = -16 -16 ", "not_3d"),
        ("DimSize = 16 16 ", "DimSize = ", "not_3d"),
        ("DimSize = 16 16 ", "DimSize = one 16 ", "unreadable_file"),
        ("NDims = 3", "NDims = 1000", "not_3d"),
        ("NDims = 3\n", "", "unreadable_file"),
        ("ElementType = MET_SHORT\n", "", "unreadable_file"),
        ("ElementType = MET_SHORT", "ElementNumberOfChannels = 3\nElementType = MET_SHORT", "not_3d"),
        ("ElementType = MET_SHORT", "HeaderSize = -1\nElementType = MET_SHORT", "unreadable_file"),
        ("ElementType = MET_SHORT", "ElementType = MET_SHORT\nElementType = MET_CHAR", "unreadable_file"),
        ("BinaryData = True", "BinaryData = False", "unreadable_file"),
        ("Offset = -100", "Offset = nan", "unreadable_file"),
        ("Offset = -100", "Offset = 1 -100", "unreadable_file"),
        ("Offset = -100", "Offset = 1e300", "unreadable_file"),
        ("TransformMatrix = 1 0 0", "TransformMatrix = 1 1 0", "unreadable_file"),
        ("TransformMatrix = 1 0 0", "TransformMatrix = 0 0 0", "unreadable_file"),
        ("TransformMatrix = 1 0 0", "TransformMatrix = 1 0", "unreadable_file"),
        ("ElementDataFile = x", "ElementDataFile = /etc/passwd\nElementDataFile = x", "unreadable_file"),
        ("ElementDataFile = x", f"ElementDataFile = {'y' * 300}", "missing_file"),
        ("ElementDataFile = x", "ElementDataFile = \0", "unreadable_file"),
        ("ElementDataFile = x", "Comment = x", "unreadable_file"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_headers_of_metaimage_that_cannot_be(meta, tmp_path, line, instead, name, packed):
    text, content = meta[packed]
    assert line in text
    assert read_meta(tmp_path, text.replace(line, instead), content) == name


def test_packed_voxels_without_end_take_no_memory(meta, tmp_path):
    """A quarter of a gigabyte, where the header asks for a few kilobytes."""
    text, _ = meta[True]
    packer = zlib.compressobj(1)
    content = b"".join(packer.compress(bytes(2**20)) for _ in range(256)) + packer.flush()
    assert peak_mib(lambda: read_meta(tmp_path, text, content)) < 32
    assert read_meta(tmp_path, text, content) == "unreadable_file"


@pytest.mark.parametrize("at", [-1, -4])
def test_packed_voxels_are_read_to_their_checksum(meta, tmp_path, at):
    text, content = meta[True]
    assert read_meta(tmp_path, text, content[:at]) == "unreadable_file"
    assert read_meta(tmp_path, text, content[:at] + bytes([content[at] ^ 1]) + content[at:][1:]) == "unreadable_file"


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_voxels_of_metaimage_that_are_no_numbers(meta, tmp_path, bad):
    text, content = meta[False]
    floats = np.frombuffer(content, np.int16).astype(np.float32)
    text = text.replace("MET_SHORT", "MET_FLOAT")
    assert read_meta(tmp_path, text, floats.tobytes()) == ""
    floats[7] = bad  # At the border, where NaN means that nothing was measured.
    assert read_meta(tmp_path, text, floats.tobytes()) == ("" if math.isnan(bad) else "not_finite")


def test_a_sound_series_is_read(meta, tmp_path):
    for text, content in meta.values():
        assert read_meta(tmp_path, text, content) == ""
