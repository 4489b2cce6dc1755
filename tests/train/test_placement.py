"""Pixels on the device, and several steps a dispatch: the same run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import runs

from lungjax.data import on_device
from lungjax.errors import InputError
from lungjax.tasks.task import Config
from lungjax.train import checkpoint, loop, step
from lungjax.train.watch import NotFinite, StopSignal


def config_of(name: str, data: Path, **choices: Any) -> Config:
    config = runs.small_config(name, data)
    config.steps, config.log_every, config.eval_every, config.checkpoint_every = 9, 3, 9, 4
    config.data.crop_px = 32
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in choices.items()})
    return config


def lines(workdir: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def assert_same_run(workdir: Path, other: Path) -> None:
    """The same steps are logged, with the same figures; and the parameters are the same."""
    ours, theirs = lines(workdir), lines(other)
    assert [line["step"] for line in ours] == [line["step"] for line in theirs]
    for mine, reference in zip(ours, theirs, strict=True):
        assert mine.keys() == reference.keys()
        for name, value in reference.items():
            if name.startswith(("train/", "val/loss")):
                assert mine[name] == pytest.approx(value, rel=1e-3, abs=1e-5), name
    (a, step_a), (b, step_b) = checkpoint.load_best(workdir), checkpoint.load_best(other)
    assert step_a == step_b
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4)


@pytest.fixture(scope="module")
def plain(slices_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {name: tmp_path_factory.mktemp(name) for name in ("segment", "simclr")}
    for name, workdir in made.items():
        assert loop.train_and_evaluate(config_of(name, slices_dataset), workdir)
    return made


@pytest.mark.slow
@pytest.mark.parametrize("name", ["segment", pytest.param("simclr", marks=pytest.mark.exhaustive)])
def test_a_run_is_the_same_from_the_device_three_steps_at_once(
    slices_dataset: Path, tmp_path: Path, plain: dict[str, Path], name: str, monkeypatch: pytest.MonkeyPatch
):
    made, make = [], step.make_train_step

    def counted(*args: Any, **more: Any) -> Any:
        made.append((make(*args, **more), more["steps"]))
        return made[-1][0]

    monkeypatch.setattr(step, "make_train_step", counted)
    config = config_of(name, slices_dataset, data__placement="device", steps_per_dispatch=3)
    assert loop.train_and_evaluate(config, tmp_path)
    assert_same_run(tmp_path, plain[name])
    # Steps 1 to 3 at once; the others alone, for step 4 is stored, 6 logged, 8 stored.
    assert [steps for _, steps in made] == [3, 1]
    assert [program._cache_size() for program, _ in made] == [1, 1]


@pytest.mark.exhaustive
def test_several_steps_from_the_host(slices_dataset: Path, tmp_path: Path, plain: dict[str, Path]):
    """Begun with one step a dispatch, stopped, and gone on with two, is the same run, too."""
    config = config_of("segment", slices_dataset)
    with pytest.MonkeyPatch.context() as stopped:
        stopped.setattr(StopSignal, "reached", lambda _, done: done == 3)
        assert not loop.train_and_evaluate(config, tmp_path)
    config.steps_per_dispatch, config.data.placement = 2, "device"
    with pytest.MonkeyPatch.context() as stopped:
        stopped.setattr(StopSignal, "reached", lambda _, done: done == 6)
        assert not loop.train_and_evaluate(config, tmp_path)
    config.data.placement = "host"
    assert loop.train_and_evaluate(config, tmp_path)
    assert_same_run(tmp_path, plain["segment"])


def test_a_dispatch_ends_where_the_host_has_something_to_do(slices_dataset: Path):
    config = config_of("segment", slices_dataset, steps_per_dispatch=4, steps=30)
    config.log_every, config.eval_every, config.checkpoint_every = 10, 15, 12
    ends, done = [], 0
    while done < config.steps:
        done += loop.steps_at_once(config, done)
        ends.append(done)
    assert ends == [4, 8, 9, 10, 11, 12, 13, 14, 15, 19, 20, 24, 28, 29, 30]
    config.steps_per_dispatch = 1
    assert [loop.steps_at_once(config, done) for done in range(30)] == [1] * 30


@pytest.mark.parametrize("steps", [1, 3])
def test_a_batch_that_is_not_finite_is_saved_with_its_pixels(slices_dataset: Path, tmp_path: Path, steps: int):
    config = config_of("segment", slices_dataset, data__placement="device", steps_per_dispatch=steps)
    config.optimizer.learning_rate, config.optimizer.warmup = 1e38, 0.0
    with pytest.raises(NotFinite, match=r"the loss is (nan|inf) at step [23]; its batch is saved"):
        loop.train_and_evaluate(config, tmp_path)
    with np.load(next(tmp_path.glob("not-finite-*.npz"))) as batch:
        assert batch["image"].shape == batch["readers"].shape == (8, 32, 32)


def test_pixels_that_do_not_fit_are_refused_before_anything_is_built(
    slices_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(on_device, "_SHARE", 1e-9)
    monkeypatch.setattr(step, "make_train_step", None)
    with pytest.raises(InputError, match=r"of the .* train slices take .* set config\.data\.placement='host'"):
        loop.train_and_evaluate(config_of("segment", slices_dataset, data__placement="device"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_words_and_numbers_are_checked(slices_dataset: Path):
    for choices, sentence in (
        ({"data__placement": "gpu"}, r"config\.data\.placement is 'gpu'; use one of host, device"),
        ({"steps_per_dispatch": 0}, r"config\.steps_per_dispatch is 0; it must be at least 1"),
    ):
        with pytest.raises(InputError, match=sentence):
            loop.check_config(config_of("segment", slices_dataset, **choices))
