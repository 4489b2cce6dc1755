"""Square crops of a slice: around the readers' marks, or anywhere."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from lungjax.ct import connected_components

PLACES = ("nodule", "lung", "random")
"""Where a crop may lie; see `lungjax.data.loader.Slices`."""

Box = tuple[int, int, int, int]
"""row_min, row_max, column_min, column_max, inclusive."""


def nodule_box(readers: Callable[[], np.ndarray], box: Box, crop_px: int, nodule_draw: float | None) -> Box:
    """The box to centre a crop on: that of all marks, or of one connected component if all do not fit into a crop.

    Args:
      readers: gives (rows, columns), not 0 where any reader marked the pixel; called only if all do not fit.
      box: the box of all marks; -1 where there are none.
      crop_px: side of the crop.
      nodule_draw: a random number in [0, 1) that picks the component; None takes the largest.
    """
    if max(box[1] - box[0], box[3] - box[2]) < crop_px:
        return box
    labels = connected_components.label(readers())
    marks = ndimage.find_objects(labels)
    number = int(np.bincount(labels.ravel())[1:].argmax()) if nodule_draw is None else int(nodule_draw * len(marks))
    rows, columns = marks[number]
    return rows.start, rows.stop - 1, columns.start, columns.stop - 1


def crop_corner(shape: tuple[int, ...], box: Box | None, crop_px: int, uniform: np.ndarray | None) -> tuple[int, int]:
    """Upper left corner of a crop; with `box`, the two centres are at most a quarter of the crop's side apart.

    Args:
      shape: (rows, columns) of the slice; the crop stays inside where it fits.
      box: the box to stay close to; None or -1 for anywhere.
      crop_px: side of the crop.
      uniform: (2,) random numbers in [0, 1) that place the crop; None centres it.
    """
    corner = []
    for axis, size in enumerate(shape):
        spare = size - crop_px
        u = 0.5 if uniform is None else uniform[axis]
        if box is None or box[2 * axis] < 0:
            position = round(u * spare)
        else:
            middle = (box[2 * axis] + box[2 * axis + 1]) / 2
            position = round(middle - crop_px / 2 + (u - 0.5) * crop_px / 2)
        corner.append(int(np.clip(position, min(spare, 0), max(spare, 0))))
    return corner[0], corner[1]


def centred_within(shape: tuple[int, ...], box: Box, crop_px: int, uniform: np.ndarray | None) -> tuple[int, int]:
    """Upper left corner of a crop whose centre lies anywhere in `box`, or in the slice where that is -1.

    Args:
      shape: (rows, columns) of the slice; the crop may reach beyond it.
      box: for instance of the lungs.
      crop_px: side of the crop.
      uniform: (2,) random numbers in [0, 1) that place the crop; None centres it.
    """
    corner = []
    for axis, size in enumerate(shape):
        low, high = box[2 * axis : 2 * axis + 2] if box[0] >= 0 else (0, size - 1)
        u = 0.5 if uniform is None else uniform[axis]
        corner.append(round(low + u * (high - low) - crop_px / 2))
    return corner[0], corner[1]


def cut(image: np.ndarray, corner: tuple[int, int], crop_px: int, fill: int | None = None) -> np.ndarray:
    """The crop, filled with `fill`, or with the image's minimum, where it reaches beyond the image."""
    row, column = corner
    part = image[max(row, 0) : row + crop_px, max(column, 0) : column + crop_px]
    if part.shape == (crop_px, crop_px):
        return part
    out = np.full((crop_px, crop_px), image.min() if fill is None else fill, image.dtype)
    out[max(-row, 0) :, max(-column, 0) :][: part.shape[0], : part.shape[1]] = part
    return out
