"""A shard that was damaged after it was prepared ends a run, and all its processes, with one sentence."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import runs

from lungjax.data import shards
from lungjax.errors import InputError


def damage_train(data: Path) -> Path:
    """Flips bits all over the one shard, but of no record that validation reads; its size stays. Returns the shard."""
    (shard,) = (data / "shards").iterdir()
    others = np.flatnonzero(shards.open_dataset(data).index["split"] != "train")
    content = bytearray(shard.read_bytes())
    for place in range(1000, len(content), 2000):
        content[place] ^= 0x55
        shard.write_bytes(content)
        try:
            shards.open_dataset(data).pixels(others)
        except InputError:
            content[place] ^= 0x55
    shard.write_bytes(content)
    return shard


def test_a_shard_that_a_worker_process_finds_damaged_ends_the_run(slices_dataset: Path, tmp_path: Path):
    data = shutil.copytree(slices_dataset, tmp_path / "data")
    shard = damage_train(data)
    args = runs.command("segment.py:quick", tmp_path / "run", data, "--config.data.workers=2")
    env = runs.environment()
    with (tmp_path / "stderr.txt").open("w") as said:  # Not a pipe, which would stay open as long as any worker lives.
        run = subprocess.Popen(
            args, env=env, cwd=runs.ROOT, stdout=subprocess.DEVNULL, stderr=said, start_new_session=True
        )
    try:
        assert run.wait(timeout=300) == 2
        end = time.monotonic() + 20  # Python's own tracker of shared memory tidies up a moment longer.
        while runs.alive(session=run.pid) and time.monotonic() < end:
            time.sleep(0.1)
        assert runs.alive(session=run.pid) == {}
    finally:
        for process in runs.alive(session=run.pid):
            os.kill(process, signal.SIGKILL)
    began, *_, error = (tmp_path / "stderr.txt").read_text().splitlines()
    assert began.startswith("segment: ")  # The damage is met by who decodes the batches, and not before.
    assert error.startswith(f"lungjax: error: {shard} is damaged (")
    assert error.endswith("); prepare the data again.")
    assert "Traceback" not in (tmp_path / "stderr.txt").read_text()
