"""The pixels of one DICOM image to HU, written straight to where they belong, or a named fault."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pydicom.uid
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileDataset

from lungjax.lidc.scan import Fault

DEFERRED_BYTES = 2**12
"""Longer elements stay in the file while its header is read; see `locate`."""

_PLAIN = (pydicom.uid.ImplicitVRLittleEndian, pydicom.uid.ExplicitVRLittleEndian)


@dataclasses.dataclass(frozen=True, eq=False)
class Pixels:
    """One image's pixels, most often still in their file.

    Attributes:
      path: the file.
      shape: (rows, columns).
      offset: where the pixels begin in the file, 16 bits each, little endian; unused where `decoded` is set.
      signed: whether they are signed there.
      decoded: (rows, columns) stored values in the machine's byte order, where they had to be decoded, compressed
        ones for instance.
      slope, intercept: HU are slope * stored + intercept.
    """

    path: Path
    shape: tuple[int, int]
    offset: int
    signed: bool
    decoded: np.ndarray | None
    slope: float
    intercept: float


def locate(dataset: FileDataset, values: Mapping[str, Any], path: Path) -> Pixels:
    """Where the pixels of a file lie; only those that are not plain 16 bits are read at once.

    Args:
      dataset: the header, with elements longer than `DEFERRED_BYTES` not yet read.
      values: its values by name.
      path: its file.

    Raises:
      Fault: `unreadable_file` where the file ends too early or holds no single grey image.
    """
    shape = int(values["Rows"]), int(values["Columns"])
    plain = dataset.file_meta.TransferSyntaxUID in _PLAIN and values["BitsAllocated"] == 16
    element = dataset.get_item("PixelData", keep_deferred=True)
    offset, decoded = 0, None
    if plain and values["SamplesPerPixel"] in (None, 1) and isinstance(element, RawDataElement):
        offset = element.value_tell
        have, need = min(element.length, path.stat().st_size - offset), 2 * shape[0] * shape[1]
        if have < need:
            raise _cut_short(path, have, need)
    else:
        decoded = pydicom.dcmread(path).pixel_array
        decoded = decoded.astype(decoded.dtype.newbyteorder("="), copy=False)
        if decoded.shape != shape:
            raise Fault("unreadable_file", f"{path} is no single grey image: its pixels are {decoded.shape}")
    return Pixels(
        path=path,
        shape=shape,
        offset=offset,
        signed=values["PixelRepresentation"] == 1,
        decoded=decoded,
        slope=float(values["RescaleSlope"]),
        intercept=float(values["RescaleIntercept"]),
    )


def read_hu(pixels: Pixels, out: np.ndarray) -> None:
    """Reads an image's HU into `out`, int16 (rows, columns), contiguous.

    Nothing is copied on the way: a slice of the volume is where the file's bytes go and where they become HU.

    Raises:
      Fault: `hu_out_of_range`, or `unreadable_file` where the file has changed since `locate`.
    """
    stored = _read_plain(pixels, out) if pixels.decoded is None else pixels.decoded
    slope, intercept = pixels.slope, pixels.intercept
    ends_hu = sorted(float(end) * slope + intercept for end in (stored.min(), stored.max()))
    if not -32768.5 < ends_hu[0] <= ends_hu[1] < 32767.5:
        held = f"{ends_hu[0]:g} to {ends_hu[1]:g} HU, which int16 cannot hold"
        raise Fault("hu_out_of_range", f"{pixels.path} has {held}; its rescale tags or its pixels are wrong")
    if slope == 1 and intercept.is_integer() and stored.dtype.itemsize == 2:
        # Every result fits int16, so arithmetic modulo 2**16 is exact, and much faster than in floats.
        np.add(stored.view(np.uint16), np.uint16(int(intercept) % 65536), out=out.view(np.uint16))
    else:
        out[...] = np.rint(stored * slope + intercept)


def unreadable(path: Path, error: Exception) -> Fault:
    """What a file is that could not be read for whatever reason."""
    return Fault("unreadable_file", f"{path} cannot be read ({error or type(error).__name__}); fetch it again")


def _read_plain(pixels: Pixels, out: np.ndarray) -> np.ndarray:
    """(rows, columns) as stored, in the machine's byte order; shares the memory of `out`."""
    try:
        with pixels.path.open("rb") as file:
            file.seek(pixels.offset)
            have = file.readinto(out.data)
    except OSError as error:
        raise unreadable(pixels.path, error) from error
    if have < out.nbytes:
        raise _cut_short(pixels.path, have, out.nbytes)
    kind = np.dtype("<i2" if pixels.signed else "<u2")
    return out.view(kind).astype(kind.newbyteorder("="), copy=False)


def _cut_short(path: Path, have: int, need: int) -> Fault:
    message = f"{path} is cut short: it has {max(have, 0)} of {need} bytes of pixels; fetch the series again"
    return Fault("unreadable_file", message)
