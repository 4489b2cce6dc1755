"""Reads one `.npy` array from its bytes: nothing is executed, and a header alone allocates no memory."""

from __future__ import annotations

import io
import math
import tokenize
import warnings

import numpy as np

from lungjax.errors import Fault

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
"""Header readers by version; 3.0 is only for arrays with named columns, which are not used for pixels."""


def read_array(data: bytes, where: str) -> np.ndarray:
    """The array, read-only; any shape and any dtype except objects.

    Raises:
      Fault: `object_array`, whose contents would have to be unpickled; or `unreadable_file`, for instance where the
        file has fewer or more bytes than its header asks for.
    """
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        if version not in _HEADERS:
            raise ValueError(f"version {version[0]}.{version[1]} of the format")
        with warnings.catch_warnings(action="ignore"):  # It warns about headers that Python 2 wrote.
            shape, by_columns, dtype = _HEADERS[version](file)
        if dtype.hasobject:
            raise Fault(
                "object_array", f"{where} holds Python objects, which are never loaded; get it from another place"
            )
        need = file.tell() + math.prod(shape) * dtype.itemsize
        if need != len(data):
            raise ValueError(f"it has {len(data)} of {need} bytes")
        pixels = np.frombuffer(data, dtype, offset=file.tell())
        return pixels.reshape(shape, order="F" if by_columns else "C")
    except (OSError, ValueError, TypeError, SyntaxError, tokenize.TokenError, RecursionError, MemoryError) as error:
        raise Fault("unreadable_file", f"{where} cannot be read ({error}); fetch it again") from error


def check_finite(values: np.ndarray, where: str) -> None:
    """Raises the Fault `not_finite` if any of these floats is NaN or infinite."""
    if not np.isfinite(values).all():
        raise Fault("not_finite", f"{where} holds NaN or infinite numbers; use the original")
