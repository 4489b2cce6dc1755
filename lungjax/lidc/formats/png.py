"""8-bit grey PNG files as one stack, whatever their layout."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
from PIL import Image, UnidentifiedImageError

from lungjax.lidc.formats import archive
from lungjax.lidc.scan import Fault


def read_stack(places: Mapping[str, archive.Place], load: archive.Load, where: str) -> np.ndarray:
    """uint8 (slices, rows, columns), in the mapping's order; its keys are the files' names within `where`.

    Raises:
      Fault: `unreadable_file`, `not_8_bit`, or `mixed_geometry` where the files differ in size.
    """
    images = [_read(load, place, f"{where}/{name}") for name, place in places.items()]
    shapes = sorted({image.shape for image in images})
    if len(shapes) > 1:
        raise Fault("mixed_geometry", f"{where} has slices of several sizes: {shapes}")
    return np.stack(images)


def check_mask_shape(masks: np.ndarray, images: np.ndarray, where: str) -> None:
    """Both (slices, rows, columns); a Fault `mask_shape` of the masks in `where` if their pixels differ."""
    if masks.shape != images.shape:
        raise Fault("mask_shape", f"{where} has {masks.shape[1:]} pixels, the images {images.shape[1:]}")


def _read(load: archive.Load, place: archive.Place, where: str) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(load(place)), formats=("PNG",)) as image:
            if image.mode != "L":
                raise Fault("not_8_bit", f"{where} has mode {image.mode}, not 8-bit grey")
            return np.asarray(image)
    except UnidentifiedImageError as error:  # Its message holds an address in memory, another on each run.
        raise Fault("unreadable_file", f"{where} cannot be read (it is no PNG); fetch it again") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise Fault("unreadable_file", f"{where} cannot be read ({error}); fetch it again") from error
