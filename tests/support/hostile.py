"""What tests of hostile files share: damage, and what it may do to memory, to other files, to what is said."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from lungjax.ct.source import Entry
from lungjax.errors import Fault

FEW = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
MANY = settings(FEW, max_examples=4000, derandomize=False)

_listeners: list[list[str]] = []


def _hook(event: str, arguments: tuple) -> None:
    if event == "open" and _listeners and isinstance(arguments[0], str | bytes | os.PathLike):
        path = os.fsdecode(arguments[0])
        for heard in _listeners:
            if not path.endswith((".py", ".pyc")):  # Modules that are imported on the way.
                heard.append(path)


sys.addaudithook(_hook)  # Once and for all: Python has no way to take one away.


@contextlib.contextmanager
def opened_files() -> Iterator[list[str]]:
    """Every file that Python code opens meanwhile; what a C library opens by itself is not seen."""
    heard: list[str] = []
    _listeners.append(heard)
    try:
        yield heard
    finally:
        _listeners.remove(heard)


def peak_mib(run: Callable[[], object]) -> float:
    """By how much this process's memory grew at most while it ran."""
    before = _status_kib("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # The high-water mark begins anew.
    run()
    return (_status_kib("VmHWM") - before) / 1024


def _status_kib(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def read(module: ModuleType, entry: Entry) -> str:
    """The fault's name, or nothing; what the header alone tells is the same, and nothing outside is opened."""
    source = str(Path(entry.where).parent)
    name, message, scan = "", "", None
    with opened_files() as opened:
        check = module.check(entry)
        try:
            scan = module.read(entry)
        except Fault as fault:
            name = fault.name
            message = fault.message
    assert [path for path in opened if not path.startswith(source)] == []
    assert opened
    assert len(message.splitlines()) <= 1, message
    if scan is None:
        assert {one.name for one in check.faults} <= {name}
    else:
        assert (scan.voxels.dtype, scan.voxels.shape[0], check.faults) == (np.int16, check.slices, ())
    return name


def changed(content: bytes, data: st.DataObject, first: int = 0) -> bytes:
    """A few bytes of it, and perhaps its end."""
    spoiled = bytearray(content)
    for _ in range(data.draw(st.integers(1, 6))):
        spoiled[data.draw(st.integers(first, len(content) - 1))] = data.draw(
            st.sampled_from([0, 1, 127, 128, 254, 255])
        )
    return bytes(spoiled[: data.draw(st.sampled_from([len(content), len(content), first, len(content) - 1]))])
