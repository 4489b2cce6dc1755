"""Pickles from strangers: plain containers and NumPy arrays of numbers, and nothing else.

A pickle is a program that may call anything. Here it finds a few names, NumPy's above all, each answered by a function
of this file that builds a value from bytes; NumPy's own, whose `__setstate__` believes what it is told, never sees the
pickle. Any other name is refused by name before anything is called.
"""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lungjax.errors import InputError

_KINDS = "biuf"
"""Kinds of number an array may hold; objects and records are refused."""
_NDARRAY = "numpy.ndarray"


def load(path: Path) -> Any:
    """What a pickle holds: dicts, lists, tuples, sets, strings, bytes, numbers, and what `as_array` makes arrays of.

    Raises:
      InputError: it asks for anything else, is damaged, or does not fit into memory.
    """
    try:
        with path.open("rb") as file:
            # `latin1` is how Python 2's bytes, in arrays above all, come through unharmed.
            return _Unpickler(file, path).load()
    except InputError:
        raise
    except MemoryError as error:
        raise InputError(f"{path} does not fit into memory; use a machine with more.") from error
    except Exception as error:  # A damaged pickle makes the unpickler raise nearly anything.
        why = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path} is no whole pickle ({why}); fetch it again.") from error


class _Unpickler(pickle._Unpickler):
    """Of the two unpicklers Python's, not C's: in that one a number makes a table of up to 64 GB."""

    def __init__(self, file: io.BufferedReader, path: Path):
        super().__init__(file, encoding="latin1")
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        where = module.replace("numpy._core", "numpy.core").replace("__builtin__", "builtins")  # As of old.
        if (where, name) == ("numpy", "ndarray"):
            return _NDARRAY  # Only ever an argument, so a word is enough.
        if (where, name) in _BUILDERS:
            return _BUILDERS[where, name]
        raise InputError(
            f"{self._path} asks for {module}.{name}, which is neither a NumPy array nor a plain container; refused: "
            "such a file could run anything. Get it from where it was first published."
        )


class _Dtype:
    """A dtype still to be told its byte order."""

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
    """An array still to be told what it holds."""

    __slots__ = ("value",)

    def __init__(self):
        self.value = np.empty(0)

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, by_columns, data = state
        self.value = _from_bytes(data, dtype, shape, "F" if by_columns else "C")


class _Builder:
    """A function of this file, of which a pickle can change nothing."""

    __slots__ = ("_build",)

    def __init__(self, build: Callable[..., Any]):
        self._build = build

    def __call__(self, *arguments: Any) -> Any:
        return self._build(*arguments)

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("a function with a state")


def _array(kind: str, shape: object, code: object) -> _Array:
    if kind != _NDARRAY:
        raise pickle.UnpicklingError("an array of another class")
    return _Array()


def _encoded(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"text in {encoding!r}")
    return text.encode("latin1")


def _from_bytes(data: Any, dtype: Any, shape: Any, order: str) -> np.ndarray:
    if isinstance(data, str):
        data = data.encode("latin1")
    if not isinstance(dtype, _Dtype) or not isinstance(shape, tuple) or not isinstance(data, bytes | bytearray):
        raise pickle.UnpicklingError("an array that is not made of bytes")
    if not all(isinstance(size, int) and size >= 0 for size in shape) or order not in ("C", "F"):
        raise pickle.UnpicklingError("an array whose shape is none")
    if math.prod(shape) * dtype.value.itemsize != len(data):
        raise pickle.UnpicklingError(f"an array of shape {shape} in {len(data)} bytes")
    return np.frombuffer(data, dtype.value).reshape(shape, order=order)  # pyright: ignore[reportArgumentType]


_BUILDERS = {
    ("numpy.core.multiarray", "_reconstruct"): _Builder(_array),
    ("numpy.core.numeric", "_frombuffer"): _Builder(_from_bytes),  # Of protocol 5.
    ("numpy", "dtype"): _Builder(lambda code, align=False, copy=False: _Dtype(code)),
    ("numpy.core.multiarray", "scalar"): _Builder(lambda dtype, data: _from_bytes(data, dtype, (), "C")[()]),
    ("_codecs", "encode"): _Builder(_encoded),  # Bytes, sets and no bytes, as older protocols spell them.
    ("builtins", "bytes"): _Builder(lambda: b""),
    ("builtins", "set"): _Builder(set),
}


def as_array(value: Any) -> np.ndarray | None:
    """The array that a value of a loaded pickle is; None where it is something else."""
    if isinstance(value, _Array):
        return value.value
    return value if isinstance(value, np.ndarray) else None
