"""MetaImage: a header of `Key = value` lines, and its voxels in the file of their own that it names.

Read here and not by ITK, whose reader believes a header: some make it read other files, some end the process.
"""

from __future__ import annotations

import dataclasses
import math
import re
import zlib
from pathlib import Path

import numpy as np

from lungjax.ct import size_limits
from lungjax.ct.volume import Geometry
from lungjax.errors import Fault

_HEADER_BYTES = 2**16
_CHUNK_BYTES = 2**20
_DEFLATE = 1032
"""How many times smaller zlib can make anything at best."""
_ZLIB_OR_GZIP = 47
_LINE = re.compile(r"\s*(\w+)\s*=\s*(.*?)\s*")
_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
_OTHER_NAMES = {
    "Position": "Offset",
    "Origin": "Offset",
    "Rotation": "TransformMatrix",
    "Orientation": "TransformMatrix",
    "ElementByteOrderMSB": "BinaryDataByteOrderMSB",
}
_IDENTITY = "1 0 0 0 1 0 0 0 1"


@dataclasses.dataclass(frozen=True, eq=False)
class Header:
    """What a header says, and the file of voxels, which is there and, if it is not packed, long enough.

    Attributes:
      geometry: how the voxels lie.
      content: their file, beside the header's.
      packed: whether they are compressed there.
      dtype: of one voxel, byte order and all.
    """

    geometry: Geometry
    content: Path
    packed: bool
    dtype: np.dtype

    @property
    def need(self) -> int:
        """Bytes of the voxels, unpacked."""
        return math.prod(self.geometry.shape) * self.dtype.itemsize


def read_header(path: Path) -> Header:
    """The header of an image of three dimensions and one number a voxel; no voxel is read.

    Raises:
      Fault: `unreadable_file`, `missing_file`, `not_3d` or `too_large`.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_HEADER_BYTES).decode("latin-1")
        fields = _fields(text)
        dtype = np.dtype(_TYPES[fields.get("ElementType", "")]).newbyteorder(
            ">" if _is_true(fields, "BinaryDataByteOrderMSB") else "<"
        )
        geometry = _geometry(fields, path)
    except OSError as error:
        raise Fault("unreadable_file", f"{path} cannot be read ({error.strerror}); fetch it again") from error
    except KeyError as error:
        raise Fault("unreadable_file", f"{path} has no {error.args[0] or 'ElementType'}; fetch it again") from error
    except (ValueError, OverflowError) as error:
        raise Fault("unreadable_file", f"{path} cannot be read ({error}); fetch it again") from error
    packed = _is_true(fields, "CompressedData")
    header = Header(geometry, _content(fields.get("ElementDataFile", ""), path), packed, dtype)
    size_limits.check(header.need, size_limits.SCAN_BYTES, f"{path}, by the bytes of its voxels,")
    have = header.content.stat().st_size * (_DEFLATE if packed else 1)
    if have < header.need:
        raise _cut_short(header.content, have, header.need)
    return header


def read_voxels(header: Header) -> np.ndarray:
    """(slices, rows, columns) in the order of the file, in the machine's byte order.

    Raises:
      Fault: `unreadable_file`.
    """
    try:
        voxels = np.frombuffer(_unpacked(header), header.dtype) if header.packed else _plain(header)
    except (OSError, zlib.error, ValueError) as error:
        raise Fault("unreadable_file", f"{header.content} cannot be read ({error}); fetch it again") from error
    if voxels.nbytes < header.need:
        raise _cut_short(header.content, voxels.nbytes, header.need)
    return voxels.astype(header.dtype.newbyteorder("="), copy=False).reshape(header.geometry.shape)


def _fields(text: str) -> dict[str, str]:
    """Keys and values up to the file of voxels, which ends a header; keys of old are given their names of today."""
    fields: dict[str, str] = {}
    for line in filter(str.strip, text.split("\n")):
        part = _LINE.fullmatch(line)
        if part is None:
            raise ValueError(f"it holds the line {line.strip()[:40]!r}")
        key = _OTHER_NAMES.get(part[1], part[1])
        if key in fields:
            raise ValueError(f"it says {key} twice")
        fields[key] = part[2]
        if key == "ElementDataFile":
            break
    for key, only in (("ObjectType", "Image"), ("BinaryData", "True"), ("HeaderSize", "0")):
        if fields.get(key, only) != only:
            raise ValueError(f"its {key} is {fields[key][:40]!r}, not {only}")
    if "ElementType" in fields and fields["ElementType"] not in _TYPES:
        raise ValueError(f"its ElementType is {fields['ElementType'][:40]!r}")
    return fields


def _is_true(fields: dict[str, str], key: str) -> bool:
    return fields.get(key, "False").lower() in ("true", "1")


def _geometry(fields: dict[str, str], path: Path) -> Geometry:
    sizes = [int(size) for size in fields["DimSize"].split()]
    channels = fields.get("ElementNumberOfChannels", "1")
    if fields["NDims"] != "3" or channels != "1":
        shape = f"{' x '.join(map(str, sizes[:4]))} with {channels[:9]} numbers a voxel"
        raise Fault("not_3d", f"{path} is no volume of one number a voxel: {shape}")
    return Geometry.of(
        sizes=sizes,
        spacing_mm=_floats(fields.get("ElementSpacing", fields.get("ElementSize", ""))),
        origin_mm=_floats(fields.get("Offset", "0 0 0")),
        directions=np.array(_floats(fields.get("TransformMatrix", _IDENTITY))).reshape(3, 3).T,
        path=path,
    )


def _floats(text: str) -> list[float]:
    return [float(word) for word in text.split()]


def _content(named: str, path: Path) -> Path:
    """The file of voxels; only one beside the header will do."""
    if Path(named).name != named or not named.endswith((".raw", ".zraw")) or "\0" in named:
        raise Fault("unreadable_file", f"{path} names no .raw or .zraw file beside it; fetch it again")
    content = path.with_name(named)
    try:
        if content.is_file():
            return content
    except OSError:  # A name that is too long for any file.
        pass
    raise Fault("missing_file", f"{content} is missing, which {path.name} says holds its voxels; fetch it")


def _plain(header: Header) -> np.ndarray:
    with header.content.open("rb") as file:
        return np.fromfile(file, header.dtype, math.prod(header.geometry.shape))


def _unpacked(header: Header) -> bytearray:
    """To its end, where the checksum is, and never more than is needed."""
    voxels, stream = bytearray(), zlib.decompressobj(_ZLIB_OR_GZIP)
    with header.content.open("rb") as file:
        while not stream.eof:
            packed = stream.unconsumed_tail or file.read(_CHUNK_BYTES)
            if not packed:
                raise _cut_short(header.content, len(voxels), header.need)
            voxels += stream.decompress(packed, header.need + 1 - len(voxels))
            if len(voxels) > header.need:
                raise ValueError(f"it unpacks to more than the {header.need} bytes that its header says")
    return voxels


def _cut_short(content: Path, have: int, need: int) -> Fault:
    return Fault("unreadable_file", f"{content} is cut short: it has {have} of {need} bytes; fetch it again")
