"""Tasks over processes: all come back, a death is survived once, and no worker outlives its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lungjax import platforms
from lungjax.preparation import pool


def double(number: int) -> int:
    return 2 * number


def die_on_three(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * number


def die_once(task: tuple[int, str]) -> int:
    number, marker = task
    if number == 3 and not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * number


def fail(number: int) -> int:
    raise KeyError(number)


def jax_is_loaded(_: int) -> bool:
    import lungjax.preparation.run  # noqa: F401

    return "jax" in sys.modules


@pytest.mark.parametrize("count", [1, 2])
def test_every_task_comes_back_with_its_result(count):
    assert dict(pool.run(double, range(20), count)) == {number: 2 * number for number in range(20)}


def test_a_worker_killed_once_costs_nothing(tmp_path):
    tasks = [(number, str(tmp_path / "died")) for number in range(8)]
    assert dict(pool.run(die_once, tasks, 2)) == {task: 2 * task[0] for task in tasks}


def test_a_worker_killed_twice_names_the_task_and_the_rest_is_done():
    done = {}
    with pytest.raises(pool.WorkerDied) as caught:
        done.update(pool.run(die_on_three, range(8), 2))
    assert caught.value.task == 3
    assert done == {number: 2 * number for number in range(8) if number != 3}


def test_workers_share_the_cores(monkeypatch):
    monkeypatch.setattr(platforms, "core_count", lambda: 4)
    tasks = ("NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    assert dict(pool.run(os.getenv, tasks, 2)) == dict.fromkeys(tasks, "2")


@pytest.mark.parametrize("count", [1, 2])
def test_other_errors_come_through(count):
    with pytest.raises(KeyError):
        list(pool.run(fail, range(3), count))


def test_workers_do_without_jax():
    """A second task keeps both in the pool: with one worker the function would run in this process, with JAX."""
    assert [result for _, result in pool.run(jax_is_loaded, range(2), 2)] == [False, False]


ORPHANS = """
import os, sys, time
from lungjax import platforms
from lungjax.preparation import pool
def work(seconds):
    print(os.getpid(), flush=True)
    time.sleep(seconds)
if __name__ == "__main__":
    list(pool.run(work, [60, 60], 2))
"""


def test_workers_end_when_their_parent_is_killed(tmp_path):
    (tmp_path / "orphans.py").write_text(ORPHANS)
    parent = subprocess.Popen([sys.executable, str(tmp_path / "orphans.py")], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        children = [int(parent.stdout.readline()) for _ in range(2)]
        parent.kill()
        parent.wait()
    deadline = time.monotonic() + 10
    while any(is_alive(child) for child in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(is_alive(child) for child in children)


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
