"""The main job by the commands that a user has: `scripts/demo.sh` from nothing to figures on unseen patients."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DICE = 0.70
"""What configs/segment.py promises of `quick`, pooled over the test patients."""


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    asked = subprocess.run(
        "cat requirements.lock pyproject.toml | cksum", shell=True, cwd=ROOT, capture_output=True, text=True, check=True
    )
    stamp = ROOT / ".venv" / "stamp"
    if not stamp.is_file() or stamp.read_text() != asked.stdout:  # A test must not install anything.
        pytest.skip(".venv is not what requirements.lock and pyproject.toml ask for: run this by scripts/test.sh")
    out = tmp_path_factory.mktemp("demo")
    tests_own = ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES", "JAX_COMPILATION_CACHE_DIR")
    env = {name: value for name, value in os.environ.items() if name not in tests_own}
    done = subprocess.run(
        ["bash", str(ROOT / "scripts" / "demo.sh")],
        env=env | {"DEMO_DIR": str(out), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    promised = [line.split() for line in done.stdout.rpartition("Look at:")[2].splitlines()]
    assert len([words for words in promised if words]) == 4
    return out


@pytest.mark.slow
def test_the_figures_hold_what_was_promised(demo: Path):
    report = json.loads((demo / "segment" / "evaluation-test.json").read_text())
    assert {"split", "patients", "slices", "pooled", "per_slice", "readers", "model", "data"} <= report.keys()
    split = json.loads((demo / "data" / "manifest.json").read_text())["split"]
    assert (report["split"], report["patients"]) == ("test", list(split["patients"].values()).count("test"))
    assert report["data"]["split_digest"] == split["digest"]
    assert report["model"]["init_from"] == str(demo / "simclr")
    dice = report["pooled"]["dice"]
    assert dice["value"] >= DICE
    assert 0 < dice["low"] < dice["high"] < 1


@pytest.mark.slow
@pytest.mark.parametrize("run", ["simclr", "segment"])
def test_each_run_leaves_what_was_promised(demo: Path, run: str):
    workdir = demo / run
    for name in ("config.json", "split.json", "metrics.jsonl", "plots/loss.png", "plots/accuracy.png"):
        assert (workdir / name).stat().st_size > 0
    for name in ("checkpoints/*/*", "tensorboard/*", "examples/*.png"):
        assert any(workdir.glob(name)), name
    steps = json.loads((workdir / "config.json").read_text())["steps"]
    assert (workdir / "checkpoints" / str(steps)).is_dir()
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == steps
    losses = [line["train/loss"] for line in lines if "train/loss" in line]
    assert losses[-1] < losses[0]


@pytest.mark.slow
def test_the_pictures_are_there(demo: Path):
    names = {path.name for path in (demo / "segment").glob("evaluation-test.*")}
    assert names == {
        "evaluation-test.json",
        "evaluation-test.worst.png",
        "evaluation-test.spread.png",
        "evaluation-test.best.png",
        "evaluation-test.table.txt",
        "evaluation-test.reliability.png",
        "evaluation-test.dice.png",
    }
    assert {"dice.png", "precision.png"} <= {path.name for path in (demo / "segment" / "plots").iterdir()}
