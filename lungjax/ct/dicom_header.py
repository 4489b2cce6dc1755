"""Reads the header of a DICOM file: with a short parser if it is written as LIDC-IDRI's are, otherwise with pydicom.

For such a header pydicom takes several times as long as reading the pixels does.
"""

from __future__ import annotations

import functools
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from struct import Struct
from typing import Any

import pydicom
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.tag import BaseTag, Tag
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32, VR

from lungjax.ct import size_limits

PIXELS = int(Tag("PixelData"))

_DEFERRED_BYTES = 2**12
"""Longer elements stay in the file."""
_START_BYTES = 2**13
"""Longer headers are left to pydicom; LIDC-IDRI's have 2 kB."""
_ELEMENT, _LENGTH = Struct("<HH2sH").unpack_from, Struct("<L").unpack_from
_IS_LONG = {str(vr).encode(): vr in EXPLICIT_VR_LENGTH_32 for vr in VR}
"""For each VR, whether the length of an element is stored in four bytes."""
_SYNTAX = int(Tag("TransferSyntaxUID"))
_PLAIN = str(ExplicitVRLittleEndian).encode() + b"\0"
_DEFLATED = str(DeflatedExplicitVRLittleEndian).encode()
_CHUNK_BYTES = 2**20
_FIRST = {(2, 0), (2, 1), (2, 2), (8, 0), (8, 1), (8, 5), (8, 8), (8, 0x12), (8, 0x16), (8, 0x18)}
"""Elements that a file without preamble begins with."""
_LONGEST_FIRST = 256
_TEXT = {VR.LO, VR.LT, VR.SH, VR.ST, VR.UC, VR.UT}
_META = FileMetaDataset()
_META.TransferSyntaxUID = ExplicitVRLittleEndian


def read(path: Path, tags: Mapping[int, BaseTag]) -> FileDataset:
    """Reads some elements of a file; long values stay in the file. `file_meta` has at least the transfer syntax.

    Args:
      path: the file.
      tags: the elements to read, by tag number. Without `PIXELS` the file is not read beyond its header.

    Raises:
      Fault: `too_large` where a deflated file inflates to more than any slice takes.
      Exception: whatever pydicom raises for a broken file.
    """
    with path.open("rb", buffering=0) as file:
        start, size = file.read(_START_BYTES), os.fstat(file.fileno()).st_size
    elements = _walk(start, size, tags)
    if elements is not None:
        return FileDataset(path, elements, None, _META, is_implicit_VR=False, is_little_endian=True)
    _check_inflated(path, start)
    deferred = {"stop_before_pixels": PIXELS not in tags, "defer_size": _DEFERRED_BYTES}
    return read_all(path, specific_tags=[*tags.values()], **deferred)


def is_dicom(start: bytes) -> bool:
    """Whether a file begins as DICOM does: with a preamble, or without one, as some archives store it."""
    return start[128:132] == b"DICM" or _is_bare(start)


def _is_bare(start: bytes) -> bool:
    """Whether a file begins with an element of its first groups: explicit VR, or implicit with a short value."""
    if len(start) < 12:
        return False
    group, number, vr, _ = _ELEMENT(start, 0)
    (length,) = _LENGTH(start, 4)
    return (group, number) in _FIRST and (vr in _IS_LONG or length <= _LONGEST_FIRST)


def read_all(path: Path, **options: Any) -> FileDataset:
    """What `pydicom.dcmread` reads, also of a file without preamble.

    Raises:
      Exception: whatever pydicom raises for a broken file.
    """
    with path.open("rb") as file:
        is_bare = (start := file.read(132))[128:] != b"DICM" and _is_bare(start)
    dataset = pydicom.dcmread(path, force=is_bare, **options)
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = dataset.original_encoding
        plain = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = plain
    for element in list(dataset.values()):
        if isinstance(element, RawDataElement) and (mended := mend_number(element)) is not element:
            dataset[element.tag] = mended
    return dataset


def mend_number(element: RawDataElement) -> RawDataElement:
    """A decimal number as DICOM writes it, where a writer used the comma of its country, or called it a text.

    DICOM allows no comma in a decimal number, so what it means is not in doubt.
    """
    written = element.value
    if not isinstance(written, bytes) or not _is_decimal(int(element.tag)):
        return element
    if element.VR in _TEXT:
        element = element._replace(VR=VR.DS)
    if element.VR not in (VR.DS, None) or b"," not in written:
        return element
    return element._replace(value=written.replace(b",", b"."))


@functools.lru_cache(maxsize=1024)
def _is_decimal(tag: int) -> bool:
    try:
        return dictionary_VR(tag) == VR.DS
    except KeyError:  # A private tag.
        return False


def value_of(dataset: Dataset, name: str) -> Any:
    """The value of an attribute, its number mended; None where it is missing."""
    element = dataset.get_item(name) if name in dataset else None
    if isinstance(element, RawDataElement) and (mended := mend_number(element)) is not element:
        dataset[element.tag] = mended
    return dataset.get(name)


def _walk(start: bytes, size: int, tags: Mapping[int, BaseTag]) -> dict[BaseTag, DataElement | RawDataElement] | None:
    """Parses the elements in the `start` of a file of `size` bytes; None where pydicom might read something else.

    Both agree where elements are explicit VR, little endian, uncompressed and in order, and nothing follows the pixels.
    """
    if start[128:132] != b"DICM":
        return None
    elements: dict[BaseTag, DataElement | RawDataElement] = {}
    syntax = b""
    at, end = 132, len(start) - 12  # At most 12 bytes precede a value.
    last = 0x0001FFFF  # Before the file's meta information pydicom reads nothing else.
    while at <= end:
        group, number, vr, length = _ELEMENT(start, at)
        at += 8
        tag = group << 16 | number
        if tag <= last or vr not in _IS_LONG:
            return None
        if _IS_LONG[vr]:
            (length,) = _LENGTH(start, at)
            at += 4
        if tag == PIXELS:
            if syntax != _PLAIN or length != size - at:
                return None
            if PIXELS in tags:
                elements[tags[tag]] = RawDataElement(tags[tag], vr.decode(), length, None, at, False, True)
            return elements
        if tag == _SYNTAX and vr == b"UI":
            syntax = start[at : at + length]
        elif tag in tags:
            if not length or vr == b"SQ":  # pydicom handles empty values, which depend on the VR, and sequences.
                return None
            value = start[at : at + length]
            elements[tags[tag]] = RawDataElement(tags[tag], vr.decode(), length, value, at, False, True)
        last = tag
        at += length
    return None


def _check_inflated(path: Path, start: bytes) -> None:
    """Checks the inflated size of a deflated file before pydicom inflates it all at once."""
    at, end = 132, len(start) - 12
    syntax = b""
    while at <= end and start[at : at + 2] == b"\2\0":  # The group with the transfer syntax is never deflated.
        group, number, vr, length = _ELEMENT(start, at)
        at += 8
        if _IS_LONG.get(vr, False):
            (length,) = _LENGTH(start, at)
            at += 4
        if group << 16 | number == _SYNTAX:
            syntax = start[at : at + length]
        at += length
    if syntax.rstrip(b"\0 ") != _DEFLATED:
        return
    inflate, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
    with path.open("rb") as file:
        file.seek(at)
        while (deflated := inflate.unconsumed_tail or file.read(_CHUNK_BYTES)) and not inflate.eof:
            size += len(inflate.decompress(deflated, _CHUNK_BYTES))
            size_limits.check(size, size_limits.SLICE_BYTES, f"{path} inflated")
