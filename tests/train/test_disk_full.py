"""A disk that is full: one sentence, the last good state stays whole, and the run goes on when there is room."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import runs
from test_resume import assert_same_parameters

from lungjax import cli
from lungjax.train import checkpoint

LENGTH = ("--config.steps=24", "--config.eval_every=12", "--config.checkpoint_every=3")


def resize(folder: Path, kilobytes: int, *how: str) -> None:
    options = ",".join([*how, f"size={kilobytes}k"])
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("only root can mount a small disk")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own, of 20 kB at first."""
    folder = tmp_path / "disk"
    folder.mkdir()
    resize(folder, 20)
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.slow
def test_training_goes_on_when_there_is_room(slices_dataset: Path, tmp_path: Path, disk: Path):
    """It fills at a file of the run, at each file of the first checkpoint, at later ones, at pictures and logs."""
    env = runs.environment()
    whole = runs.run(runs.command("segment.py:quick", tmp_path / "whole", slices_dataset, *LENGTH), env)
    assert whole.returncode == 0, whole.stderr
    broken = runs.command("segment.py:quick", disk / "run", slices_dataset, *LENGTH)
    steps = []
    for kilobytes in (20, 1000, 2500):
        resize(disk, kilobytes, "remount")
        done = runs.run(broken, env)
        if done.returncode == 0:
            break
        assert done.returncode == 2
        assert "Traceback" not in done.stderr, done.stderr
        assert done.stderr.splitlines()[-1].endswith("; the same command goes on from the last checkpoint")
        assert "No space left on device" in done.stderr.splitlines()[-1]
        steps.append(checkpoint.load_best(disk / "run")[1] if checkpoint.has_checkpoint(disk / "run") else 0)
    assert len(steps) == 3
    assert steps == sorted(steps), "a checkpoint that was complete is lost"
    resize(disk, 50_000, "remount")
    last = runs.run(broken, env)
    assert last.returncode == 0, last.stderr
    assert_same_parameters(tmp_path / "whole", disk / "run")
    assert runs.logged_steps(disk / "run") == runs.logged_steps(tmp_path / "whole")
    assert not list((disk / "run").rglob("*tmp*"))


@pytest.mark.parametrize("format", ["safetensors", "orbax", pytest.param("stablehlo", marks=pytest.mark.slow)])
def test_an_export_is_complete_or_not_there(disk: Path, capfd: pytest.CaptureFixture[str], format: str):
    for kilobytes in (20, 150):
        resize(disk, kilobytes, "remount")
        assert cli.main(["export", "--model", "encoder", "--out", str(disk / "out"), "--format", format]) == 2
        said = capfd.readouterr().err
        assert said.splitlines()[-1].startswith("lungjax: error: ")
        assert said.endswith(": No space left on device\n")
        assert "Traceback" not in said
        assert list(disk.iterdir()) == []
    resize(disk, 50_000, "remount")
    assert cli.main(["export", "--model", "encoder", "--out", str(disk / "out"), "--format", format]) == 0
