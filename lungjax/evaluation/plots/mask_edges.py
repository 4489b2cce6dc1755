"""Geometry for pictures, in pixels: the border of a mask, and the part of an image to show."""

from __future__ import annotations

import numpy as np

Window = tuple[int, int, int, int]
"""row start, row stop, column start, column stop, as in `image[start:stop]`."""


def edges(mask: np.ndarray) -> np.ndarray:
    """The sides of pixels that separate a mask from the rest, so that an outline encloses exactly its pixels.

    Args:
      mask: bool (rows, columns).

    Returns:
      float64 (sides, 2, 2): the two ends (x, y) of each side, in pixels; the pixel in row r and column c has its centre
      at x = c, y = r.
    """
    padded = np.pad(np.asarray(mask, bool), 1)
    row, column = np.nonzero(padded[:-1] != padded[1:])  # between padded rows r and r + 1, so at y = r - 0.5
    across = np.stack([np.stack([column - 1.5, row - 0.5], -1), np.stack([column - 0.5, row - 0.5], -1)], 1)
    row, column = np.nonzero(padded[:, :-1] != padded[:, 1:])
    down = np.stack([np.stack([column - 0.5, row - 1.5], -1), np.stack([column - 0.5, row - 0.5], -1)], 1)
    return np.concatenate([across, down])


def window(marked: np.ndarray, *, side_px: int, margin: float = 0.0) -> Window:
    """A square around the marked pixels, inside the image.

    Args:
      marked: bool (rows, columns).
      side_px: the smallest side of the square.
      margin: by how much the square is at least wider than the box of the marked pixels, as a share of that box.

    Returns:
      The window; the whole image where nothing is marked.
    """
    rows, columns = marked.shape
    if not marked.any():
        return 0, rows, 0, columns
    row, column = np.nonzero(marked)
    box_px = 1 + max(np.ptp(row), np.ptp(column))
    side = max(side_px, int(np.ceil(box_px * (1 + margin))))
    return *_along(row, side, rows), *_along(column, side, columns)


def _along(positions: np.ndarray, side: int, size: int) -> tuple[int, int]:
    centre = (int(positions.min()) + int(positions.max()) + 1) // 2
    start = min(max(centre - side // 2, 0), max(size - side, 0))
    return start, min(start + side, size)
