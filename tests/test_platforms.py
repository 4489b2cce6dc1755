"""Cores and locks on Linux, and with the modules hidden that macOS and Windows lack."""

from __future__ import annotations

import contextlib
import importlib
import os
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
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


def test_a_lock_file_is_removed_by_its_holder(tmp_path: Path):
    path = tmp_path / "lock"
    with platforms.lock_file(path) as first:
        with platforms.lock_file(path) as second:
            assert (first, second) == (True, False)
        assert path.exists(), "removed by one that did not hold it"
    assert not path.exists()
    with pytest.raises(ZeroDivisionError), platforms.lock_file(path):
        raise ZeroDivisionError
    assert not path.exists()
    path.write_text("his")
    with pytest.raises(FileExistsError, match="lock is in the way"), platforms.lock_file(path):
        pass
    assert path.read_text() == "his"


def test_a_lock_file_that_its_holder_removed_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Or else two would hold it: one the removed file, one the new one."""
    path = tmp_path / "lock"
    try_lock, opened = platforms.try_lock, []

    def removed_meanwhile(file) -> bool:
        opened.append(file)
        if len(opened) == 1:
            path.unlink()
        return try_lock(file)

    monkeypatch.setattr(platforms, "try_lock", removed_meanwhile)
    with platforms.lock_file(path) as locked:
        assert (locked, len(opened), path.exists()) == (True, 2, True)
        assert opened[0].closed


def test_a_lock_file_is_closed_before_windows_removes_it(
    without_fcntl: FakeWindowsLocks, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(Path, "unlink", refuse_if_open(Path.unlink))
    with platforms.lock_file(tmp_path / "lock") as locked:
        assert locked
        with pytest.raises(PermissionError):
            (tmp_path / "lock").unlink()
    assert not (tmp_path / "lock").exists()
    without_fcntl.held.clear()
    with (tmp_path / "lock").open("w"), platforms.lock_file(tmp_path / "lock") as locked:  # By the next holder.
        assert locked
    assert (tmp_path / "lock").exists()


def refuse_if_open(change: Callable) -> Callable:
    """A method of `Path` as Windows has it: a file that is open, or a folder with one in it, stays as it is."""

    def refusing(self: Path, *arguments, **options):
        path, opened = self.resolve(), []
        for descriptor in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):  # That of the listing itself is closed by now.
                opened.append(descriptor.readlink())
        if any(file.is_relative_to(path) for file in opened):
            raise PermissionError(13, "The process cannot access the file", str(self))
        return change(self, *arguments, **options)

    return refusing


def test_cores(monkeypatch: pytest.MonkeyPatch):
    """Those that this process may use, where Python can tell; else all of the computer's."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 5, 7}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 11)
    assert platforms.core_count() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    assert platforms.core_count() == 11
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert platforms.core_count() == 1


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux binds a process to cores")
def test_a_process_is_bound_to_cores():
    code = """
import os
from lungjax import platforms
had = os.sched_getaffinity(0)
assert platforms.bind_to_cores(10**6) == len(had) == platforms.core_count()
assert platforms.bind_to_cores(1) == 1 == platforms.core_count()
assert os.sched_getaffinity(0) == {min(had)}
del os.sched_setaffinity
try:
    platforms.bind_to_cores(1)
except OSError as error:
    assert "use Linux" in str(error)
else:
    raise AssertionError("a system that cannot said nothing")
"""
    subprocess.run([sys.executable, "-c", code], timeout=60, check=True)


@pytest.mark.parametrize("verb", ["prepare", "phantom"])
def test_a_computer_without_these_modules_works(kaggle_tree: Path, tmp_path: Path, verb: str):
    """In a fresh process that has neither `fcntl` nor `sched_getaffinity`, as a Windows laptop.

    And that renames and removes nothing that is open.
    """
    given = {"prepare": ["--source", str(kaggle_tree), "--workers", "1"], "phantom": ["--scans", "1", "--matrix", "32"]}
    out = tmp_path / "out"
    code = f"""
import os, sys, types
sys.path.insert(0, {str(Path(__file__).parent)!r})
sys.modules["fcntl"] = None
del os.sched_getaffinity
windows = types.ModuleType("msvcrt")
windows.LK_NBLCK, windows.locked = 2, []
windows.locking = lambda *arguments: windows.locked.append(arguments)
sys.modules["msvcrt"] = windows
import lungjax.platforms
del sys.modules["msvcrt"]  # Python's own modules would look for the rest of Windows.
from pathlib import Path
from test_platforms import refuse_if_open
for name in ("rename", "replace", "unlink", "rmdir"):
    setattr(Path, name, refuse_if_open(getattr(Path, name)))
from lungjax import cli
assert cli.main({[verb, *given[verb], "--out", str(out)]!r}) == 0
assert len(windows.locked) == 1
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert {"prepare": "72 slices", "phantom": "1 phantom series"}[verb] in done.stdout
    assert list(tmp_path.iterdir()) == [out]
