"""`prepare` killed again and again, by SIGKILL, at the scale of many scans and workers: the same bytes in the end."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from preparing import contents
from source_files import write_scan

from lungjax.lidc import annotations
from lungjax.preparation import merge
from lungjax.preparation.run import prepare

SCANS, KILLS = 48, 5
PREPARE = """
import sys
from lungjax.preparation import merge
from lungjax.preparation.run import prepare
if __name__ == "__main__":
    merge.SHARD_BYTES = int(sys.argv[3])
    prepare(sys.argv[1], sys.argv[2], workers=2)
"""
SHARD_BYTES = 2**18
"""Small, so that there are many shards of several parts, as there are of large scans."""


def start(source: Path, out: Path) -> subprocess.Popen:
    command = [sys.executable, "-c", PREPARE, str(source), str(out), str(SHARD_BYTES)]
    return subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)


def killed_when(process: subprocess.Popen, moment: Callable[[], bool], later_s: float) -> bool:
    """Whether it and its workers were still at work a little after the moment, and so were killed."""
    while not moment() and process.poll() is None:
        time.sleep(0.001)
    time.sleep(later_s)
    at_work = process.poll() is None
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return at_work


@pytest.mark.exhaustive
def test_many_scans_killed_many_times_are_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(merge, "SHARD_BYTES", SHARD_BYTES)
    source, partial = tmp_path / "dicom", tmp_path / "killed.partial"
    for row in sorted(annotations.all_scans(), key=lambda row: len(row.z_mm))[:SCANS]:
        write_scan(source / row.series_uid, row, matrix=32)
    prepare(source, tmp_path / "whole", workers=1)
    chance = random.Random(0)

    def parts() -> int:
        return len(list(partial.glob("parts/*.json")))

    def shards() -> int:
        return len(list(partial.glob("shards/*.array_record")))

    kept, killed = 0, 0
    for number in range(KILLS):
        wanted = SCANS * (number + 1) // (KILLS + 1)
        process = start(source, tmp_path / "killed")
        killed += killed_when(process, lambda wanted=wanted: parts() >= wanted, chance.uniform(0, 0.05))
        assert kept < parts() < SCANS, "what was finished is lost, or nothing was left to kill"
        kept = parts()
    for wanted in (2, 5):  # While parts become shards, and some are in both or in neither place.
        process = start(source, tmp_path / "killed")
        killed += killed_when(process, lambda wanted=wanted: shards() >= wanted, 0)
    assert killed == KILLS + 2
    assert start(source, tmp_path / "killed").wait() == 0
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    assert len(list((tmp_path / "whole").glob("shards/*"))) >= 20
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dicom", "killed", "whole"]
