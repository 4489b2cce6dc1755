"""The same figures on 1, 2, 4 and 8 devices, and in two processes."""

from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
import runs

from lungjax.data import loader, shards
from lungjax.tasks.task import Config
from lungjax.train import loop, mesh, state, step
from lungjax.train.watch import StopSignal

STEPS = 10


def train(config: Config, device_count: int, parameters: str = "replicated") -> tuple[list[float], np.ndarray]:
    """Losses of the first steps, and the first step's gradient as one vector."""
    dataset = shards.open_dataset(Path(config.data.path))
    slices = loader.Slices(dataset, crop_px=config.data.crop_px, crop_at=config.data.crop_at)
    rows = loader.select_rows(dataset, split="train", slices=config.data.slices)
    batches = loader.train_batches(slices, rows, batch_size=8, seed=0, workers=0)
    devices = jax.make_mesh(
        (device_count,),
        ("data",),
        axis_types=(jax.sharding.AxisType.Auto,),
        devices=jax.devices()[:device_count],
    )
    task = loop.TASKS[config.task](config, intensity=dataset.intensity, readers=4, mesh=devices)
    optimizer = step.make_optimizer(config.optimizer, STEPS)
    key = jax.random.key(0)
    batch = next(batches)
    fresh = jax.eval_shape(lambda rng: state.create_state(task, optimizer, rng, batch), key)
    shardings = mesh.state_shardings(fresh, devices, parameters=parameters)
    train_state = jax.jit(lambda rng: state.create_state(task, optimizer, rng, batch), out_shardings=shardings)(key)
    held = sum(leaf.addressable_shards[0].data.size for leaf in jax.tree.leaves(train_state))
    whole = sum(leaf.size for leaf in jax.tree.leaves(train_state))
    assert held < 0.4 * whole if parameters == "sharded" else held == whole
    train_step = step.make_train_step(task, optimizer, devices, key, shardings=shardings)
    losses = []
    gradient = np.zeros(0)
    for number in range(STEPS):
        train_state, figures = train_step(train_state, mesh.to_devices(batch, devices))
        losses.append(float(figures["loss"]))
        if number == 0:  # Adam's first moment is then a multiple of the gradient, which may have been clipped.
            moment = optax.tree.get(train_state.opt_state, "mu")
            direction = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(moment)])
            gradient = direction * (float(figures["grad_norm"]) / np.linalg.norm(direction))
        batch = next(batches)
    return losses, gradient


@pytest.fixture(scope="module")
def on_one_device(slices_dataset: Path) -> dict[str, tuple[list[float], np.ndarray]]:
    return {name: train(runs.small_config(name, slices_dataset), 1) for name in ("segment", "simclr")}


@pytest.mark.parametrize(
    "devices", [8, pytest.param(2, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.exhaustive)]
)
@pytest.mark.parametrize("name", ["segment", "simclr"])
def test_figures_do_not_depend_on_the_devices(slices_dataset: Path, on_one_device: dict, name: str, devices: int):
    losses, gradient = on_one_device[name]
    assert losses[-1] != losses[0]
    other_losses, other_gradient = train(runs.small_config(name, slices_dataset), devices)
    assert np.linalg.norm(other_gradient - gradient) < 1e-5 * np.linalg.norm(gradient)
    np.testing.assert_allclose(other_losses, losses, rtol=1e-3)


@pytest.mark.parametrize("name", ["segment", pytest.param("simclr", marks=pytest.mark.slow)])
def test_figures_do_not_depend_on_sharded_parameters(slices_dataset: Path, on_one_device: dict, name: str):
    losses, gradient = on_one_device[name]
    other_losses, other_gradient = train(runs.small_config(name, slices_dataset), 8, "sharded")
    assert np.linalg.norm(other_gradient - gradient) < 1e-5 * np.linalg.norm(gradient)
    np.testing.assert_allclose(other_losses, losses, rtol=1e-3)


