"""Reads the pixels of one DICOM image as HU straight into the volume, or raises a named fault."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pydicom.uid
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileDataset
from pydicom.pixels.decoders import gdcm, pylibjpeg
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import pixel_array

from lungjax.ct import dicom_header, faults, hounsfield
from lungjax.ct.dicom_header import PIXELS
from lungjax.errors import Fault

_PLAIN = (pydicom.uid.ImplicitVRLittleEndian, pydicom.uid.ExplicitVRLittleEndian)


@dataclasses.dataclass(frozen=True, eq=False)
class Pixels:
    """One image's pixels, still in their file.

    Attributes:
      path: the file.
      shape: (rows, columns).
      plain: whether the file holds them as 16 bits each, little endian; pydicom decodes all others, for instance
        compressed ones.
      offset: where they begin in the file, if they are plain.
      signed: whether the stored values are signed.
      bits: how many of the lowest bits are the value; the others may hold anything, an overlay for instance.
      slope, intercept: HU are slope * stored + intercept.
      padding: the lowest and the highest stored value that the header declares to be padding; None where it does not.
      frame: the number of the frame in a file of several, from 0; None in a file of a single image.
    """

    path: Path
    shape: tuple[int, int]
    plain: bool
    offset: int
    signed: bool
    bits: int
    slope: float
    intercept: float
    padding: tuple[int, int] | None = None
    frame: int | None = None


def locate(dataset: FileDataset, values: Mapping[str, Any], path: Path, *, frames: int = 1) -> Pixels:
    """Finds the pixels of a file's first image and checks that all can be read; no pixel is read.

    Args:
      dataset: the header, as `dicom_header.read` returns it.
      values: the header's values by name.
      path: the file.
      frames: the number of images in the file.

    Raises:
      Fault: `no_decoder`, `short_pixels`, `wrong_bits`, or `unreadable_file` where the file ends too early or is not a
        greyscale image.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    if not _has_decoder(syntax):
        raise Fault("no_decoder", f"{path} is compressed as {syntax.name}, {_how_to_decode(syntax)}")
    if values["SamplesPerPixel"] not in (None, 1):
        raise Fault("unreadable_file", f"{path} is not greyscale: it has {values['SamplesPerPixel']} samples per pixel")
    shape, bits = (int(values["Rows"]), int(values["Columns"])), int(values["BitsAllocated"])
    element = dataset.get_item(PIXELS, keep_deferred=True)
    offset = element.value_tell if isinstance(element, RawDataElement) else 0
    if offset and not syntax.is_compressed:
        assert isinstance(element, RawDataElement)
        need = frames * shape[0] * shape[1] * bits // 8
        if element.length < need:
            need_text = f"{need} bytes that {f'{frames} times ' * (frames > 1)}{shape[0]}x{shape[1]} pixels take"
            message = f"{path} is complete, but it has only {element.length} of the {need_text}; use the original"
            raise Fault("short_pixels", message)
        have = path.stat().st_size - offset
        if have < need and not syntax.is_deflated:  # pydicom fails on truncated deflated files.
            raise _truncated(path, have, need)
    return Pixels(
        path=path,
        shape=shape,
        plain=bool(offset) and syntax in _PLAIN and bits == 16,
        offset=offset,
        signed=values["PixelRepresentation"] == 1,
        bits=bits_stored(values, path),
        slope=float(values["RescaleSlope"]),
        intercept=float(values["RescaleIntercept"]),
    )


def bits_stored(values: Mapping[str, Any], path: Path) -> int:
    """How many bits of a stored number are its value, by BitsStored; all that are allocated where it is missing.

    Raises:
      Fault: `wrong_bits` where they are not the lowest ones, or more than are allocated.
    """
    allocated = int(values["BitsAllocated"])
    stored = int(values["BitsStored"] or allocated)
    high_bit = stored - 1 if values["HighBit"] in (None, "") else int(values["HighBit"])
    if not (1 <= stored <= allocated and high_bit == stored - 1):
        bits = f"{stored} of {allocated} bits with {high_bit} as the highest"
        message = f"{path} stores {bits}, which DICOM does not allow and readers disagree on; use the original"
        raise Fault("wrong_bits", message)
    return stored


