"""Reads 8-bit greyscale PNG files of any layout as one stack."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Mapping

import numpy as np
from PIL import Image, UnidentifiedImageError

from lungjax.ct import size_limits
from lungjax.errors import Fault
from lungjax.preparation.formats import archive

_STACK_BYTES = size_limits.SCAN_BYTES // 8
"""The limit of one stack; a scan has up to five, its images and the masks of four readers."""


def read_stack(places: Mapping[str, archive.Place], load: archive.Load, where: str) -> np.ndarray:
    """uint8 (slices, rows, columns) in the order of `places`, whose keys are the names of the files within `where`.

    Raises:
      Fault: `unreadable_file`, `too_large`, `not_8_bit`, or `mixed_geometry` where the files differ in size.
    """
    images: list[np.ndarray] = []
    for name, place in places.items():
        images.append(_read(load, place, f"{where}/{name}"))
        size_limits.check(len(images) * images[-1].nbytes, _STACK_BYTES, f"{where}, by its pixels,")
    shapes = sorted({image.shape for image in images})
    if len(shapes) > 1:
        raise Fault("mixed_geometry", f"{where} has slices of several sizes: {shapes}")
    return np.stack(images)


def check_mask_shape(masks: np.ndarray, images: np.ndarray, where: str) -> None:
    """Raises the Fault `mask_shape` for the masks in `where` unless both are the same (slices, rows, columns)."""
    if masks.shape != images.shape:
        raise Fault("mask_shape", f"{where} has {masks.shape[1:]} pixels, but the images have {images.shape[1:]}")


def _read(load: archive.Load, place: archive.Place, where: str) -> np.ndarray:
    data = load(place, where)
    try:
        # Pillow warns about large images and refuses even larger ones.
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            size_limits.check(max(image.size), size_limits.SIDE_PX, f"{where}, by one side of its image,")
            if image.mode != "L":
                raise Fault("not_8_bit", f"{where} has mode {image.mode}, not 8-bit greyscale")
            return np.asarray(image)
    except UnidentifiedImageError as error:  # Its message holds a memory address, which differs on each run.
        raise Fault("unreadable_file", f"{where} cannot be read (it is not a PNG); fetch it again") from error
    except Image.DecompressionBombError as error:
        raise Fault("too_large", f"{where} is larger than any slice ({error}); use the original") from error
    except (OSError, ValueError, SyntaxError, OverflowError, MemoryError, struct.error, zlib.error) as error:
        raise Fault("unreadable_file", f"{where} cannot be read ({error}); fetch it again") from error
