"""One file of NIfTI-1, `.nii` or `.nii.gz`: its header, and its voxels.

Read here and not by ITK, which takes older and two-file formats of the same suffix for it, and memory as a header asks;
nor by nibabel 5.4, which writes our masks: it stops before gzip's checksum, so that a damaged `.nii.gz` gives other
voxels without a word, and refuses a qform whose quaternion was rounded to five digits, which ITK and we read. Both are
shown by tests/preparation/test_formats_nifti.py.
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

from lungjax.ct import size_limits
from lungjax.ct.volume import Geometry
from lungjax.errors import Fault

_HEADER_BYTES = 348
_MAGIC = b"n+1\0"
"""A header and its voxels in one file."""
_LEAST_OFFSET, _MOST_OFFSET = 348, 2**24
_CHUNK_BYTES = 2**20
_DEFLATE = 1032
"""How many times smaller gzip can make anything at best."""
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
"""Metres and micrometres, by the format's code for them; anything else is taken for millimetres."""
_TO_DICOM = np.array([[-1.0], [-1.0], [1.0]])
"""NIfTI's x and y go to the patient's right and front."""


@dataclasses.dataclass(frozen=True, eq=False)
class Header:
    """What a header says.

    Attributes:
      geometry: how the voxels lie.
      dtype: of one voxel, byte order and all.
      offset: where they begin.
      slope, intercept: values are slope * stored + intercept.
    """

    geometry: Geometry
    dtype: np.dtype
    offset: int
    slope: float
    intercept: float

    @property
    def need(self) -> int:
        """Bytes of the voxels, unpacked."""
        return math.prod(self.geometry.shape) * self.dtype.itemsize


def read_header(path: Path) -> Header:
    """The header of a volume of three dimensions and one number a voxel; no voxel is read.

    Raises:
      Fault: `unreadable_file`, `not_3d`, `missing_orientation` or `too_large`.
    """
    try:
        with _opened(path) as file:
            held = file.read(_HEADER_BYTES)
        have = path.stat().st_size
    except (OSError, EOFError, zlib.error) as error:
        raise Fault("unreadable_file", f"{path} cannot be read ({error}); fetch it again") from error
    if len(held) < _HEADER_BYTES:
        raise _cut_short(path, len(held), _HEADER_BYTES)
    order: Order | None = next(
        (one for one in _ORDERS if struct.unpack_from(f"{one}i", held) == (_HEADER_BYTES,)), None
    )
    if order is None or held[344:] != _MAGIC:
        raise Fault("unreadable_file", f"{path} is no NIfTI-1 file of a header and its voxels; fetch it again")
    header = _parse(held, order, path)
    size_limits.check(header.need, size_limits.SCAN_BYTES, f"{path}, by the bytes of its voxels,")
    if not _is_packed(path) and have < header.offset + header.need:
        raise _cut_short(path, have, header.offset + header.need)
    if have * _DEFLATE < header.need:
        raise _cut_short(path, have * _DEFLATE, header.need)
    return header


