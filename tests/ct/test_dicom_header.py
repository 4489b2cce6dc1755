"""The short walk through a header sees what pydicom sees, or leaves the file to it."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import FileDataset
from pydicom.tag import Tag

from lungjax.ct import dicom_header

NAMES = (
    "Modality",
    "SeriesInstanceUID",
    "ImagePositionPatient",
    "PixelSpacing",
    "Rows",
    "RescaleIntercept",
    "PixelRepresentation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
)
TAGS = {int(tag): tag for tag in map(Tag, (*NAMES, "PixelData"))}
PLAIN = "1.2.840.10008.1.2.1"
MANY = settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])


def told(dataset: FileDataset) -> dict[int, tuple[Any, ...]]:
    """Each element's VR, length and bytes; of the pixels where they begin instead."""
    found = {}
    for tag in TAGS:
        if tag in dataset:
            one: Any = dataset.get_item(tag, keep_deferred=True)
            found[tag] = (one.VR, one.length, one.value_tell if tag == dicom_header.PIXELS else one.value)
    return found


def by_pydicom(path: Path) -> dict[int, tuple[Any, ...]]:
    dataset = pydicom.dcmread(path, specific_tags=[*TAGS.values()])
    assert dataset.file_meta.TransferSyntaxUID == PLAIN
    return told(dataset)


@pytest.fixture(scope="module")
def one(write_ct, tmp_path_factory) -> Path:
    stored = np.arange(32, dtype=np.int16).reshape(2, 4, 4)
    return write_ct(tmp_path_factory.mktemp("header"), stored, tags={"PixelPaddingValue": -2000})[0]


@pytest.fixture
def walked(monkeypatch) -> Callable[[Path], bool]:
    """Whether a file is read without pydicom."""

    def refuse(*_: object, **__: object) -> FileDataset:
        raise NotImplementedError

    def walks(path: Path) -> bool:
        with monkeypatch.context() as context:
            context.setattr(pydicom, "dcmread", refuse)
            try:
                return bool(dicom_header.read(path, TAGS))
            except NotImplementedError:
                return False

    return walks


def test_a_plain_file_is_walked_through(one, walked):
    assert walked(one)
    dataset = dicom_header.read(one, TAGS)
    assert told(dataset) == by_pydicom(one)
    assert dataset.file_meta.TransferSyntaxUID == PLAIN
    assert dataset["PixelPaddingValue"].value == -2000
    assert dicom_header.PIXELS not in dicom_header.read(
        one, {tag: TAGS[tag] for tag in TAGS if tag != dicom_header.PIXELS}
    )


def test_a_real_file_is_walked_through(real_data: Path, walked):
    for path in sorted((real_data / "lidc-dicom").rglob("*.dcm"))[::20]:
        assert walked(path)
        assert told(dicom_header.read(path, TAGS)) == by_pydicom(path)


@pytest.mark.parametrize(
    "change",
    [
        "trailing",
        "short",
        "long header",
        "disorder",
        "empty",
        "another syntax",
        "syntax of another VR",
        "no DICM",
        "a command first",
    ],
)
def test_any_other_file_is_left_to_pydicom(one, walked, tmp_path: Path, change: str):
    content = one.read_bytes()
    at = content.index(struct.pack("<HH2s", 0x0028, 0x0120, b"SS"))  # PixelPaddingValue, 10 bytes.
    changed = {
        "trailing": content + struct.pack("<HH2sHL", 0xFFFC, 0xFFFC, b"OB", 0, 2) + bytes(2),
        "short": content[:-1],
        "long header": content[:at]
        + struct.pack("<HH2sHL", 0x0028, 0x0119, b"OB", 0, 9000)
        + bytes(9000)
        + content[at:],
        "disorder": content[:at] + struct.pack("<HH2sH", 0x0010, 0x0020, b"LO", 0) + content[at:],
        "empty": content[: at + 6] + bytes(2) + content[at + 10 :],
        "another syntax": content.replace(PLAIN.encode() + b"\0", b"1.2.840.10008.1.2\0\0\0", 1),
        "syntax of another VR": content.replace(b"\2\0\x10\0UI", b"\2\0\x10\0LO", 1),
        "no DICM": content[:128] + b"DICX" + content[132:],
        "a command first": content[:132] + struct.pack("<HH2sHH", 0x0000, 0x0100, b"US", 2, 1) + content[132:],
    }
    path = tmp_path / "changed.dcm"
    path.write_bytes(changed[change])
    assert walked(one)
    assert not walked(path)


@MANY
@given(st.data())
@pytest.mark.filterwarnings("ignore")  # pydicom's, of values it doubts.
def test_whatever_pydicom_reads_is_the_same(one, tmp_path: Path, data):
    changed = bytearray(one.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(132, len(changed) - 2))
        new = data.draw(st.one_of(st.sampled_from([b"US", b"DS", b"UI", b"OB", b"SQ", b"zz"]), st.binary(max_size=3)))
        changed[at : at + data.draw(st.sampled_from([len(new), len(new), 0, 8]))] = new
    pixels = changed.rfind(struct.pack("<HH", 0x7FE0, 0x0010))
    if 0 <= pixels <= len(changed) - 12 and data.draw(st.booleans()):
        changed[pixels + 8 : pixels + 12] = struct.pack("<L", len(changed) - pixels - 12)  # So that more are walked.
    path = tmp_path / "changed.dcm"
    path.write_bytes(changed)
    walked = dicom_header._walk(bytes(changed), len(changed), TAGS)
    if walked is None:
        return
    try:
        expected = by_pydicom(path)
    except (AssertionError, AttributeError):
        raise
    except Exception:  # Over what is no business of ours: a character set, say.
        return
    assert told(dicom_header.read(path, TAGS)) == expected
