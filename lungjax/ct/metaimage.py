"""MetaImage: a header of `Key = value` lines, with the voxels in a file of their own (`.mhd`) or behind it (`.mha`).

It is read here and not by ITK, whose reader trusts the header: some headers make it read other files, others make it
end the process.
"""

from __future__ import annotations

import dataclasses
import io
import math
import zlib
from pathlib import Path

import numpy as np

from lungjax.ct import faults, size_limits
from lungjax.ct.volume import Geometry
from lungjax.errors import Fault

_HEADER_BYTES = 2**16
_CHUNK_BYTES = 2**20
_DEFLATE = 1032
"""The highest compression ratio that zlib can reach."""
_ZLIB_OR_GZIP = 47
_HERE = ("LOCAL", "Local", "local")
"""In place of a name: the voxels follow the header in the same file."""
_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
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
    """A header's contents and the file of voxels, which exists and, if it is not compressed, is long enough.

    Attributes:
      geometry: how the voxels lie in the patient.
      voxel_file: the file of voxels, in the folder of the header, or the header's own.
      offset: where the voxels begin in it, in bytes.
      compressed: whether they are compressed.
      dtype: of one voxel, including the byte order.
    """

    geometry: Geometry
    voxel_file: Path
    offset: int
    compressed: bool
    dtype: np.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of the voxels, uncompressed."""
        return math.prod(self.geometry.shape) * self.dtype.itemsize


def read_header(path: Path) -> Header:
    """Reads the header of a three-dimensional image with one number per voxel; no voxel is read.

    Raises:
      Fault: `unreadable_file`, `missing_file`, `not_3d` or `too_large`.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_HEADER_BYTES).decode("latin-1")
        fields, end = _fields(text)
        dtype = np.dtype(_TYPES[fields.get("ElementType", "")]).newbyteorder(
            ">" if _is_true(fields, "BinaryDataByteOrderMSB") else "<"
        )
        geometry = _geometry(fields, path)
    except OSError as error:
        raise faults.cannot_read(path, error) from error
    except KeyError as error:
        raise Fault(
            "unreadable_file", f"{path} has no {error.args[0] or 'ElementType'}; convert the original again"
        ) from error
    except (ValueError, OverflowError) as error:
        raise Fault("unreadable_file", f"{path} cannot be read ({error}); convert the original again") from error
    compressed = _is_true(fields, "CompressedData")
    name = fields.get("ElementDataFile", "")
    voxel_file, offset = (path, end) if name in _HERE else (_voxel_file(name, path), 0)
    header = Header(geometry, voxel_file, offset, compressed, dtype)
    size_limits.check(header.nbytes, size_limits.SCAN_BYTES, f"{path}, by the bytes of its voxels,")
    have = max(header.voxel_file.stat().st_size - offset, 0) * (_DEFLATE if compressed else 1)
    if have < header.nbytes:
        raise _truncated(header.voxel_file, have, header.nbytes)
    return header


def read_voxels(header: Header) -> np.ndarray:
    """Reads the voxels: (slices, rows, columns) in the order of the file, in the machine's byte order.

    Raises:
      Fault: `unreadable_file`.
    """
    try:
        voxels = np.frombuffer(_decompress(header), header.dtype) if header.compressed else _read_plain(header)
    except (OSError, zlib.error, ValueError) as error:
        raise faults.cannot_read(header.voxel_file, error) from error
    if voxels.nbytes < header.nbytes:
        raise _truncated(header.voxel_file, voxels.nbytes, header.nbytes)
    return voxels.astype(header.dtype.newbyteorder("="), copy=False).reshape(header.geometry.shape)


def _fields(text: str) -> tuple[dict[str, str], int]:
    """Keys and values up to the name of the voxel file, which ends a header, and where it ends in `text`.

    Old keys get their current names. Keys may be of any characters: ITK adds what else it knows of an image, as
    `0008|0060 = CT` of DICOM.
    """
    fields: dict[str, str] = {}
    end = 0
    for line in io.StringIO(text):
        end += len(line)
        if not line.strip():
            continue
        key, equals, value = (part.strip() for part in line.partition("="))
        if not (key and equals):
            raise ValueError(f"it has the line {line.strip()[:40]!r}")
        key = _OTHER_NAMES.get(key, key)
        if key in fields:
            raise ValueError(f"it has {key} twice")
        fields[key] = value
        if key == "ElementDataFile":
            break
    for key, expected in (("ObjectType", "Image"), ("BinaryData", "True"), ("HeaderSize", "0")):
        if fields.get(key, expected) != expected:
            raise ValueError(f"its {key} is {fields[key][:40]!r}, not {expected}")
    if "ElementType" in fields and fields["ElementType"] not in _TYPES:
        raise ValueError(f"its ElementType is {fields['ElementType'][:40]!r}")
    return fields, end


def _is_true(fields: dict[str, str], key: str) -> bool:
    return fields.get(key, "False").lower() in ("true", "1")


def _geometry(fields: dict[str, str], path: Path) -> Geometry:
    sizes = [int(size) for size in fields["DimSize"].split()]
    channels = fields.get("ElementNumberOfChannels", "1")
    if fields["NDims"] != "3" or channels != "1":
        shape = f"{' x '.join(map(str, sizes[:4]))} with {channels[:9]} numbers per voxel"
        raise Fault("not_3d", f"{path} is not a volume with one number per voxel: {shape}")
    return Geometry.from_header(
        sizes=sizes,
        spacing_mm=_floats(fields.get("ElementSpacing", fields.get("ElementSize", ""))),
        origin_mm=_floats(fields.get("Offset", "0 0 0")),
        directions=np.array(_floats(fields.get("TransformMatrix", _IDENTITY))).reshape(3, 3).T,
        path=path,
    )


def _floats(text: str) -> list[float]:
    return [float(word) for word in text.split()]


def _voxel_file(name: str, path: Path) -> Path:
    """A file of voxels, which must lie in the folder of the header."""
    if Path(name).name != name or not name.lower().endswith((".raw", ".zraw")) or "\0" in name:
        message = f"{path} neither holds its voxels nor names a .raw or .zraw file in its folder"
        raise Fault("unreadable_file", f"{message}; convert the original again")
    voxel_file = path.with_name(name)
    try:
        if voxel_file.is_file():
            return voxel_file
    except OSError:  # The name is too long for any file.
        pass
    raise Fault("missing_file", f"{voxel_file} is missing; {path.name} names it as the file of its voxels; fetch it")


def _read_plain(header: Header) -> np.ndarray:
    return np.fromfile(header.voxel_file, header.dtype, math.prod(header.geometry.shape), offset=header.offset)


def _decompress(header: Header) -> bytearray:
    """Decompresses to the end, where the checksum is, but never more than `header.nbytes`."""
    voxels, stream = bytearray(), zlib.decompressobj(_ZLIB_OR_GZIP)
    with header.voxel_file.open("rb") as file:
        file.seek(header.offset)
        while not stream.eof:
            chunk = stream.unconsumed_tail or file.read(_CHUNK_BYTES)
            if not chunk:
                raise _truncated(header.voxel_file, len(voxels), header.nbytes)
            voxels += stream.decompress(chunk, header.nbytes + 1 - len(voxels))
            if len(voxels) > header.nbytes:
                raise ValueError(f"it unpacks to more than the {header.nbytes} bytes of its header")
    return voxels


def _truncated(path: Path, have: int, need: int) -> Fault:
    return Fault("unreadable_file", f"{path} is truncated: it has {have} of {need} bytes; fetch it again")
