"""Worker processes that decode batches: the same batches, deaf to signals meant for the run, and gone when it is."""

from __future__ import annotations

import collections
import itertools
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from absl import flags

from lungjax.data import loader, shards
from lungjax.errors import InputError


def batches(dataset: Path, workers: int, start: int = 0):
    flags.FLAGS.mark_as_parsed()  # Grain asks flags before it starts workers; `lungjax.main` has parsed them by then.
    slices = loader.Slices(shards.open_dataset(dataset), crop_px=32, crop_at="random")
    return loader.train_batches(slices, np.arange(20), batch_size=6, seed=1, workers=workers, start=start)


def test_workers_give_the_batches_that_threads_give_whatever_signals_come(slices_dataset: Path):
    before = set(multiprocessing.active_children())
    in_threads, in_processes = batches(slices_dataset, 0), batches(slices_dataset, 2)
    try:
        for number in range(20):
            one, other = next(in_threads), next(in_processes)
            for name, value in one.items():
                np.testing.assert_array_equal(other[name], value)
            if number == 4:
                workers = set(multiprocessing.active_children()) - before
                assert len(workers) == 2
                for worker in workers:
                    assert worker.pid is not None
                    os.kill(worker.pid, signal.SIGINT)
                    os.kill(worker.pid, signal.SIGTERM)
    finally:
        in_processes.close()
    assert not set(multiprocessing.active_children()) - before


def test_from_a_number_on_workers_give_the_same_batches(slices_dataset: Path):
    in_threads, in_processes = batches(slices_dataset, 0), batches(slices_dataset, 3, start=7)
    try:
        for _ in range(7):
            next(in_threads)
        for _ in range(5):
            one, other = next(in_threads), next(in_processes)
            for name, value in one.items():
                np.testing.assert_array_equal(other[name], value)
    finally:
        in_processes.close()


def test_a_damaged_shard_is_named_by_the_run_whoever_read_it(slices_dataset: Path, tmp_path: Path):
    copy = shutil.copytree(slices_dataset, tmp_path / "copy")
    (shard,) = (copy / "shards").iterdir()
    content = bytearray(shard.read_bytes())
    for place in range(len(content) // 4, len(content) * 3 // 4, 97):
        content[place] ^= 0x55
    shard.write_bytes(content)
    before = set(multiprocessing.active_children())
    in_processes = batches(copy, 2)
    with pytest.raises(InputError, match=rf"{shard} is damaged .*; prepare the data again"):
        collections.deque(itertools.islice(in_processes, 20), maxlen=0)
    in_processes.close()
    assert not set(multiprocessing.active_children()) - before


RUN = """
import multiprocessing, sys, time
from pathlib import Path
from test_loader_workers import batches
if __name__ == "__main__":
    iterator = batches(Path(sys.argv[1]), 2)
    next(iterator), next(iterator)
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    time.sleep(60)
"""


def test_workers_end_when_their_run_is_killed(slices_dataset: Path, tmp_path: Path):
    (tmp_path / "run.py").write_text(RUN)
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.Popen(
        [sys.executable, tmp_path / "run.py", slices_dataset], env=env, stdout=subprocess.PIPE, text=True
    )
    assert run.stdout is not None
    with run.stdout:
        workers = [int(pid) for pid in run.stdout.readline().split()]
        run.kill()
        run.wait()
    assert len(workers) == 2
    end = time.monotonic() + 10
    while any(is_alive(worker) for worker in workers):
        assert time.monotonic() < end
        time.sleep(0.05)


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
