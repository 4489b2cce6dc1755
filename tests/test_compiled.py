"""Compiled programs are kept for the next process, and nothing that is wrong with their files stops a run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lungjax import compiled, platforms

PROGRAM = """
from lungjax import compiled
compiled.keep()
import jax
import numpy as np
hits = []
jax.monitoring.register_event_listener(lambda event, **_: hits.append(event) if event.endswith("cache_hits") else None)
print(float(jax.jit(lambda x: (x @ x).sum())(np.ones((8, 8), np.float32))), len(hits))
"""
NO_SPACE = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
"""
"""Every write to a file fails, as on a full disk."""


def compile_in_a_process(cache: Path, *, full_disk: bool = False, **variables: str) -> int:
    """Runs the program; it gave the right number and no warning. Returns how many programs it found compiled."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    env |= {"XDG_CACHE_HOME": str(cache), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", **variables}
    command = [sys.executable, "-B", "-c", (NO_SPACE if full_disk else "") + PROGRAM]
    run = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    total, hits = run.stdout.split()
    assert float(total) == 512
    return int(hits)


def files(cache: Path) -> list[Path]:
    return sorted(cache.rglob("*-cache"))


def test_the_next_process_compiles_nothing(tmp_path: Path):
    assert compile_in_a_process(tmp_path) == 0
    kept = files(tmp_path)
    assert kept
    assert {path.parent.parent for path in kept} == {tmp_path / "lungjax" / "compiled"}
    assert compile_in_a_process(tmp_path) == len(kept)
    for path in kept:  # As a process leaves them that is killed as it writes.
        path.write_bytes(path.read_bytes()[:-100])
    assert compile_in_a_process(tmp_path) == 0
    assert files(tmp_path) == kept
    assert compile_in_a_process(tmp_path) == len(kept)


def test_a_folder_that_cannot_be_used_stops_no_run(tmp_path: Path):
    (tmp_path / "lungjax").touch()
    assert compile_in_a_process(tmp_path) == 0
    assert compile_in_a_process(tmp_path / "full", full_disk=True) == 0
    assert not any(path.stat().st_size for path in files(tmp_path))


def test_it_can_be_turned_off(tmp_path: Path):
    assert compile_in_a_process(tmp_path, JAX_ENABLE_COMPILATION_CACHE="false") == 0
    assert files(tmp_path) == []


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_each_kind_of_cpu_has_its_own(cache: Path, monkeypatch: pytest.MonkeyPatch):
    mine = compiled._make_folder()
    assert mine == compiled._make_folder()
    assert mine.is_relative_to(cache)
    monkeypatch.setattr(platforms, "cpu", lambda: "another")
    assert compiled._make_folder() != mine


def test_what_others_can_write_is_not_run(cache: Path):
    compiled._make_folder().chmod(0o777)
    with pytest.raises(PermissionError, match="written by others"):
        compiled._make_folder()


def test_the_oldest_go_first(cache: Path, monkeypatch: pytest.MonkeyPatch):
    folder = compiled._make_folder()
    for number in range(4):
        (folder / f"{number}-cache").write_bytes(b"zstandard"[:8])
        os.utime(folder / f"{number}-cache", (number, number))
    (folder / "4-cache").touch()
    monkeypatch.setattr(compiled, "MOST_BYTES", 20)
    compiled._clean(folder)
    assert [path.name for path in files(folder)] == ["2-cache", "3-cache"]


def test_the_cache_folder_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    expected = {"linux": ".cache", "darwin": "Library/Caches", "win32": "AppData/Local"}
    monkeypatch.delenv("LOCALAPPDATA", raising=False)
    for system, folder in expected.items():
        monkeypatch.setattr(sys, "platform", system)
        assert platforms.cache_folder() == tmp_path / folder
