"""Reads a NIfTI-1 or NIfTI-2 file, `.nii` or `.nii.gz`: its header and its voxels.

Whether it is compressed is told by its first bytes, for files are renamed, and programs unpack them on the way.

It is read here and not by ITK, which also accepts older and two-file formats with the same suffix, and allocates
whatever memory a header asks for. nibabel 5.4, which writes our masks, does not read it either: nibabel stops before
gzip's checksum, so that a damaged `.nii.gz` silently gives other voxels, and it refuses a qform whose quaternion was
rounded to five digits, which ITK and we accept. tests/preparation/test_formats_nifti.py shows both.
"""

from __future__ import annotations

import dataclasses
import gzip
import math
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Literal, cast

import numpy as np

from lungjax.ct import faults, size_limits
from lungjax.ct.faults import Note
from lungjax.ct.volume import Geometry
from lungjax.errors import Fault

_MOST_OFFSET = 2**24
_CHUNK_BYTES = 2**20
_GZIP = b"\x1f\x8b"
_DEFLATE = 1032
"""The highest compression ratio that gzip can reach."""
_TYPES = {
    2: "u1",
    4: "i2",
    8: "i4",
    16: "f4",
    64: "f8",
    256: "i1",
    512: "u2",
    768: "u4",
    1024: "i8",
    1280: "u8",
}
Order = Literal["<", ">"]
_ORDERS: tuple[Order, ...] = ("<", ">")
_MM = {1: 1000.0, 3: 0.001}
"""Metres and micrometres by their codes in the format, as millimetres; any other code counts as millimetres."""
_SAME_VOXELS = 0.1
"""Share of a voxel by which the corners of a volume may differ in two affines that are the same: a qform is rounded."""
_TO_DICOM = np.array([[-1.0], [-1.0], [1.0]])
"""NIfTI's x and y point to the patient's right and front, DICOM's to the left and back."""


@dataclasses.dataclass(frozen=True)
class _Version:
    """Where a version of the format keeps what is read: formats of `struct` with their places in the header.

    Attributes:
      nbytes: of the header, which its first number repeats.
      magic, magic_at: what marks a header and its voxels in one file, and where.
      sizes: number of axes, then their sizes.
      datatype, offset, slopes, pixdim, codes, quaternion, rows: of the voxels, and of the two affines.
      units: the code of the unit of length.
    """

    nbytes: int
    magic: bytes
    magic_at: int
    sizes: tuple[str, int]
    datatype: tuple[str, int]
    offset: tuple[str, int]
    slopes: tuple[str, int]
    pixdim: tuple[str, int]
    codes: tuple[str, int]
    quaternion: tuple[str, int]
    rows: tuple[str, int]
    units: tuple[str, int]


_VERSIONS = (
    _Version(
        nbytes=348,
        magic=b"n+1\0",
        magic_at=344,
        sizes=("8h", 40),
        datatype=("h", 70),
        offset=("f", 108),
        slopes=("2f", 112),
        pixdim=("4f", 76),
        codes=("2h", 252),
        quaternion=("6f", 256),
        rows=("12f", 280),
        units=("B", 123),
    ),
    _Version(
        nbytes=540,
        magic=b"n+2\0\r\n\x1a\n",
        magic_at=4,
        sizes=("8q", 16),
        datatype=("h", 12),
        offset=("q", 168),
        slopes=("2d", 176),
        pixdim=("4d", 104),
        codes=("2i", 344),
        quaternion=("6d", 352),
        rows=("12d", 400),
        units=("i", 500),
    ),
)


class _Fields:
    """The numbers of a raw header, by the names of `_Version`."""

    def __init__(self, raw_header: bytes, version: _Version, order: Order):
        self._raw, self.version = raw_header, version
        self.order: Order = order

    def __getitem__(self, name: str) -> tuple:
        format, place = getattr(self.version, name)
        return struct.unpack_from(f"{self.order}{format}", self._raw, place)

    @classmethod
    def of(cls, raw_header: bytes) -> _Fields | None:
        """None where it is the header of no version."""
        for version in _VERSIONS:
            for order in _ORDERS:
                same_size = struct.unpack_from(f"{order}i", raw_header) == (version.nbytes,)
                if same_size and raw_header[version.magic_at :].startswith(version.magic):
                    return cls(raw_header, version, order)
        return None


@dataclasses.dataclass(frozen=True, eq=False)
class Header:
    """The contents of a header.

    Attributes:
      geometry: how the voxels lie in the patient.
      dtype: of one voxel, including the byte order.
      offset: where the voxels begin, in bytes.
      slope, intercept: values are slope * stored + intercept.
    """

    geometry: Geometry
    dtype: np.dtype
    offset: int
    slope: float
    intercept: float

    @property
    def nbytes(self) -> int:
        """Bytes of the voxels, uncompressed."""
        return math.prod(self.geometry.shape) * self.dtype.itemsize