def read_voxels(path: Path, header: Header) -> np.ndarray:
    """(slices, rows, columns) in the order of the file, scaled as its header says.

    Raises:
      Fault: `unreadable_file`.
    """
    voxels = np.empty(header.geometry.shape, header.dtype)
    try:
        with _opened(path) as file:
            file.seek(header.offset)
            have = _fill(file, voxels.reshape(-1).view(np.uint8).data)
            if _is_packed(path):  # To its end, where the checksum is, but not without end.
                for _ in range(1 + header.need // _CHUNK_BYTES):
                    if not file.read(_CHUNK_BYTES):
                        break
    except (OSError, EOFError, zlib.error) as error:
        raise Fault("unreadable_file", f"{path} cannot be read ({error}); fetch it again") from error
    if have < header.need:
        raise _cut_short(path, header.offset + have, header.offset + header.need)
    voxels = voxels.astype(header.dtype.newbyteorder("="), copy=False)
    if (header.slope, header.intercept) == (1, 0):
        return voxels
    floats = np.float64 if header.dtype.itemsize > 2 else np.float32
    with np.errstate(over="ignore", invalid="ignore"):  # What does not fit is infinite, and so no HU.
        return voxels.astype(floats) * floats(header.slope) + floats(header.intercept)


def _parse(held: bytes, order: Order, path: Path) -> Header:
    count, *sizes = struct.unpack_from(f"{order}8h", held, 40)
    (kind,) = struct.unpack_from(f"{order}h", held, 70)
    if not 3 <= count <= 7 or any(size > 1 for size in sizes[3:count]) or (kind not in _TYPES and kind > 0):
        shape = f"{' x '.join(map(str, sizes[: max(count, 0)]))} of the type {kind}"
        raise Fault("not_3d", f"{path} is no volume of one number a voxel: {shape}")
    offset, slope, intercept = struct.unpack_from(f"{order}3f", held, 108)
    if offset == 0:
        offset = float(_LEAST_OFFSET + 4)
    if kind not in _TYPES or not (_LEAST_OFFSET <= offset <= _MOST_OFFSET and offset.is_integer()):
        what = f"voxels of the type {kind} from byte {offset:g} on"
        raise Fault("unreadable_file", f"{path} has {what}, which cannot be; fetch it again")
    if not (math.isfinite(slope) and math.isfinite(intercept)) or slope == 0:
        slope, intercept = 1.0, 0.0  # As the format has it: not scaled.
    dtype = np.dtype(_TYPES[kind]).newbyteorder(order)
    return Header(_geometry(held, order, sizes[:3], path), dtype, int(offset), slope, intercept)


def _geometry(held: bytes, order: str, sizes: Sequence[int], path: Path) -> Geometry:
    """By the sform, or where there is none, or it is no rotation, by the qform."""
    qfac, *pixdim = struct.unpack_from(f"{order}4f", held, 76)
    qform_code, sform_code = struct.unpack_from(f"{order}2h", held, 252)
    if qform_code <= 0 and sform_code <= 0:
        raise Fault("missing_orientation", f"{path} does not say how it lies in the patient (qform and sform are 0)")
    if not all(0 < abs(step) < math.inf for step in pixdim):
        raise Fault("unreadable_file", f"{path} has voxels of {pixdim} mm, which cannot be; fetch it again")
    mm = _MM.get(held[123] & 7, 1.0)
    spacing_mm = [mm * abs(step) for step in pixdim]
    matrices = []
    if sform_code > 0:
        matrices.append(np.array(struct.unpack_from(f"{order}12f", held, 280), np.float64).reshape(3, 4))
    if qform_code > 0:
        matrices.append(_qform(struct.unpack_from(f"{order}6f", held, 256), -1.0 if qfac < 0 else 1.0, pixdim))
    faults: list[Fault] = []
    for matrix in matrices:
        turned = matrix * _TO_DICOM
        steps = np.linalg.norm(turned[:, :3], axis=0)
        if not np.allclose(steps, np.abs(pixdim), rtol=0.01):  # Nor is NaN.
            said = f"steps of {steps.tolist()} by its affine and {pixdim} by its pixdim"
            faults.append(Fault("unreadable_file", f"{path} has {said}; fetch it again"))
            continue
        try:
            return Geometry.of(
                sizes=sizes,
                spacing_mm=spacing_mm,
                origin_mm=(mm * turned[:, 3]).tolist(),
                directions=turned[:, :3] / np.where(steps > 0, steps, 1.0),
                path=path,
            )
        except Fault as fault:
            faults.append(fault)
    raise faults[0]


def _qform(numbers: Sequence[float], qfac: float, pixdim: Sequence[float]) -> np.ndarray:
    """(3, 4) from a unit quaternion's b, c, d and an offset, as the format defines it."""
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


def _is_packed(path: Path) -> bool:
    return path.suffix == ".gz"


def _opened(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path) if _is_packed(path) else path.open("rb"))


def _fill(file: BinaryIO, room: memoryview) -> int:
    """Bytes that the file had for it."""
    have = 0
    while have < len(room) and (got := file.readinto(room[have : have + _CHUNK_BYTES])):  # pyright: ignore
        have += got
    return have


def _cut_short(path: Path, have: int, need: int) -> Fault:
    return Fault("unreadable_file", f"{path} is cut short: it has {have} of {need} bytes; fetch it again")