def test_the_longest_axis_that_can_be_divided_is_split():
    eight = mesh.make_mesh(8)
    shapes = {"kernel": (3, 3, 64, 128), "odd": (3, 3, 63, 129), "small": (64,), "tall": (4096, 7), "first": (64, 64)}
    arrays = {name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in shapes.items()}
    found = mesh.state_shardings(arrays, eight, parameters="sharded")
    specs = {name: tuple(sharding.spec) for name, sharding in found.items()}
    assert specs == {
        "kernel": (None, None, None, "data"),
        "odd": (),
        "small": (),
        "tall": ("data",),
        "first": ("data",),
    }
    replicated = mesh.state_shardings(arrays, eight, parameters="replicated")
    assert {tuple(sharding.spec) for sharding in replicated.values()} == {()}


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_devices(slices_dataset: Path, tmp_path: Path):
    """Begun with sharded parameters on eight devices, it goes on with replicated ones on one."""
    length = {"steps": 6, "eval_every": 6, "checkpoint_every": 3, "log_every": 1}
    config = runs.small_config("segment", slices_dataset)
    config.update_from_flattened_dict({**length, "mesh.parameters": "sharded"})
    assert loop.train_and_evaluate(config, tmp_path / "whole")
    with pytest.MonkeyPatch.context() as stopped:
        stopped.setattr(StopSignal, "reached", lambda _, done: done == 3)
        assert not loop.train_and_evaluate(config, tmp_path / "run")
    flags = [f"--config.{name}={value}" for name, value in length.items()]
    done = runs.run(runs.command("segment.py:quick", tmp_path / "run", slices_dataset, *flags), runs.environment())
    assert done.returncode == 0, done.stderr
    assert "1 cpu device(s), step 3" in done.stderr
    losses = []
    for name in ("whole", "run"):
        lines = map(json.loads, (tmp_path / name / "metrics.jsonl").read_text().splitlines())
        losses.append([line["train/loss"] for line in lines if "train/loss" in line])
    assert len(losses[0]) == 6
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-3)


def test_processes_share_the_batches_of_one(slices_dataset: Path):
    dataset = shards.open_dataset(slices_dataset)
    slices = loader.Slices(dataset, crop_px=0, crop_at="random")
    rows = loader.select_rows(dataset, split="train", slices="all")
    one = loader.train_batches(slices, rows, batch_size=8, seed=3, workers=0)
    four = [
        loader.train_batches(slices, rows, batch_size=8, seed=3, workers=0, process_index=i, process_count=4)
        for i in range(4)
    ]
    for _ in range(STEPS):
        whole = next(one)
        parts = [next(part) for part in four]
        for name, value in whole.items():
            np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), value)


@pytest.mark.slow
def test_two_processes_pretrain_as_one(slices_dataset: Path, tmp_path: Path):
    alone(slices_dataset, tmp_path, "simclr.py:quick")
    assert_two_are_alike(slices_dataset, tmp_path, "simclr.py:quick")


@pytest.mark.exhaustive
def test_two_processes_segment_as_one(slices_dataset: Path, tmp_path: Path):
    """From an encoder, which both processes read."""
    alone(slices_dataset, tmp_path / "simclr", "simclr.py:quick")
    start = f"--config.init_from={tmp_path / 'simclr' / 'one'}"
    alone(slices_dataset, tmp_path, "segment.py:quick", start)
    assert_two_are_alike(slices_dataset, tmp_path, "segment.py:quick", start)


def command(data: Path, workdir: Path, config: str, *more: str) -> list[str]:
    length = (f"--config.steps={STEPS}", f"--config.eval_every={STEPS}", f"--config.checkpoint_every={STEPS}")
    return runs.command(config, workdir, data, *length, *more)


def alone(data: Path, folder: Path, config: str, *more: str) -> None:
    done = runs.run(command(data, folder / "one", config, *more), runs.environment())
    assert done.returncode == 0, done.stderr


def assert_two_are_alike(data: Path, folder: Path, config: str, *more: str) -> None:
    """Two processes log what one has logged in `folder / "one"`."""
    in_two_processes(command(data, folder / "two", config, *more))
    alike, ours = logged(folder / "one"), logged(folder / "two")
    np.testing.assert_allclose(ours[0], alike[0], rtol=5e-4)  # The same batch, and a gradient of the same length.
    np.testing.assert_allclose(ours[:, 0], alike[:, 0], rtol=1e-3)


def in_two_processes(args: list[str]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        subprocess.Popen(
            [*args, f"--coordinator=127.0.0.1:{port}", "--processes=2", f"--process={i}"],
            env=runs.environment(),
            cwd=runs.ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    try:
        for process in processes:
            _, said = process.communicate(timeout=240)
            assert process.returncode == 0, said
    finally:
        for process in processes:  # Or what waits for ever would spoil the tests that follow.
            process.kill()
            process.communicate()


def logged(workdir: Path) -> np.ndarray:
    """(steps, 2): loss and norm of the gradient of each step."""
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    figures = [(line["train/loss"], line["train/grad_norm"]) for line in lines if "train/loss" in line]
    assert len(figures) == STEPS
    return np.array(figures)
