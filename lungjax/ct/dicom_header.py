"""The header of a DICOM file: by a short walk if it is written as LIDC-IDRI's are, by pydicom if in any other way.

pydicom takes several times as long for such a header as it takes to read the pixels.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from struct import Struct

import pydicom
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.tag import BaseTag, Tag
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32, VR

from lungjax.ct import size_limits

PIXELS = int(Tag("PixelData"))

_DEFERRED_BYTES = 2**12
"""Longer elements stay in the file."""
_START_BYTES = 2**13
"""A header that is longer is left to pydicom; LIDC-IDRI's have 2 kB."""
_ELEMENT, _LENGTH = Struct("<HH2sH").unpack_from, Struct("<L").unpack_from
_IS_LONG = {str(vr).encode(): vr in EXPLICIT_VR_LENGTH_32 for vr in VR}
"""Whether the length of an element takes four bytes, by its VR."""
_SYNTAX = int(Tag("TransferSyntaxUID"))
_PLAIN = str(ExplicitVRLittleEndian).encode() + b"\0"
_DEFLATED = str(DeflatedExplicitVRLittleEndian).encode()
_PIECE_BYTES = 2**20
_META = FileMetaDataset()
_META.TransferSyntaxUID = ExplicitVRLittleEndian


def read(path: Path, tags: Mapping[int, BaseTag]) -> FileDataset:
    """Some elements of a file, values of many bytes left in it; of its `file_meta`, the transfer syntax for certain.

    Args:
      path: the file.
      tags: which elements, by their numbers. Without `PIXELS` the file is not read beyond its header.

    Raises:
      Fault: `too_large` where a deflated file becomes more than any slice.
      Exception: whatever pydicom raises over a broken file.
    """
    with path.open("rb", buffering=0) as file:
        start, size = file.read(_START_BYTES), os.fstat(file.fileno()).st_size
    elements = _walk(start, size, tags)
    if elements is not None:
        return FileDataset(path, elements, None, _META, is_implicit_VR=False, is_little_endian=True)
    _check_inflated(path, start)
    deferred = {"stop_before_pixels": PIXELS not in tags, "defer_size": _DEFERRED_BYTES}
    return pydicom.dcmread(path, specific_tags=[*tags.values()], **deferred)


def _walk(start: bytes, size: int, tags: Mapping[int, BaseTag]) -> dict[BaseTag, DataElement | RawDataElement] | None:
    """Elements in the `start` of a file of `size` bytes; None where pydicom might see others.

    It cannot where they are explicit VR, little endian, not compressed, in order, and nothing follows the pixels.
    """
    if start[128:132] != b"DICM":
        return None
    found: dict[BaseTag, DataElement | RawDataElement] = {}
    syntax = b""
    at, last, end = 132, 0, len(start) - 12  # What comes before a value takes 12 bytes at most.
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
                found[tags[tag]] = RawDataElement(tags[tag], vr.decode(), length, None, at, False, True)
            return found
        if tag == _SYNTAX and vr == b"UI":
            syntax = start[at : at + length]
        elif tag in tags:
            if not length or vr == b"SQ":  # What an empty value is depends on its VR; a sequence is for pydicom.
                return None
            value = start[at : at + length]
            found[tags[tag]] = RawDataElement(tags[tag], vr.decode(), length, value, at, False, True)
        last = tag
        at += length
    return None


def _check_inflated(path: Path, start: bytes) -> None:
    """Before pydicom inflates a deflated file, which it does all at once."""
    at, end = 132, len(start) - 12
    syntax = b""
    while at <= end and start[at : at + 2] == b"\2\0":  # The group that says how the rest is written is never packed.
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
        while (packed := inflate.unconsumed_tail or file.read(_PIECE_BYTES)) and not inflate.eof:
            size += len(inflate.decompress(packed, _PIECE_BYTES))
            size_limits.check(size, size_limits.SLICE_BYTES, f"{path} inflated")
