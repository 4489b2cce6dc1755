"""The pixels of one DICOM image to HU, written straight to where they belong, or a named fault."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pydicom.uid
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileDataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import pixel_array

from lungjax.ct import hounsfield
from lungjax.ct.dicom_header import PIXELS
from lungjax.errors import Fault

_DECODERS = "run `pip install 'lungjax[compressed]'`"
_PLAIN = (pydicom.uid.ImplicitVRLittleEndian, pydicom.uid.ExplicitVRLittleEndian)


@dataclasses.dataclass(frozen=True, eq=False)
class Pixels:
    """One image's pixels, still in their file.

    Attributes:
      path: the file.
      shape: (rows, columns).
      plain: whether they lie there as 16 bits each, little endian; pydicom decodes others, compressed ones for
        instance.
      offset: where they begin in the file, if they are plain.
      signed: whether they are signed there.
      slope, intercept: HU are slope * stored + intercept.
      frame: which of the file's many images they are, from 0; None where it holds one.
    """

    path: Path
    shape: tuple[int, int]
    plain: bool
    offset: int
    signed: bool
    slope: float
    intercept: float
    frame: int | None = None


def locate(dataset: FileDataset, values: Mapping[str, Any], path: Path, *, frames: int = 1) -> Pixels:
    """Where the pixels of a file's first image lie, and whether all can be read; none of them is looked at.

    Args:
      dataset: the header, as `header.read` gives it.
      values: its values by name.
      path: its file.
      frames: how many images it holds.

    Raises:
      Fault: `no_decoder`, `short_pixels`, or `unreadable_file` where the file ends too early or holds no grey image.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    if not _has_decoder(syntax):
        message = f"{path} is compressed as {syntax.name}, and nothing installed decodes that; {_DECODERS}"
        raise Fault("no_decoder", message)
    if values["SamplesPerPixel"] not in (None, 1):
        raise Fault("unreadable_file", f"{path} is no grey image: {values['SamplesPerPixel']} samples a pixel")
    shape, bits = (int(values["Rows"]), int(values["Columns"])), int(values["BitsAllocated"])
    element = dataset.get_item(PIXELS, keep_deferred=True)
    offset = element.value_tell if isinstance(element, RawDataElement) else 0
    if offset and not syntax.is_compressed:
        assert isinstance(element, RawDataElement)
        need = frames * shape[0] * shape[1] * bits // 8
        if element.length < need:
            taken = f"{need} bytes that {f'{frames} times ' * (frames > 1)}{shape[0]}x{shape[1]} pixels take"
            held = f"it has {element.length} of the {taken}"
            raise Fault("short_pixels", f"{path} is whole but {held}; fetch it again")
        have = path.stat().st_size - offset
        if have < need and not syntax.is_deflated:  # which is whole, or pydicom could not have inflated it
            raise _cut_short(path, have, need)
    return Pixels(
        path=path,
        shape=shape,
        plain=bool(offset) and syntax in _PLAIN and bits == 16,
        offset=offset,
        signed=values["PixelRepresentation"] == 1,
        slope=float(values["RescaleSlope"]),
        intercept=float(values["RescaleIntercept"]),
    )


def read_hu(pixels: Pixels, out: np.ndarray) -> tuple[float, float]:
    """Reads an image's HU into `out`, int16 (rows, columns), contiguous; returns the lowest and the highest.

    Nothing is copied on the way: a slice of the volume is where the file's bytes go and where they become HU.

    Raises:
      Fault: `hu_out_of_range`, or `unreadable_file` where they cannot be decoded or the file has changed since
        `locate`.
    """
    stored = _read_plain(pixels, out) if pixels.plain else _decode(pixels)
    slope, intercept = pixels.slope, pixels.intercept
    ends_hu = sorted(float(end) * slope + intercept for end in (stored.min(), stored.max()))
    low_hu, high_hu = ends_hu
    hounsfield.check_fits_int16(low_hu, high_hu, str(pixels.path))
    if slope == 1 and intercept.is_integer() and stored.dtype.itemsize == 2:
        # Every result fits int16, so arithmetic modulo 2**16 is exact, and much faster than in floats.
        np.add(stored.view(np.uint16), np.uint16(int(intercept) % 65536), out=out.view(np.uint16))
    else:
        out[...] = np.rint(stored * slope + intercept)
    return low_hu, high_hu


def unreadable(path: Path, error: Exception) -> Fault:
    """What a file is that could not be read for whatever reason."""
    return Fault("unreadable_file", f"{path} cannot be read ({error or type(error).__name__}); fetch it again")


@functools.lru_cache(maxsize=64)
def _has_decoder(syntax: pydicom.uid.UID) -> bool:
    try:
        return get_decoder(syntax).is_available
    except NotImplementedError:
        return False


def _decode(pixels: Pixels) -> np.ndarray:
    """(rows, columns) as stored, in the machine's byte order."""
    try:
        if pixels.frame is None:
            decoded = pydicom.dcmread(pixels.path).pixel_array
        else:
            decoded = pixel_array(_opened(pixels.path, pixels.path.stat().st_mtime_ns), index=pixels.frame)
    except Exception as error:  # whatever a broken file provokes in a decoder
        raise unreadable(pixels.path, error) from error
    if decoded.shape != pixels.shape:
        raise Fault("unreadable_file", f"{pixels.path} is no single grey image: its pixels are {decoded.shape}")
    return decoded.astype(decoded.dtype.newbyteorder("="), copy=False)


@functools.lru_cache(maxsize=1)
def _opened(path: Path, changed_ns: int) -> FileDataset:
    """A file of many images, which are read one after the other."""
    del changed_ns  # Another file, then.
    return pydicom.dcmread(path)


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
