"""A CT volume as text in a page: each slice by itself, without loss between -1024 and 3071 HU; `viewer.js` reads it.

A slice is predicted voxel from voxel (the median edge detector of JPEG-LS: Weinberger, Seroussi and Sapiro 2000), what
is left is folded to whole numbers from 0 on, their low bytes are put before their high bytes, and zlib packs them: a
third less than a compressed NIfTI file. Slices are packed one by one, so that a page shows the first at once.
"""

from __future__ import annotations

import base64
import zlib

import numpy as np

LOW_HU, HIGH_HU = -1024, 3071
"""Values beyond are shown as these: padding below air, metal above bone."""
_DENSE_HU, _DENSE_PX = -500, 4
"""A row or column is of the body, or the table, where some slice has this many voxels above this value in it."""
_MARGIN_PX = 8


def box(hu: np.ndarray) -> tuple[int, int, int, int]:
    """Rows and columns beyond which there is nothing but air, in any slice.

    Args:
      hu: int16 (slices, rows, columns).

    Returns:
      First row, end of rows, first column, end of columns; all of them where the scan holds nothing dense.
    """
    dense = hu > _DENSE_HU
    ends = []
    for across, size in ((2, hu.shape[1]), (1, hu.shape[2])):
        body = np.flatnonzero((dense.sum(axis=across) >= min(_DENSE_PX, hu.shape[across])).any(axis=0))
        if not len(body):
            return 0, hu.shape[1], 0, hu.shape[2]
        ends += [max(int(body[0]) - _MARGIN_PX, 0), min(int(body[-1]) + 1 + _MARGIN_PX, size)]
    return ends[0], ends[1], ends[2], ends[3]


def pack(plane_hu: np.ndarray) -> str:
    """One slice, int16 (rows, columns) in HU, as base64."""
    values = (np.clip(plane_hu, LOW_HU, HIGH_HU) - LOW_HU).astype(np.int16)  # 0 to 4095
    before = np.pad(values, ((1, 0), (1, 0)))
    left, above, corner = before[1:, :-1], before[:-1, 1:], before[:-1, :-1]
    predicted = np.clip(left + above - corner, np.minimum(left, above), np.maximum(left, above))
    rest = values - predicted
    folded = ((rest << 1) ^ (rest >> 15)).astype(np.uint16)  # 0, -1, 1, -2 ... -> 0, 1, 2, 3 ...
    return pack_bytes((folded & 255).astype(np.uint8).tobytes() + (folded >> 8).astype(np.uint8).tobytes())


def pack_bytes(content: bytes) -> str:
    """zlib, then base64."""
    return base64.b64encode(zlib.compress(content, 6)).decode()