def read_hu(pixels: Pixels, out: np.ndarray) -> tuple[float, float]:
    """Reads an image's HU into `out`, int16 (rows, columns), contiguous; returns the lowest and the highest HU.

    Plain pixels are not copied: they are read into `out`, a slice of the volume, and turned into HU there. Where int16
    cannot hold what declared padding would be as HU, it is `hounsfield.FILL_HU`.

    Raises:
      Fault: `hu_out_of_range`, or `unreadable_file` where the pixels cannot be decoded or the file has changed since
        `locate`.
    """
    stored = _value_bits(_read_plain(pixels, out) if pixels.plain else _decode(pixels), pixels.bits)
    slope, intercept = pixels.slope, pixels.intercept
    low_hu, high_hu = _range_hu(stored, pixels)
    is_padding = None
    if pixels.padding is not None and not hounsfield.fits_int16(low_hu, high_hu):
        first, last = pixels.padding
        is_padding = (stored >= first) & (stored <= last)
        values = stored[~is_padding]
        stored[is_padding] = values[0] if values.size else 0
        low_hu, high_hu = _range_hu(stored, pixels)
    hounsfield.check_fits_int16(low_hu, high_hu, str(pixels.path))
    if slope == 1 and intercept.is_integer() and stored.dtype.itemsize == 2:
        # Every result fits into int16, so arithmetic modulo 2**16 is exact, and much faster than in floats.
        np.add(stored.view(np.uint16), np.uint16(int(intercept) % 65536), out=out.view(np.uint16))
    else:
        out[...] = np.rint(stored * slope + intercept)
    if is_padding is not None:
        out[is_padding] = hounsfield.FILL_HU
        low_hu = float(min(low_hu, hounsfield.FILL_HU))
    return low_hu, high_hu


def _range_hu(stored: np.ndarray, pixels: Pixels) -> tuple[float, float]:
    """The lowest and the highest HU."""
    low_hu, high_hu = sorted(float(end) * pixels.slope + pixels.intercept for end in (stored.min(), stored.max()))
    return low_hu, high_hu


def unreadable(path: Path, error: Exception) -> Fault:
    """The fault for a file that could not be read, for whatever reason."""
    return faults.cannot_read(path, error)


@functools.lru_cache(maxsize=64)
def _has_decoder(syntax: pydicom.uid.UID) -> bool:
    try:
        return get_decoder(syntax).is_available
    except NotImplementedError:
        return False


def _how_to_decode(syntax: pydicom.uid.UID) -> str:
    if syntax in gdcm.DECODER_DEPENDENCIES:
        return "for which no decoder is installed; run `pip install 'lungjax[compressed]'`"
    if packages := [re.split("[<>=]", one)[0] for one in pylibjpeg.DECODER_DEPENDENCIES.get(syntax, ())]:
        return f"for which no decoder is installed; run `pip install {' '.join(packages)}`"
    return "which lungjax cannot decode; decompress it first, where it comes from"


def _decode(pixels: Pixels) -> np.ndarray:
    """(rows, columns) as stored, in the machine's byte order."""
    try:
        if pixels.frame is None:
            decoded = dicom_header.read_all(pixels.path).pixel_array
        else:
            decoded = pixel_array(_open(pixels.path, pixels.path.stat().st_mtime_ns), index=pixels.frame)
    except Exception as error:  # A broken file can make a decoder raise anything.
        raise unreadable(pixels.path, error) from error
    if decoded.shape != pixels.shape:
        raise Fault("unreadable_file", f"{pixels.path} is not a single greyscale image: its pixels are {decoded.shape}")
    return np.require(decoded, decoded.dtype.newbyteorder("="), "W")


@functools.lru_cache(maxsize=1)
def _open(path: Path, changed_ns: int) -> FileDataset:
    """A file of several frames, cached while they are read one after the other."""
    del changed_ns  # Part of the cache's key: a file that has changed is read again.
    return dicom_header.read_all(path)


def _read_plain(pixels: Pixels, out: np.ndarray) -> np.ndarray:
    """(rows, columns) as stored, in the machine's byte order; shares the memory of `out`."""
    try:
        with pixels.path.open("rb") as file:
            file.seek(pixels.offset)
            have = file.readinto(out.data)
    except OSError as error:
        raise unreadable(pixels.path, error) from error
    if have < out.nbytes:
        raise _truncated(pixels.path, have, out.nbytes)
    dtype = np.dtype("<i2" if pixels.signed else "<u2")
    return out.view(dtype).astype(dtype.newbyteorder("="), copy=False)


def _value_bits(stored: np.ndarray, bits: int) -> np.ndarray:
    """`stored`, changed in place, without what lies in bits above the value (DICOM PS3.5, 8.1.1).

    pydicom does the same, but not for JPEG 2000 and JPEG-LS.
    """
    spare = 8 * stored.dtype.itemsize - bits
    if spare > 0:  # Up and down again: the sign of a signed value is extended.
        np.left_shift(stored, spare, out=stored)
        np.right_shift(stored, spare, out=stored)
    return stored


def _truncated(path: Path, have: int, need: int) -> Fault:
    message = f"{path} is truncated: it has {max(have, 0)} of {need} bytes of pixels; fetch the series again"
    return Fault("unreadable_file", message)