def read_header(path: Path) -> Header:
    """Reads the header of a three-dimensional volume with one number per voxel; no voxel is read.

    Raises:
      Fault: `unreadable_file`, `not_3d`, `missing_orientation` or `too_large`.
    """
    try:
        compressed = _is_compressed(path)
        with _open(path) as file:
            raw_header = file.read(max(version.nbytes for version in _VERSIONS))
        have = path.stat().st_size
    except (OSError, EOFError, zlib.error) as error:
        raise faults.cannot_read(path, error) from error
    least = min(version.nbytes for version in _VERSIONS)
    if len(raw_header) < least:
        raise _truncated(path, len(raw_header), least)
    fields = _Fields.of(raw_header)
    if fields is None:
        raise Fault(
            "unreadable_file", f"{path} is not a NIfTI file with a header and its voxels; convert the original again"
        )
    if len(raw_header) < fields.version.nbytes:
        raise _truncated(path, len(raw_header), fields.version.nbytes)
    header = _parse(fields, path)
    size_limits.check(header.nbytes, size_limits.SCAN_BYTES, f"{path}, by the bytes of its voxels,")
    if not compressed and have < header.offset + header.nbytes:
        raise _truncated(path, have, header.offset + header.nbytes)
    if have * _DEFLATE < header.nbytes:
        raise _truncated(path, have * _DEFLATE, header.nbytes)
    return header


