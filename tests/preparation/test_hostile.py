"""What nobody should have sent: damaged and lying headers, names that are no text, disks that are full."""

from __future__ import annotations

import collections
import json
import os
import shutil
import stat
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hostile import opened_files
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.tag import Tag

from lungjax import cli
from lungjax.ct import dicom, series
from lungjax.errors import Fault
from lungjax.preparation import doctor
from lungjax.preparation.formats import lidc, luna16, nifti
from lungjax.preparation.run import prepare

TAGS = [
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "Rows",
    "Columns",
    "RescaleSlope",
    "RescaleIntercept",
    "BitsAllocated",
    "BitsStored",
    "PixelRepresentation",
    "SamplesPerPixel",
    "Modality",
    "SeriesInstanceUID",
    "PixelPaddingValue",
]
VRS = [b"US", b"SS", b"DS", b"IS", b"CS", b"UI", b"LO", b"UN", b"OW", b"SQ", b"FD", b"AT", b"zz"]


def read(path: Path) -> str:
    """All that reading a series may say: `volume`, `no CT`, or the name of a fault."""
    try:
        if dicom.read_header(path) is None:
            return "no CT"
        volume = series.read(series.order([dicom.read_slice(path), dicom.read_slice(path.with_name("001.dcm"))]))
    except Fault as fault:
        return fault.name
    assert volume.voxels.dtype == np.int16
    return "volume"


@pytest.fixture(scope="module")
def one(write_ct, tmp_path_factory) -> tuple[Path, bytes]:
    """A file of a series of two, and its bytes."""
    stored = np.arange(32, dtype=np.int16).reshape(2, 4, 4) * 50
    path = write_ct(tmp_path_factory.mktemp("fuzz"), stored)[0]
    return path, path.read_bytes()


def spoil_bytes(content: bytes, data: st.DataObject) -> bytes:
    """Up to six other bytes; half of the files end too early."""
    changed = bytearray(content)
    for _ in range(data.draw(st.integers(1, 6))):
        changed[data.draw(st.integers(132, len(content) - 1))] = data.draw(st.integers(0, 255))
    ends = st.one_of(st.just(len(content)), st.integers(132, len(content)))
    return bytes(changed[: data.draw(ends)])


def spoil_element(content: bytes, data: st.DataObject) -> bytes:
    """Another value, VR or length of one element of the header, or several of these."""
    tag = Tag(data.draw(st.sampled_from([name for name in TAGS if place_of(content, name) >= 0])))
    start = place_of(content, tag)
    (length,) = struct.unpack("<H", content[start + 6 : start + 8])
    own_vr, own_value = content[start + 4 : start + 6], content[start + 8 : start + 8 + length]
    vr = data.draw(st.one_of(st.just(own_vr), st.sampled_from(VRS)))
    numbers = st.sampled_from(
        [b"nan", b"inf", b"-1e400", b"", b"0", b"1e9", b"\\", b"1\\2\\3\\4\\5\\6\\7", b"\xff\x00"]
    )
    value = data.draw(st.one_of(st.just(own_value), numbers, st.binary(max_size=40)))
    said = data.draw(st.one_of(st.just(len(value)), st.sampled_from([0, 65534, len(value) + 7])))
    element = content[start : start + 4] + vr + struct.pack("<H", said) + value
    return content[:start] + element + content[start + 8 + length :]


def place_of(content: bytes, name: Any) -> int:
    tag = Tag(name)
    return content.find(struct.pack("<HH", tag.group, tag.element))


@pytest.mark.parametrize("spoil", [spoil_bytes, spoil_element])
@pytest.mark.filterwarnings("ignore")  # pydicom's, of values it doubts: that is what they are here for.
def test_whatever_is_spoilt_is_a_fault_or_a_volume(one, spoil):
    """Neither always: a reader that refuses everything, or believes everything, would not be tested by this."""
    path, content = one
    outcomes: collections.Counter[str] = collections.Counter()

    @settings(deadline=None, max_examples=200)
    @given(st.data())
    def attempt(data: st.DataObject) -> None:
        path.write_bytes(spoil(content, data))
        outcomes[read(path)] += 1

    path.write_bytes(content)
    assert read(path) == "volume"
    attempt()
    faults = outcomes.keys() - {"volume", "no CT"}
    assert outcomes["volume"] >= 5, outcomes  # Of 200; usually 20 to 45.
    assert len(faults) >= 2, outcomes


def test_a_header_of_a_billion_pixels_asks_for_no_memory(write_scan, rows, tmp_path):
    row = next(row for row in rows if row.patient_id == "LIDC-IDRI-0957")
    for path in write_scan(tmp_path / "source", row):
        dataset = pydicom.dcmread(path)
        dataset.Rows, dataset.Columns = 65535, 65535
        dataset.save_as(path)
    (entry,), _ = lidc.find(tmp_path / "source")
    with pytest.raises(Fault) as caught:
        lidc.read(entry)
    assert caught.value.name == "short_pixels"


