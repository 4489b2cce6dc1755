"""NumPy arrays that somebody gives a network: checked, and put through it a batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from lungjax.data.context import Context
from lungjax.errors import InputError

Forward = Callable[..., Sequence[np.ndarray]]
"""A network: arrays whose first axis is the batch -> its outputs, likewise."""


def checked_hu(hu: np.ndarray, *axes: str) -> np.ndarray:
    """`hu` as it is, an array of Hounsfield units.

    Args:
      hu: of any numeric dtype.
      axes: what its axes are called.

    Raises:
      InputError: it has other axes, one of them without a single entry, or holds NaN or what no CT measures.
    """
    hu = np.asarray(hu)
    wanted = f"({', '.join(axes)})"
    if hu.ndim != len(axes) or 0 in hu.shape[1:]:
        raise InputError(f"hu has shape {hu.shape}; it must be {wanted}.")
    if hu.dtype.kind not in "iuf":
        raise InputError(f"hu is an array of {hu.dtype}; it must hold numbers, Hounsfield units.")
    if hu.size and not (hu.min() > -32768.5 and hu.max() < 32767.5):  # False of NaN, too.
        raise InputError("hu holds NaN, or numbers that are no Hounsfield units.")
    return hu


def checked_slices(hu: np.ndarray, context: Context, slice_mm: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Slices for a network that is shown `context`, and which of them it is shown with each.

    Args:
      hu: (slices, rows, columns), with a context of one scan from its lowest slice; or (n, planes, rows, columns), each
        slice between its neighbours.
      context: of the network.
      slice_mm: between the slices of a scan; only needed where `context` is in mm.

    Returns:
      (m, rows, columns), as `checked_hu`; and int64 (n, planes), numbers of these slices.

    Raises:
      InputError: as of `checked_hu` and `Context.in_scan`, or there are other planes than the network is shown.
    """
    hu = np.asarray(hu)
    if not context.slices or hu.ndim == 3:
        hu = checked_hu(hu, "slices", "rows", "columns")
        return hu, context.in_scan(len(hu), slice_mm)
    if hu.ndim != 4 or hu.shape[1] != context.planes:
        raise InputError(
            f"hu has shape {hu.shape}; the network is shown each slice between {context.slices} on either side, so it "
            f"must be the (slices, rows, columns) of one scan, or (n, {context.planes}, rows, columns)."
        )
    hu = checked_hu(hu, "slices", "planes", "rows", "columns")
    return hu.reshape(-1, *hu.shape[2:]), np.arange(hu.shape[0] * hu.shape[1]).reshape(hu.shape[:2])


def checked_pixel_mm(pixel_mm: np.ndarray | float, shape: tuple[int, ...]) -> np.ndarray:
    """float32 of a shape: the distance between the pixel centres of each patch; one number is that of all patches.

    Raises:
      InputError: it has another shape, or holds a number that is not above 0.
    """
    given = np.asarray(pixel_mm, np.float32)
    if given.ndim and given.shape != shape:
        raise InputError(f"pixel_mm has shape {given.shape}; it must be one number, or have shape {shape}, as hu.")
    if not (np.isfinite(given) & (given > 0)).all():
        raise InputError("pixel_mm holds a number that is not above 0; it is the distance between pixel centres in mm.")
    return np.broadcast_to(given, shape)


def in_batches(forward: Forward, arrays: Sequence[np.ndarray], *, size: int) -> list[np.ndarray]:
    """Outputs for any number of rows, at least one.

    The network is given `size` rows at a time, the last ones again and again where there are fewer: so it is compiled
    once, and what it gives for a row does not depend on how many others there are.
    """
    count = len(arrays[0])
    parts = []
    for start in range(0, count, size):
        rows = np.minimum(np.arange(start, start + size), count - 1)
        outputs = forward(*(array[rows] for array in arrays))
        parts.append([np.asarray(output)[: count - start] for output in outputs])
    return [np.concatenate(output) for output in zip(*parts, strict=True)]