def read_voxels(path: Path, header: Header) -> np.ndarray:
    """Reads the voxels: (slices, rows, columns) in the order of the file, scaled with the header's slope and intercept.

    Raises:
      Fault: `unreadable_file`.
    """
    voxels = np.empty(header.geometry.shape, header.dtype)
    try:
        with _open(path) as file:
            file.seek(header.offset)
            have = _fill(file, voxels.reshape(-1).view(np.uint8).data)
            if _is_compressed(path):  # Read to the end, where the checksum is, but not without limit.
                for _ in range(1 + header.nbytes // _CHUNK_BYTES):
                    if not file.read(_CHUNK_BYTES):
                        break
    except (OSError, EOFError, zlib.error) as error:
        raise faults.cannot_read(path, error) from error
    if have < header.nbytes:
        raise _truncated(path, header.offset + have, header.offset + header.nbytes)
    return _scaled(voxels, header)


def read_planes(path: Path, header: Header, numbers: Sequence[int]) -> np.ndarray:
    """As `read_voxels`, but only the slices of these ascending numbers.

    Raises:
      Fault: `unreadable_file`.
    """
    voxels = np.empty((len(numbers), *header.geometry.shape[1:]), header.dtype)
    try:
        with _open(path) as file:
            for number, plane in zip(numbers, voxels, strict=True):
                file.seek(header.offset + number * plane.nbytes)
                if _fill(file, plane.reshape(-1).view(np.uint8).data) < plane.nbytes:
                    raise Fault("unreadable_file", f"{path} is truncated: slice {number} is not whole; fetch it again")
    except (OSError, EOFError, zlib.error) as error:
        raise faults.cannot_read(path, error) from error
    return _scaled(voxels, header)


def _scaled(voxels: np.ndarray, header: Header) -> np.ndarray:
    voxels = voxels.astype(header.dtype.newbyteorder("="), copy=False)
    if (header.slope, header.intercept) == (1, 0):
        return voxels
    floats = np.float64 if header.dtype.itemsize > 2 else np.float32
    with np.errstate(over="ignore", invalid="ignore"):  # What does not fit becomes infinite, which is not HU.
        return voxels.astype(floats) * floats(header.slope) + floats(header.intercept)


def _parse(fields: _Fields, path: Path) -> Header:
    count, *sizes = fields["sizes"]
    (datatype,) = fields["datatype"]
    if not 3 <= count <= 7 or any(size > 1 for size in sizes[3:count]) or (datatype not in _TYPES and datatype > 0):
        shape = f"{' x '.join(map(str, sizes[: max(count, 0)]))} of data type {datatype}"
        raise Fault("not_3d", f"{path} is not a volume with one number per voxel: {shape}")
    offset, (slope, intercept) = float(fields["offset"][0]), fields["slopes"]
    least = fields.version.nbytes
    if offset == 0:
        offset = float(least + 4)
    if datatype not in _TYPES or not (least <= offset <= _MOST_OFFSET and offset.is_integer()):
        what = f"voxels of data type {datatype} from byte {offset:g} on"
        raise Fault("unreadable_file", f"{path} has {what}, which is impossible; convert the original again")
    if not (math.isfinite(slope) and math.isfinite(intercept)) or slope == 0:
        slope, intercept = 1.0, 0.0  # Not scaled, by the format's definition.
    dtype = np.dtype(_TYPES[datatype]).newbyteorder(fields.order)
    return Header(_geometry(fields, sizes[:3], path), dtype, int(offset), slope, intercept)


@np.errstate(over="ignore", invalid="ignore")  # What a float64 cannot hold becomes infinite, which is refused.
def _geometry(fields: _Fields, sizes: Sequence[int], path: Path) -> Geometry:
    """The geometry of the sform; that of the qform where there is no sform, or the sform is no affine of the voxels."""
    qfac, *pixdim = fields["pixdim"]
    qform_code, sform_code = fields["codes"]
    if qform_code <= 0 and sform_code <= 0:
        raise Fault(
            "missing_orientation", f"{path} does not give its orientation in the patient (qform and sform are 0)"
        )
    if not all(0 < abs(step) < math.inf for step in pixdim):
        raise Fault(
            "unreadable_file", f"{path} has voxels of {pixdim} mm, which is impossible; convert the original again"
        )
    mm = _MM.get(fields["units"][0] & 7, 1.0)
    matrices = {}
    if sform_code > 0:
        matrices["sform"] = np.array(fields["rows"], np.float64).reshape(3, 4)
    if qform_code > 0:
        matrices["qform"] = _qform(fields["quaternion"], -1.0 if qfac < 0 else 1.0, pixdim)
    faults: dict[str, Fault] = {}
    geometries: dict[str, Geometry] = {}
    for name, matrix in matrices.items():
        try:
            geometries[name] = _geometry_of(mm * matrix, mm * np.abs(pixdim), sizes, path)
        except Fault as fault:
            if fault.name == "gantry_tilt":  # What is sheared stays so, whatever the qform, which cannot tell it, says.
                raise
            faults[name] = fault
    if not geometries:
        raise next(iter(faults.values()))
    notes: tuple[Note, ...] = ()
    if len(geometries) == 2:
        notes = _disagreement(geometries["sform"], geometries["qform"], sform_code, path)
    elif faults:
        ((bad,), (taken,)) = faults, geometries
        message = f"{path} has a {bad} that is no affine of voxels of its pixdim; the {taken} was taken"
        notes = (Note("two_affines", message),)
    return dataclasses.replace(next(iter(geometries.values())), notes=notes)


def _geometry_of(matrix_mm: np.ndarray, spacing_mm: np.ndarray, sizes: Sequence[int], path: Path) -> Geometry:
    affine_lps = matrix_mm * _TO_DICOM
    steps_mm = np.linalg.norm(affine_lps[:, :3], axis=0)
    if not np.allclose(steps_mm, spacing_mm, rtol=0.01):  # NaN fails here, too.
        message = f"{path} has steps of {steps_mm.tolist()} by its affine but {spacing_mm.tolist()} by its pixdim"
        raise Fault("unreadable_file", f"{message}; convert the original again")
    geometry = Geometry.from_header(
        sizes=sizes,
        spacing_mm=spacing_mm.tolist(),
        origin_mm=affine_lps[:, 3].tolist(),
        directions=affine_lps[:, :3] / np.where(steps_mm > 0, steps_mm, 1.0),
        path=path,
    )
    return dataclasses.replace(geometry, affine_ras=np.vstack([matrix_mm, (0, 0, 0, 1)]))


def _disagreement(sform: Geometry, qform: Geometry, sform_code: int, path: Path) -> tuple[Note, ...]:
    """A note where both place a corner of the volume differently by more than rounding."""
    ends = np.array([[0, size - 1] for size in sform.shape[::-1]])
    corners = np.stack(np.meshgrid(*ends, indexing="ij"), axis=-1).reshape(-1, 3)
    places = [corners @ (geometry.directions * geometry.steps_mm).T + geometry.origin_mm for geometry in (sform, qform)]
    if np.abs(places[0] - places[1]).max() <= _SAME_VOXELS * sform.steps_mm.min():
        return ()
    where = [", ".join(f"{mm:.6g}" for mm in place[0]) for place in places]
    others = "as nibabel and SimpleITK do"
    if sform_code != 1:
        others = f"as nibabel does; SimpleITK takes the qform, for the sform's code is {sform_code}"
    message = (
        f"{path} has a sform and a qform that disagree: its first voxel lies at ({where[0]}) mm by the sform, at "
        f"({where[1]}) mm by the qform (left, back, head); the sform was taken, {others}"
    )
    return (Note("two_affines", message),)


def _qform(numbers: Sequence[float], qfac: float, pixdim: Sequence[float]) -> np.ndarray:
    """(3, 4): the affine from a unit quaternion's b, c, d and an offset, as the format defines it."""
    b, c, d = numbers[:3]
    a = math.sqrt(max(1 - b * b - c * c - d * d, 0))
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    return np.hstack([rotation * np.abs(pixdim) * (1, 1, qfac), np.reshape(numbers[3:], (3, 1))])


def _is_compressed(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == _GZIP


def _open(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path) if _is_compressed(path) else path.open("rb"))


def _fill(file: BinaryIO, room: memoryview) -> int:
    """Reads from the file until `room` is full; returns the number of bytes read."""
    have = 0
    while have < len(room) and (got := file.readinto(room[have : have + _CHUNK_BYTES])):  # pyright: ignore
        have += got
    return have


def _truncated(path: Path, have: int, need: int) -> Fault:
    return Fault("unreadable_file", f"{path} is truncated: it has {have} of {need} bytes; fetch it again")