def test_a_picture_of_a_billion_pixels_asks_for_no_memory(tree, tmp_path):
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2**15, 2**15, 8, 0, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    (tree / "LIDC-IDRI-9000/nodule-0/images/slice-0.png").write_bytes(bomb)
    assert prepare(tree, tmp_path / "out", workers=1).quarantined == {"too_large": 1}


def test_names_that_are_no_text_are_quarantined(tree, tmp_path):
    shutil.copytree(tree / "LIDC-IDRI-9000", os.fsdecode(os.fsencode(tree) + b"/P\xff1"))
    source = Path(os.fsdecode(os.fsencode(tmp_path) + b"/s\xffrc"))
    tree.rename(source)
    assert cli.main(["prepare", "--source", str(source), "--out", str(tmp_path / "out"), "--workers", "1"]) == 0
    (line,) = (tmp_path / "out/quarantine.jsonl").read_text().splitlines()
    assert (json.loads(line)["name"], json.loads(line)["key"]) == ("not_utf8", "P\udcff1/nodule-0")
    assert [fault.name for fault in doctor.examine(source).faults] == ["not_utf8"]


@pytest.mark.parametrize(("name", "module"), [("a.dcm", lidc), ("a.nii", nifti), ("1.2.3.4.5.6.mhd", luna16)])
def test_what_is_no_file_is_not_opened(tmp_path, name, module):
    """A socket here, for a pipe, which is treated alike, would be waited for without end."""
    os.mknod(tmp_path / name, stat.S_IFSOCK | 0o600)
    with opened_files() as opened:
        assert not module.matches(tmp_path)
        entries, (found,) = module.find(tmp_path)
    assert (entries, opened, found.name, found.key) == ([], [], "unreadable_file", f"{name}/")
    assert f"{tmp_path / name} is a pipe, a socket or a device" in found.message


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder of 300 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", folder], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_full_disk_is_one_sentence_and_nothing_half_written(kaggle_tree, small_disk, capfd, workers):
    filler = small_disk / "filler"
    for room_kb in (0, 40, 120):
        filler.write_bytes(bytes(1000 * (290 - room_kb)))
        out = small_disk / "out"
        assert cli.main(["prepare", "--source", str(kaggle_tree), "--out", str(out), "--workers", workers]) == 2
        (said,) = capfd.readouterr().err.strip().splitlines()[-1:]
        assert said.startswith("lungjax: error: ")
        assert "No space left on device" in said
        assert not out.exists()
    filler.unlink()
    shutil.rmtree(small_disk / "out.partial")


def test_a_phantom_on_a_full_disk_is_one_sentence_and_nothing_half_written(small_disk, capfd):
    for room_kb in (4, 120):
        (small_disk / "filler").write_bytes(bytes(1000 * (300 - room_kb)))
        assert cli.main(["phantom", "--scans", "2", "--matrix", "64", "--out", str(small_disk / "phantom")]) == 2
        (said,) = capfd.readouterr().err.strip().splitlines()[-1:]
        assert said.startswith("lungjax: error: ")
        assert "phantom" in said
        assert "No space left on device" in said
        assert [path.name for path in small_disk.iterdir()] == ["filler"]


def test_a_phantom_that_may_not_be_written_is_one_sentence(capsys):
    assert cli.main(["phantom", "--scans", "1", "--matrix", "32", "--out", "/proc/lungjax/phantom"]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert "/proc/lungjax/phantom.partial: cannot be made" in said


@pytest.mark.parametrize("arguments", [["doctor", "--json"], ["doctor"]])
@pytest.mark.parametrize(("output", "code"), [("/dev/full", 2), ("pipe that nobody reads", 0)])
def test_output_that_cannot_be_written_is_one_sentence(kaggle_tree, arguments, output, code):
    """A short one, that only leaves the process's buffer as it ends."""
    command = [sys.executable, "-m", "lungjax.cli", *arguments, str(kaggle_tree)]
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    if output == "/dev/full":
        with open(output, "w") as full:
            run = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=buffered, check=False)
        said = "lungjax: error: output: No space left on device\n"
    else:
        reader, writer = os.pipe()
        os.close(reader)
        run = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, env=buffered, check=False)
        os.close(writer)
        said = ""
    assert (run.returncode, run.stderr) == (code, said)


def test_what_may_not_be_written_is_one_sentence(kaggle_tree, capsys):
    assert cli.main(["prepare", "--source", str(kaggle_tree), "--out", "/proc/lungjax/out", "--workers", "1"]) == 2
    assert "/proc/lungjax/out.partial cannot be made" in capsys.readouterr().err
