"""One command at a time writes a folder: in real processes, killed ones too, and without the locks of an OS."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import runs

import lungjax
from lungjax import locks, platforms
from lungjax.errors import InputError

HOLD = """
import sys
from pathlib import Path
from lungjax import locks
out = Path(sys.argv[1])
with locks.hold(locks.path_of(out), of=out, option="--out"):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def holder(out: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock of `out` until its standard input is closed."""
    command = [sys.executable, "-c", HOLD, str(out)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=runs.ROOT)
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        process.stdout.close()
        process.wait(timeout=60)


def hold(out: Path) -> contextlib.AbstractContextManager[None]:
    return locks.hold(locks.path_of(out), of=out, option="--out")


def cli(*arguments: str) -> subprocess.CompletedProcess[str]:
    return runs.run([sys.executable, "-m", "lungjax.cli", *arguments], runs.environment())


def test_the_second_of_two_processes_is_told(tmp_path: Path):
    out = tmp_path / "made" / "out"
    with holder(out):
        with pytest.raises(InputError, match=r"out is in use by another lungjax process; wait for it to end, or name"):
            hold(out).__enter__()
        with hold(tmp_path / "other"):
            pass
    with hold(out):
        pass
    assert list(tmp_path.iterdir()) == [], "locks and folders that were made for them stay"


def test_a_killed_process_leaves_nothing_locked(tmp_path: Path):
    with holder(tmp_path / "out") as process:
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=60)
        assert (tmp_path / "out.lock").exists()
        with hold(tmp_path / "out"):
            pass
    assert list(tmp_path.iterdir()) == []


def test_a_copy_of_a_locked_folder_is_free(tmp_path: Path):
    """On whatever computer: the lock is the operating system's, and the file says nothing."""
    out = tmp_path / "there" / "out"
    with holder(out):
        assert (tmp_path / "there" / "out.lock").read_bytes() == b""
        shutil.copytree(tmp_path / "there", tmp_path / "copy")
        with hold(tmp_path / "copy" / "out"):
            pass


def test_a_mount_point_is_locked_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What lies beside it is another disk."""
    out = tmp_path / "out"
    out.mkdir()
    assert locks.path_of(out) == tmp_path / "out.lock"
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == out)
    assert platforms.is_fixed(out)
    assert locks.path_of(out) == out / "lungjax.lock"


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], code: int
):
    def refused(_file) -> bool:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(platforms, "try_lock", refused)
    with hold(tmp_path / "out"):
        pass
    assert "warning" in (text := capsys.readouterr().err)
    assert "knows no locks; start no second command that writes" in text


@pytest.mark.parametrize("verb", ["predict", "follow-up", "gather", "export"])
def test_every_verb_that_writes_a_folder_waits_its_turn(tmp_path: Path, verb: str):
    out = tmp_path / ("out.npz" if verb == "gather" else "out")
    given = {
        "predict": ["predict", "scan"],
        "follow-up": ["predict", "a", "b", "--same-patient"],
        "gather": ["gather", "predicted", "--source", "scans"],
        "export": ["export", "--model", "encoder"],
    }[verb]
    with holder(out):
        done = cli(*given, "--out", str(out))
    assert done.returncode == 2
    assert done.stderr == (
        f"lungjax: error: {out} is in use by another lungjax process; wait for it to end, or name another --out.\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", ["prepare", "mine"])
def test_prepare_and_mine_wait_their_turn(slices_dataset: Path, kaggle_tree: Path, tmp_path: Path, verb: str):
    given = {
        "prepare": ["--source", str(kaggle_tree), "--workers", "1"],
        "mine": ["--model", "segmenter", "--data", str(slices_dataset)],
    }[verb]
    with holder(tmp_path / "out.partial"):
        done = cli(verb, *given, "--out", str(tmp_path / "out"))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "out.partial is in use by another lungjax process" in done.stderr


def test_two_evaluations_of_one_file_never_mix(slices_dataset: Path, tmp_path: Path):
    """Nor do two that name none: it is the same one."""
    with holder(tmp_path / "out.json"):
        done = cli(
            "evaluate", "--model", "segmenter", "--data", str(slices_dataset), "--out", str(tmp_path / "out.json")
        )
    assert done.returncode == 2
    assert done.stderr == (
        f"lungjax: error: {tmp_path / 'out.json'} is in use by another lungjax process; wait for it to end, or name "
        "another --out.\n"
    )
    assert list(tmp_path.iterdir()) == []
    default = tmp_path / "evaluation-segmenter-test-slices.json"
    command = [sys.executable, "-m", "lungjax.cli", "evaluate", "--model", "segmenter", "--data", str(slices_dataset)]
    with holder(default):
        again = subprocess.run(
            command,
            env={**runs.environment(), "PYTHONPATH": str(runs.ROOT)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
    assert f"{default.name} is in use by another lungjax process" in again.stderr
    assert list(tmp_path.iterdir()) == []


def test_evaluations_of_other_kinds_wait_their_turn_too(dicom: Path, tmp_path: Path):
    file = tmp_path / "out.json"
    with holder(file):
        with pytest.raises(InputError, match=r"out\.json is in use by another lungjax process"):
            lungjax.evaluate(submission=tmp_path / "no.csv", luna16=tmp_path, out=file)
        with pytest.raises(InputError, match=r"out\.json is in use by another lungjax process"):
            lungjax.evaluate("detector", whole_scans=True, candidate_classifier=None, data=dicom, split="all", out=file)


def test_two_trainings_of_one_workdir_never_mix(slices_dataset: Path, tmp_path: Path):
    workdir, env = tmp_path / "run", runs.environment()
    first = runs.command("segment.py:quick", workdir, slices_dataset, "--config.steps=5000")
    second = runs.command("segment.py:quick", workdir, slices_dataset, "--config.steps=5000")
    refused: list[subprocess.CompletedProcess[str]] = []
    process = subprocess.Popen(first, env=env, cwd=runs.ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        while not (workdir / "config.json").exists():
            assert process.poll() is None
        refused.append(runs.run(second, env))
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=120) == 0
    finally:
        process.kill()
        process.wait()
    assert refused[0].returncode == 2
    assert refused[0].stderr == (
        f"lungjax: error: {workdir} is in use by another lungjax process; wait for it to end, or name another "
        "--workdir.\n"
    )
    steps = runs.logged_steps(workdir)
    assert steps == sorted(set(steps)), "both have written"
    assert not (workdir / locks.NAME).exists()
