"""Batches cut on the device are, bit for bit, those that the loader reads."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np
import patches as made
import pytest

from lungjax import platforms
from lungjax.data import bags, candidates, loader, neighbours, nodules, on_device, shards
from lungjax.data.on_device import OnDevice, Pixels
from lungjax.errors import InputError
from lungjax.preparation.run import prepare
from lungjax.train import mesh


@pytest.fixture(scope="module")
def patches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("patches")
    columns = made.columns(patients=30)
    columns["patient_id"][:12] = columns["patient_id"][0]  # One with twelve nodules.
    np.savez_compressed(folder / "patches.npz", allow_pickle=True, **columns)
    prepare(folder / "patches.npz", folder / "prepared", workers=1)
    return folder / "prepared"


def put(pixels: Pixels) -> Pixels:
    return mesh.to_every_device(pixels, mesh.make_mesh(8))


def assert_same_batches(source: loader.Batches, rows: np.ndarray, near: Any = None, start: int = 0) -> list[Any]:
    placed = OnDevice(source, rows, put=put, devices=jax.local_devices())
    options: dict[str, Any] = {"batch_size": 8, "seed": 5, "workers": 0, "start": start, "neighbours": near}
    batches = loader.train_batches(source, rows, **options)
    plans = loader.train_batches(source, rows, **options, read=placed.plan)
    draw = jax.jit(placed.draw)
    taken = []
    for _ in range(5):
        batch, plan = next(batches), next(plans)
        assert "image" not in plan
        drawn = jax.device_get(draw(placed.pixels, mesh.to_devices(plan, mesh.make_mesh(8))))
        assert drawn.keys() == batch.keys()
        for of_device in (drawn, placed.read(plan)):
            for name, value in batch.items():
                assert of_device[name].dtype == value.dtype, name
                np.testing.assert_array_equal(of_device[name], value, err_msg=name)
        taken.append(batch)
    batches.close()
    plans.close()
    return taken


def slices(crop_px: int, crop_at: str, data: str = "slices", *, marks: bool = True) -> Callable[..., loader.Slices]:
    def open_slices(datasets: dict[str, Path]) -> loader.Slices:
        return loader.Slices(shards.open_dataset(datasets[data]), crop_px=crop_px, crop_at=crop_at, marks=marks)

    return open_slices


def stacks(kind: Callable[..., loader.Slices], datasets: dict[str, Path]) -> loader.Slices:
    """Slices whose halves pass for two planes."""
    dataset = shards.open_dataset(datasets["slices"])
    manifest = dataset.manifest | {"source": {"format": candidates.FORMAT, "planes": 2}}
    return kind(shards.Dataset(dataset.path, manifest, dataset.index))


READERS: dict[str, Callable[[dict[str, Path]], Any]] = {
    "whole": slices(0, "random"),
    "whole, without marks": slices(0, "random", marks=False),
    "crops anywhere": slices(24, "random"),
    "crops beyond the slice": slices(80, "random"),
    "crops near marks": slices(24, "nodule"),
    "crops smaller than marks": slices(8, "nodule"),
    "HU in the lungs, beyond the slice": slices(64, "lung", "phantom"),
    "patches": lambda datasets: nodules.Patches(shards.open_dataset(datasets["patches"])),
    "bags": lambda datasets: bags.Bags(shards.open_dataset(datasets["patches"]), nodules=3),
    "stacks": functools.partial(stacks, candidates.Stacks),
    "the middle of stacks": functools.partial(stacks, functools.partial(loader.Slices, crop_px=16, crop_at="random")),
}


@pytest.mark.parametrize("kind", READERS)
def test_every_reader(kind: str, slices_dataset: Path, phantom_dataset: Path, patches: Path):
    source = READERS[kind]({"slices": slices_dataset, "phantom": phantom_dataset, "patches": patches})
    rows = source.rows(split=None, slices="lung" if "lungs" in kind else "all")
    batch = assert_same_batches(source, rows[1::2], start=3)[0]
    assert ("readers" in batch) == source.marks
    if "beyond" in kind:
        assert ((batch["corner"] < 0) | (batch["corner"] + source.crop_px > source.sizes_px(batch["row"]))).any()


def test_pairs_of_neighbours(slices_dataset: Path):
    dataset = shards.open_dataset(slices_dataset)
    for crop_px in (0, 24):
        source = loader.Slices(dataset, crop_px=crop_px, crop_at="random", marks=False)
        rows = source.rows(split="train", slices="all")
        batches = assert_same_batches(source, rows, neighbours.Neighbours(dataset, rows, within_mm=5.0))
        assert any((batch["partner"] != batch["image"]).any() for batch in batches)


def test_mixed_data_sets_of_several_sizes_and_intensities(slices_dataset: Path, phantom_dataset: Path):
    parts = {
        "crops": {"path": str(slices_dataset), "slices": "nodule", "crop_at": "nodule", "rate": 3.0},
        "lungs": {"path": str(phantom_dataset), "slices": "lung", "crop_at": "lung", "rate": 1.0},
    }
    data = ml_collections.ConfigDict({"crop_px": 96, "crop_at": "random", "parts": parts})
    mixed = bags.make_mixture(data, task="segment")
    assert mixed is not None
    batches = assert_same_batches(mixed, mixed.rows(split=None, slices=""))
    assert {0.0, 1.0} == {*np.concatenate([batch["scaled"] for batch in batches]).tolist()}
    data.crop_px = 0
    whole = bags.make_mixture(data, task="segment")
    assert whole is not None
    with pytest.raises(
        InputError, match=r"slices have several sizes \[\(64, 64\), \(128, 128\)\]; set config.data.crop"
    ):
        OnDevice(whole, whole.rows(split=None, slices=""), put=put, devices=jax.local_devices())


def test_a_draw_needs_no_talk_between_devices(slices_dataset: Path):
    source = loader.Slices(shards.open_dataset(slices_dataset), crop_px=24, crop_at="random")
    rows, devices = source.rows(split=None, slices="all"), mesh.make_mesh(8)
    placed = OnDevice(source, rows, put=put, devices=jax.local_devices())
    plan = mesh.to_devices(placed.plan(rows[:16], np.zeros((16, 3))), devices)
    draw = jax.jit(placed.draw, out_shardings=mesh.split(devices))
    text = draw.lower(placed.pixels, plan).compile().as_text()
    assert text is not None
    assert "gather" in text
    assert not [kind for kind in ("all-gather", "all-reduce", "all-to-all", "collective-permute") if kind in text]


class Gpu:
    device_kind = "NVIDIA X"

    def memory_stats(self) -> dict[str, int]:
        return {"bytes_limit": 1000}


def test_what_does_not_fit_is_told_before_it_is_read(slices_dataset: Path, monkeypatch: pytest.MonkeyPatch):
    source = loader.Slices(shards.open_dataset(slices_dataset), crop_px=0, crop_at="random")
    rows = source.rows(split=None, slices="all")
    monkeypatch.setattr(source, "pixels", None)
    gpus: Any = [Gpu()]
    with pytest.raises(
        InputError, match=r"0\.0 GiB, and a device \(NVIDIA X\) has .* set config\.data\.placement='host'"
    ):
        OnDevice(source, rows, put=put, devices=gpus)
    needed = len(rows) * 64 * 64 * 2  # A byte of the image, and one of the marks.
    for memory, fits in ((8 * needed / 0.79, True), (8 * needed / 0.81, False)):  # Eight devices share it.
        monkeypatch.setattr(platforms, "memory_bytes", lambda memory=memory: int(memory))
        with pytest.raises((TypeError, InputError)) as told:
            OnDevice(source, rows, put=put, devices=jax.local_devices())
        assert (told.type is TypeError) == fits  # It would have been read.
    assert on_device._SHARE == 0.8
