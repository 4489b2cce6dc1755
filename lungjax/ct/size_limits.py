"""How much a stranger's file may ask for, by its header or by what its packed bytes become."""

from __future__ import annotations

from lungjax.errors import Fault

SCAN_BYTES = 2**32
"""Pixels of one scan, as stored: eight thousand slices of 512 x 512 pixels of HU; LIDC's longest has 764."""
SLICE_BYTES = 2**27
"""One file of one slice: all of 4096 x 4096 doubles."""
SIDE_PX = 4096
"""Rows or columns of a picture."""
VOLUME_SIDE = 2**15
"""Voxels along any axis of a volume; NIfTI counts no further."""


def check(need: int, most: int, what: str) -> None:
    """A Fault `too_large` where a header asks for more, of bytes or of pixels along a side, than `most`."""
    if need > most:
        raise too_large(need, most, what)


def too_large(need: int, most: int, what: str) -> Fault:
    """The fault of a header that asks for more than `most`."""
    return Fault("too_large", f"{what} asks for {need:,}, more than any scan's {most:,}; fetch it again")
