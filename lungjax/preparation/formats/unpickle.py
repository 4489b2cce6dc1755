"""Loads untrusted pickles: plain containers and NumPy arrays of numbers, and nothing else.

A pickle is a program that may call any function. Here it can use only a few names, mostly NumPy's, each replaced by a
function of this file that builds a value from bytes. NumPy's own functions, whose `__setstate__` trusts its arguments,
never see the pickle. Any other name is refused before anything is called, with an error that states the name.
"""

from __future__ import annotations

import io
import math
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from lungjax.errors import InputError

_KINDS = "biuf"
"""Kinds of numbers that an array may hold; objects and records are refused."""
_NDARRAY = "numpy.ndarray"


def load(path: Path) -> Any:
    """The contents of a pickle: dicts, lists, tuples, sets, strings, bytes, numbers, and arrays for `as_array`.

    Raises:
      InputError: the pickle asks for anything else, is damaged, or does not fit into memory.
    """
    try:
        with path.open("rb") as file:
            # `latin1` preserves Python 2's bytes, which occur mostly in arrays.
            return _Unpickler(file, path).load()
    except InputError:
        raise
    except MemoryError as error:
        raise InputError(f"{path} does not fit into memory; use a machine with more memory.") from error
    except Exception as error:  # A damaged pickle can make the unpickler raise nearly anything.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path} is not a complete pickle ({reason}); fetch it again.") from error


class _Unpickler(pickle._Unpickler):
    """Derived from the unpickler in Python, not in C: there a single number can allocate a table of up to 64 GB."""

    read: Callable[[int], bytes]
    append: Callable[[Any], None]
    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {**pickle._Unpickler.dispatch}

    def load_bytearray8(self) -> None:
        """As pickle's, which fills as many bytes with zeros as it is told to expect before it reads any."""
        (size,) = struct.unpack("<Q", self.read(8))
        self.append(bytearray(self.read(size)))

    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8

    def __init__(self, file: io.BufferedReader, path: Path):
        super().__init__(file, encoding="latin1")
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        where = module.replace("numpy._core", "numpy.core").replace(
            "__builtin__", "builtins"
        )  # Names in other versions of NumPy and Python.
        if (where, name) == ("numpy", "ndarray"):
            return _NDARRAY  # Used only as an argument, so a string is enough.
        if (where, name) in _BUILDERS:
            return _BUILDERS[where, name]
        raise InputError(
            f"{self._path} asks for {module}.{name}, which is neither a NumPy array nor a plain container; refused: "
            "such a file could run anything. Get it from where it was first published."
        )


class _Dtype:
    """A dtype whose byte order is set later, by `__setstate__`."""

    __slots__ = ("value",)

    def __init__(self, code: object):
        if not isinstance(code, str):
            raise pickle.UnpicklingError("a dtype that is not plain")
        self.value = np.dtype(code)
        if self.value.kind not in _KINDS:
            raise pickle.UnpicklingError(f"an array of {self.value}, not of numbers")

    def __setstate__(self, state: tuple) -> None:
        order, fields = state[1], state[2:5]
        if order not in ("<", ">", "|", "=") or any(field is not None for field in fields):
            raise pickle.UnpicklingError("an array of records, not of numbers")
        self.value = self.value.newbyteorder(order)


class _Array:
    """An array whose contents are set later, by `__setstate__`."""

    __slots__ = ("value",)

    def __init__(self):
        self.value = np.empty(0)

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, by_columns, data = state
        self.value = _from_bytes(data, dtype, shape, "F" if by_columns else "C")


class _Builder:
    """A function of this file, which a pickle can call but not change."""

    __slots__ = ("_build",)

    def __init__(self, build: Callable[..., Any]):
        self._build = build

    def __call__(self, *arguments: Any) -> Any:
        return self._build(*arguments)

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("a function with a state")


def _make_array(kind: str, shape: object, code: object) -> _Array:
    if kind != _NDARRAY:
        raise pickle.UnpicklingError("an array of another class")
    return _Array()


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"text in {encoding!r}")
    return text.encode("latin1")


def _from_bytes(data: Any, dtype: Any, shape: Any, order: str) -> np.ndarray:
    if isinstance(data, str):
        data = data.encode("latin1")
    if not isinstance(dtype, _Dtype) or not isinstance(shape, tuple) or not isinstance(data, bytes | bytearray):
        raise pickle.UnpicklingError("an array that is not made of bytes")
    if not all(isinstance(size, int) and size >= 0 for size in shape) or order not in ("C", "F"):
        raise pickle.UnpicklingError("an array with an invalid shape")
    if math.prod(shape) * dtype.value.itemsize != len(data):
        raise pickle.UnpicklingError(f"an array of shape {shape} in {len(data)} bytes")
    return np.frombuffer(data, dtype.value).reshape(shape, order=order)  # pyright: ignore[reportArgumentType]


_BUILDERS = {
    ("numpy.core.multiarray", "_reconstruct"): _Builder(_make_array),
    ("numpy.core.numeric", "_frombuffer"): _Builder(_from_bytes),  # Protocol 5.
    ("numpy", "dtype"): _Builder(lambda code, align=False, copy=False: _Dtype(code)),
    ("numpy.core.multiarray", "scalar"): _Builder(lambda dtype, data: _from_bytes(data, dtype, (), "C")[()]),
    ("_codecs", "encode"): _Builder(_encode),  # Older protocols write bytes, empty bytes and sets this way.
    ("builtins", "bytes"): _Builder(lambda: b""),
    ("builtins", "set"): _Builder(set),
}


def as_array(value: Any) -> np.ndarray | None:
    """A value of a loaded pickle as an array; None where it is something else."""
    if isinstance(value, _Array):
        return value.value
    return value if isinstance(value, np.ndarray) else None
