"""Preparation on a Dask scheduler that is really there: the same bytes, also when a worker is killed."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest
from dask_fixtures import PATIENCE_S, wait_for, worker_count
from preparing import contents

from lungjax.errors import InputError
from lungjax.preparation import dask_cluster, phantom
from lungjax.preparation.run import prepare

SCANS = 6


@pytest.mark.slow
def test_a_worker_killed_in_the_middle_changes_no_byte(tmp_path, dask):
    address, workers = dask
    source, out = tmp_path / "dicom", tmp_path / "there" / "data"
    phantom.write(source, scans=SCANS, matrix=128)
    command = [sys.executable, "-m", "lungjax.cli", "prepare", "--source", source, "--out", out, "--dask", address]
    run = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    parts = out.with_name("data.partial") / "parts"
    wait_for(lambda: bool(list(parts.glob("*.json"))) or run.poll() is not None)
    done = len(list(parts.glob("*.json")))
    workers[0].send_signal(signal.SIGKILL)
    said, _ = run.communicate(timeout=PATIENCE_S)
    assert run.returncode == 0, said
    assert 1 <= done < SCANS, "the worker was not killed in the middle"
    assert workers[0].wait() == -signal.SIGKILL
    assert workers[1].poll() is None
    prepare(source, tmp_path / "here" / "data", workers=1)
    assert contents(out) == contents(tmp_path / "here" / "data")


@pytest.mark.slow
def test_what_a_cluster_lacks_is_one_sentence(tmp_path, dask, monkeypatch):
    address, workers = dask
    with pytest.raises(InputError, match=rf"--dask {address}: tcp://.* does not find {tmp_path}/nowhere; mount it"):
        list(dask_cluster.run(str, [1], address, paths=[tmp_path / "nowhere"]))
    monkeypatch.setattr(dask_cluster, "VERSION", "99")
    with pytest.raises(InputError, match=r"has lungjax .*, not 99; install this version"):
        list(dask_cluster.run(str, [1], address, paths=[]))
    for worker in workers:
        worker.kill()
    wait_for(lambda: worker_count(address) == 0)
    with pytest.raises(InputError, match="the scheduler has no workers; start some"):
        list(dask_cluster.run(str, [1], address, paths=[]))


def test_no_scheduler_is_one_sentence(tree, tmp_path, monkeypatch):
    monkeypatch.setattr(dask_cluster, "_CONNECT", "0.2s")
    for address in ("tcp://127.0.0.1:1", "nonsense"):
        with pytest.raises(InputError, match=f"--dask {address}: no Dask scheduler answers there"):
            prepare(tree, tmp_path / "out", dask=address)


def test_without_dask_the_extra_is_named(tree, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"run `pip install 'lungjax\[dask\]'`"):
        prepare(tree, tmp_path / "out", format="slices", dask="tcp://127.0.0.1:1")
