"""Cores and locks on Linux, and with the modules hidden that macOS and Windows lack."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from lungjax import platforms


class FakeWindowsLocks(types.ModuleType):
    """`msvcrt` as far as it locks: bytes of files, each once, whoever holds it."""

    LK_NBLCK = 2

    def __init__(self) -> None:
        super().__init__("msvcrt")
        self.held: set[tuple[int, int, int]] = set()

    def locking(self, descriptor: int, mode: int, count: int) -> None:
        assert (mode, count) == (self.LK_NBLCK, 1)
        byte = (*os.fstat(descriptor)[1:3], os.lseek(descriptor, 0, os.SEEK_CUR))
        if byte in self.held:
            raise PermissionError(13, "Permission denied")
        self.held.add(byte)


@pytest.fixture
def without_fcntl(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeWindowsLocks]:
    """`platforms` as Windows would import it."""
    locks = FakeWindowsLocks()
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "fcntl", None)  # No import of it succeeds.
        patch.setitem(sys.modules, "msvcrt", locks)
        importlib.reload(platforms)
        assert platforms.fcntl is None
        yield locks
    importlib.reload(platforms)


def check_that_one_holds_it(path: Path) -> None:
    with path.open("w") as first, path.open("w") as second:
        assert platforms.try_lock(first)
        assert not platforms.try_lock(second)
        with path.with_name("other").open("w") as other:
            assert platforms.try_lock(other)


def test_one_holds_a_lock(tmp_path: Path):
    check_that_one_holds_it(tmp_path / "lock")
    with (tmp_path / "lock").open("w") as file:  # It was closed, and so freed.
        assert platforms.try_lock(file)


def test_one_holds_a_lock_on_windows(without_fcntl: FakeWindowsLocks, tmp_path: Path):
    (tmp_path / "lock").write_text("not empty")
    with (tmp_path / "lock").open("a") as file:
        file.write("x")
        assert platforms.try_lock(file)
    assert {start for *_, start in without_fcntl.held} == {0}, "not the first byte is locked"
    check_that_one_holds_it(tmp_path / "another")


def test_a_system_without_locks_is_told(
    without_fcntl: FakeWindowsLocks, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(platforms, "msvcrt", None)
    with (tmp_path / "lock").open("w") as file, pytest.raises(OSError, match="can lock no file"):
        platforms.try_lock(file)


def test_cores(monkeypatch: pytest.MonkeyPatch):
    """Those that this process may use, where Python can tell; else all of the computer's."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 5, 7}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 11)
    assert platforms.core_count() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    assert platforms.core_count() == 11
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert platforms.core_count() == 1


def test_a_computer_without_these_modules_prepares(kaggle_tree: Path, tmp_path: Path):
    """In a fresh process that has neither `fcntl` nor `sched_getaffinity`, as a Windows laptop."""
    source, out = str(kaggle_tree), str(tmp_path / "out")
    code = f"""
import os, sys, types
sys.modules["fcntl"] = None
del os.sched_getaffinity
windows = types.ModuleType("msvcrt")
windows.LK_NBLCK, windows.locked = 2, []
windows.locking = lambda *arguments: windows.locked.append(arguments)
sys.modules["msvcrt"] = windows
import lungjax.platforms
del sys.modules["msvcrt"]  # Python's own modules would look for the rest of Windows.
from lungjax import cli
assert cli.main(["prepare", "--workers", "1", "--source", {source!r}, "--out", {out!r}]) == 0
assert len(windows.locked) == 1
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "72 slices" in done.stdout
