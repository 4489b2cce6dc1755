"""Limits on the memory that an untrusted file may ask for, by its header or once it is decompressed."""

from __future__ import annotations

from lungjax.errors import Fault

SCAN_BYTES = 2**32
"""The stored pixels of one scan: eight thousand slices of 512 x 512 pixels of HU; the longest in LIDC-IDRI has 764."""
SLICE_BYTES = 2**27
"""A file of one slice: as much as 4096 x 4096 doubles take."""
SIDE_PX = 4096
"""Rows or columns of an image."""
VOLUME_SIDE = 2**15
"""Voxels along any axis of a volume; NIfTI cannot count further."""


def check(size: int, limit: int, what: str) -> None:
    """Raises the Fault `too_large` where `size`, in bytes or in pixels along a side, is above `limit`."""
    if size > limit:
        raise too_large(size, limit, what)


def too_large(size: int, limit: int, what: str) -> Fault:
    """The fault for a header that asks for more than `limit`."""
    return Fault("too_large", f"{what} asks for {size:,}, more than any scan's {limit:,}; use the original")
