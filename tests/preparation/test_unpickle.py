"""Pickles from strangers: numbers and containers come through bit for bit, and nothing is ever called."""

from __future__ import annotations

import collections
import contextlib
import math
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile import peak_mib
from hypothesis import given, settings
from hypothesis import strategies as st

from lungjax.errors import InputError
from lungjax.preparation.formats import unpickle


class Calls:
    """Its pickle calls a function with arguments, or calls one and then sets a state."""

    def __init__(self, *reduced: Any):
        self._reduced = reduced

    def __reduce__(self):
        return self._reduced


def name(module: str, name: str) -> bytes:
    """The name of something, as protocol 0 spells it."""
    return f"c{module}\n{name}\n".encode()


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "array",
    [
        np.arange(12, dtype=np.float64).reshape(3, 4),
        np.asfortranarray(np.arange(12, dtype=np.float32).reshape(3, 4)),
        np.arange(12, dtype=">i2").reshape(3, 4)[:, ::2],
        np.array([[True, False]]),
        np.empty((0, 5), np.uint8),
        np.array(3.5),
    ],
    ids=["float64", "by columns", "big endian, strided", "bool", "empty", "no axes"],
)
def test_arrays_come_through(tmp_path, protocol, array):
    found = unpickle.load(write(tmp_path / "x.pickle", pickle.dumps({"a": [array, (1, "b", None)]}, protocol)))
    got = unpickle.as_array(found["a"][0])
    assert got is not None
    assert got.dtype == array.dtype
    np.testing.assert_array_equal(got, array)
    assert got.shape == array.shape
    assert found["a"][1] == (1, "b", None)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_values_and_scalars_come_through(tmp_path, protocol):
    value = {"x": (1, 2.5, "é", b"\xff\x00", None, True, [3], {4}, 10**30), 7: np.float32(0.1), 8: np.int64(-3)}
    assert unpickle.load(write(tmp_path / "x.pickle", pickle.dumps(value, protocol))) == value


def test_numpy_of_today_and_yesterday(tmp_path):
    new = pickle.dumps(np.arange(3.0), 2)
    assert b"numpy._core" in new, "NumPy no longer names its new place"
    for content in (new, new.replace(b"numpy._core", b"numpy.core")):
        got = unpickle.as_array(unpickle.load(write(tmp_path / "x.pickle", content)))
        np.testing.assert_array_equal(got, [0, 1, 2])  # pyright: ignore[reportArgumentType]


def test_what_is_no_array_is_none():
    assert unpickle.as_array([1, 2]) is None
    assert unpickle.as_array("numpy.ndarray") is None


@pytest.mark.parametrize(
    ("call", "refused"),
    [
        ((os.system, ("touch OWNED",)), f"{os.system.__module__}.system"),
        ((eval, ("open('OWNED', 'w')",)), "builtins.eval"),
        ((getattr, (os, "system")), "builtins.getattr"),
        ((np.load, ("x.npy",)), "numpy.load"),
        ((np.frombuffer, (b"12345678",)), "numpy.frombuffer"),
        ((collections.OrderedDict, ()), "collections.OrderedDict"),
        ((bytearray, (10**12,)), "builtins.bytearray"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_any_other_name_is_refused_by_name(tmp_path, monkeypatch, call, refused):
    monkeypatch.chdir(tmp_path)
    if call[1] and call[1][0] is os:  # A module cannot be pickled; its name is refused first all the same.
        call = (getattr, ("os", "system"))
    path = write(tmp_path / "x.pickle", pickle.dumps({"image": Calls(*call)}))
    with pytest.raises(InputError, match=f"asks for {refused}, which is neither"):
        unpickle.load(path)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["x.pickle"]


def array_state(shape: Any, code: str, data: Any, state: Any = None) -> bytes:
    """A pickle of an array that says of itself what it likes."""
    import numpy._core.multiarray as multiarray

    reconstruct = multiarray._reconstruct  # pyright: ignore[reportAttributeAccessIssue]
    dtype = Calls(np.dtype, (code, False, True), state or (3, "<", None, None, None, -1, -1, 0))
    return pickle.dumps(Calls(reconstruct, (np.ndarray, (0,), b"b"), (1, shape, dtype, False, data)))


def test_the_made_up_array_would_be_read():
    assert np.array_equal(pickle.loads(array_state((2,), "f8", bytes(16))), [0, 0])


@pytest.mark.parametrize(
    "content",
    [
        array_state((10**9, 10**9), "f8", bytes(16)),
        array_state((-1,), "f8", bytes(16)),
        array_state((2.0,), "f8", bytes(16)),
        array_state((True, 2), "O", [os.getcwd, 1]),
        array_state((2,), "f8", [1.0, 2.0]),
        array_state((1,), "V16", bytes(16)),
        array_state((1,), "f8,f8", bytes(16)),
        array_state((2,), "M8[s]", bytes(16)),
        array_state((2,), "f8", bytes(16), (3, "<", None, ("a",), {"a": (np.dtype("f8"), 0)}, 8, 8, 0)),
        array_state((2,), "f8", bytes(15)),
        array_state("ab", "f8", bytes(16)),
        b"",
        b"no pickle at all",
        b"\x80\x05" + b"]" * 100,
        pickle.dumps({"a": np.arange(1000.0)})[:-200],
        name("numpy", "ndarray") + b"(tR.",
        name("numpy", "ndarray") + b"}b0.",
        name("numpy", "dtype") + b"}(S'__func__'\nI1\nub.",
        name("numpy", "dtype") + b"(I8\ntR.",
        name("_codecs", "encode") + b"(S'a'\nS'zlib'\ntR.",
        b"Pos.system\n.",
        b"\x82\x01.",
    ],
    ids=range(22),
)
def test_what_lies_about_itself_is_one_sentence(tmp_path, content):
    with pytest.raises(InputError, match=r"x\.pickle is not a complete pickle \(.+\); fetch it again|asks for"):
        unpickle.load(write(tmp_path / "x.pickle", content))


def test_a_length_takes_no_memory_before_there_are_so_many_bytes(tmp_path):
    """A dozen bytes that announce 512 MiB, of each kind that has eight bytes of length."""
    for kind in (pickle.BYTEARRAY8, pickle.BINBYTES8, pickle.BINUNICODE8):
        path = write(tmp_path / "x.pickle", kind + (2**29).to_bytes(8, "little") + b"abc.")

        def refused(path: Path = path) -> None:
            with pytest.raises(InputError, match="is not a complete pickle"):
                unpickle.load(path)

        assert peak_mib(refused) < 50


def test_shared_lists_in_lists_take_no_time(tmp_path):
    value: list = [np.arange(3)]
    for _ in range(60):  # 2**60 paths lead to the array.
        value = [value, value]
    assert len(unpickle.load(write(tmp_path / "x.pickle", pickle.dumps(value)))) == 2


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_a_damaged_byte_never_gets_through_as_something_else(tmp_path_factory, data):
    """Whatever a flipped byte does, the answer is a value or one sentence."""
    content = bytearray(pickle.dumps({"a": {"image": np.linspace(0, 1, 6), "masks": [np.ones(3, np.uint8)]}}))
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] = data.draw(st.integers(0, 255))
    path = write(tmp_path_factory.mktemp("fuzz") / "x.pickle", bytes(content))
    with contextlib.suppress(InputError):
        array = unpickle.as_array(unpickle.load(path))
        assert array is None or math.prod(array.shape) < 1000
