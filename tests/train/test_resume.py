"""A run that was killed and started again is the run that was not."""

from __future__ import annotations

import signal
from pathlib import Path

import jax
import numpy as np
import pytest
import runs

from lungjax.train import checkpoint

STEPS = 24
LENGTH = (f"--config.steps={STEPS}", f"--config.eval_every={STEPS}", "--config.checkpoint_every=3")


def assert_same_parameters(a: Path, b: Path) -> None:
    (one, step_one), (two, step_two) = checkpoint.load_best(a), checkpoint.load_best(b)
    assert step_one == step_two == STEPS
    leaves_one, leaves_two = jax.tree.leaves(one), jax.tree.leaves(two)
    assert len(leaves_one) == len(leaves_two) > 20
    for x, y in zip(leaves_one, leaves_two, strict=True):
        np.testing.assert_array_equal(x, y)  # bit for bit


@pytest.mark.parametrize(
    ("config", "workers"),
    [
        pytest.param("segment.py:quick", (0, 2, 1, 0), marks=pytest.mark.slow),
        pytest.param("segment.py:quick", (2, 3, 0, 2), marks=pytest.mark.exhaustive),
        pytest.param("simclr.py:quick", (0, 0, 0, 0), marks=pytest.mark.exhaustive),
        pytest.param("simclr.py:quick", (2, 2, 1, 2), marks=pytest.mark.exhaustive),
    ],
)
def test_three_sigkills_change_nothing(slices_dataset: Path, tmp_path: Path, config: str, workers: tuple[int, ...]):
    """Nor do other numbers of worker processes."""
    env = runs.environment()
    whole, broken = tmp_path / "whole", tmp_path / "broken"

    def command(folder: Path, workers: int) -> list[str]:
        return runs.command(config, folder, slices_dataset, *LENGTH, f"--config.data.workers={workers}")

    done = runs.run(command(whole, workers[0]), env)
    assert done.returncode == 0, done.stderr

    rng = np.random.default_rng(workers[0])
    steps = sorted(rng.choice(np.arange(4, STEPS - 2), 3, replace=False))
    for step, count in zip(steps, workers[:3], strict=True):
        code = runs.run_until(command(broken, count), env, broken, int(step), signal.SIGKILL)
        assert code == -signal.SIGKILL
    last = runs.run(command(broken, workers[3]), env)
    assert last.returncode == 0, last.stderr

    assert_same_parameters(whole, broken)
    steps = [s for s in runs.logged_steps(broken) if s < STEPS]
    assert steps == list(range(1, STEPS))  # Every step is logged once, kills or not.


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_run_told_to_stop_saves_and_exits_cleanly(slices_dataset: Path, tmp_path: Path, how: signal.Signals):
    env = runs.environment()
    args = runs.command(
        "segment.py:quick",
        tmp_path / "run",
        slices_dataset,
        "--config.steps=5000",
        "--config.checkpoint_every=5000",
    )
    code = runs.run_until(args, env, tmp_path / "run", 3, how)
    assert code == 0
    _, step = checkpoint.load_best(tmp_path / "run")
    assert step == max(runs.logged_steps(tmp_path / "run")) >= 3
