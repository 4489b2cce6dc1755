"""NumPy arrays that somebody gives a network: checked, and put through it a batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

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
