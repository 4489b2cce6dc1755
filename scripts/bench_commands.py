"""Whole commands of lungjax in processes of their own, by turns: what the benchmarks of commands share.

A command is timed with its start, its imports and its output files: with an empty cache of compiled programs, with that
of the turn before and, where another checkout of lungjax is named, by that one, with its own cache if it has one.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
COLD, WARM, OTHER = "nothing compiled yet", "compiled before", "the other checkout"


@dataclasses.dataclass(frozen=True)
class Used:
    """What one command took; its processor time suffers less than its time from other work on the machine."""

    processor_s: float
    wall_s: float
    memory_mb: float


def by_turns(
    arguments: Callable[[Path], Sequence[str]], folder: Path, *, rounds: int, against: Path | None
) -> dict[str, list[Used]]:
    """Runs a command of lungjax in turns; one more round comes first, to fill caches, the system's too.

    Args:
      arguments: those of the command, for where it is to write: a path in `folder` with nothing there yet.
      folder: of files and caches; what the last command of each contender wrote stays at `out_of`.
      rounds: how often each is timed.
      against: another checkout.

    Returns:
      For `COLD`, `WARM` and, with `against`, `OTHER`, what each round took.
    """
    names = [COLD, WARM, *([OTHER] if against else [])]
    taken: dict[str, list[Used]] = {name: [] for name in names}
    for turn in range(rounds + 1):
        for number, name in enumerate(names):
            cache, out = folder / f"cache-{number}", out_of(folder, name)
            shutil.rmtree(out.parent, ignore_errors=True)
            out.parent.mkdir()
            if name == COLD:
                if not turn:
                    continue  # It has no cache to fill, and the system's is filled by the others.
                shutil.rmtree(cache, ignore_errors=True)
            checkout = against.resolve() if against and name == OTHER else ROOT
            used = run(arguments(out), checkout, cache)
            if turn:
                taken[name].append(used)
    return taken


def out_of(folder: Path, name: str) -> Path:
    """Where the contender `name` writes."""
    return folder / f"out-{(COLD, WARM, OTHER).index(name)}" / "out"


def report(taken: dict[str, list[Used]]) -> None:
    """Prints the medians of each contender, and the ratio of processor times to another checkout."""
    medians = {name: np.median([used.processor_s for used in each]) for name, each in taken.items()}
    for name, each in taken.items():
        wall_s = np.median([used.wall_s for used in each])
        memory_mb = max(used.memory_mb for used in each)
        print(f"{name}: {medians[name]:.1f} s of processor time, {wall_s:.1f} s, at most {memory_mb:.0f} MB")
    if OTHER in medians:
        print(f"{WARM}: {medians[WARM] / medians[OTHER]:.1%} of the other checkout's processor time")


def run(arguments: Sequence[str], checkout: Path, cache: Path, *, cores: set[int] | None = None) -> Used:
    """Runs one command of lungjax.

    Args:
      arguments: of the command.
      checkout: whose.
      cache: folder of its compiled programs.
      cores: to which it is bound; by default none.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    environment |= {"PYTHONPATH": str(checkout), "XDG_CACHE_HOME": str(cache)}
    command = [sys.executable, "-m", "lungjax.cli", *arguments]
    start = time.perf_counter()
    bind = None if cores is None else functools.partial(os.sched_setaffinity, 0, cores)
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            command, env=environment, cwd=checkout, stdout=said, stderr=subprocess.STDOUT, preexec_fn=bind
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise SystemExit(f"{' '.join(command)} failed: {said.read().decode(errors='replace')}")
    return Used(used.ru_utime + used.ru_stime, time.perf_counter() - start, used.ru_maxrss / 1024)
