"""What a configuration offers trains and is evaluated: HU, LARS, BatchNorm, bfloat16, what readers are made into."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import runs

from lungjax.data import loader, shards
from lungjax.evaluation import run_evaluate, run_segmentation
from lungjax.tasks import segment
from lungjax.tasks.task import Config
from lungjax.train import checkpoint, loop, mesh
from lungjax.train.evals import Validation
from lungjax.train.state import TrainState

STEPS = 8
LARS = {"optimizer.name": "lars", "optimizer.learning_rate": 0.6}
BATCH_NORM = {"model.encoder.norm": "batch"}


def config_of(name: str, data: Path, **choices: Any) -> Config:
    config = runs.small_config(name, data)
    config.update_from_flattened_dict({"log_every": 1, "steps": STEPS, "eval_every": STEPS, "checkpoint_every": STEPS})
    config.update_from_flattened_dict(choices)
    return config


def train(config: Config, workdir: Path) -> tuple[np.ndarray, dict[str, float]]:
    """The losses of all steps, and the last validation."""
    assert loop.train_and_evaluate(config, workdir)
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    losses = np.array([line["train/loss"] for line in lines if "train/loss" in line])
    assert len(losses) == config.steps
    return losses, {name.removeprefix("val/"): value for name, value in lines[-1].items() if name != "step"}


def validate(config: Config, params: Any, model_state: Any) -> dict[str, float]:
    """As the loop does after its last step."""
    dataset, devices = shards.open_dataset(Path(config.data.path)), mesh.make_mesh(config.data.batch_size)
    slices = loader.Slices(dataset, crop_px=config.data.crop_px, crop_at=config.data.crop_at)
    rows = loader.select_rows(dataset, split="val", slices=config.data.slices)
    task = loop.TASKS[config.task](config, intensity=dataset.intensity, readers=4, mesh=devices)
    validation = Validation(
        task, devices, jax.random.key(config.seed), slices, rows, config.data.batch_size, train_rows=rows
    )
    state = TrainState(step=np.zeros((), np.int32), params=params, model_state=model_state, opt_state=(), average=None)  # pyright: ignore[reportArgumentType]
    return validation.scores(jax.device_put(state, mesh.replicated(devices)))


@pytest.mark.slow
def test_segment_on_hu_learns_and_is_evaluated(phantom_dataset: Path, tmp_path: Path):
    """Towards one random reader a step; the figures of `lungjax evaluate` are those of the last validation."""
    learning = {"data.slices": "nodule", "data.crop_px": 16, "optimizer.learning_rate": 0.01}
    config = config_of("segment", phantom_dataset, steps=40, targets="random", **learning)
    losses, val = train(config, tmp_path)
    assert losses[-4:].mean() < 0.7 * losses[:4].mean()
    assert val["dice"] > 0.2
    report = run_evaluate.evaluate(tmp_path, data=None, split="val", out=None)
    assert report["slices"] > 0
    for name in ("dice", "iou", "precision", "recall", "accuracy"):
        value = report["pooled"][name]["value"]
        assert 0 <= value <= 1
        assert value == pytest.approx(val[name])
    assert report["nodules"] > 0  # This source knows its nodules and its spacing.
    for kind in ("per_slice", "per_nodule"):
        own = report["readers"][kind]
        assert own["hd95_mm"]["value"] > 0
        assert 0 < own["surface_dice_1mm"]["value"] <= own["surface_dice_2mm"]["value"] < 1

    dataset = shards.open_dataset(phantom_dataset)
    segmenter = run_segmentation.Scorer(config, dataset, checkpoint.load_best(tmp_path)[0])
    rows = loader.select_rows(dataset, split=None, slices="nodule")
    tally = segmenter.tally(rows)
    found = [
        (dataset.index["series_uid"].iloc[row], nodule["index"])
        for row, nodules in zip(rows, dataset.nodules(rows), strict=True)
        for nodule in nodules
        if any(reading["box"] for reading in nodule["readings"])
    ]
    assert set(tally.nodules.names) <= set(found)
    assert len(tally.nodules.names) > 0.8 * len(set(found))  # Crops of 16 px leave out some.
    several = [units.overlaps[:, 2:6, 2:6].sum(axis=0) for units in (tally.slices, tally.nodules.units)]
    np.testing.assert_array_equal(*several)  # Every mark is of one nodule.
    slices = loader.Slices(dataset, crop_px=16, crop_at="random")
    batch = slices.batch(np.arange(8), np.zeros((8, 3)))  # Crops of the first corner.
    lowest_hu = -600 - 1500 // 2
    assert (batch["image"] < lowest_hu).any()
    clipped = {**batch, "image": np.maximum(batch["image"], np.int16(lowest_hu))}
    np.testing.assert_array_equal(segmenter.predict(batch)["logit"], segmenter.predict(clipped)["logit"])


@pytest.mark.parametrize(
    ("name", "choices"),
    [
        pytest.param(
            "segment",
            {**BATCH_NORM, "targets": "soft", "compute_dtype": "bfloat16", "data.slices": "nodule"},
            marks=pytest.mark.slow,
        ),
        ("simclr", {**BATCH_NORM, **LARS}),
    ],
)
def test_batch_norm_on_hu(phantom_dataset: Path, tmp_path: Path, name: str, choices: dict[str, Any]):
    """Its statistics move, are stored, and an evaluation uses them; parameters are float32 in bfloat16, too."""
    config = config_of(name, phantom_dataset, **choices)
    losses, val = train(config, tmp_path)
    assert np.isfinite(losses).all()
    assert len(set(losses)) == STEPS
    for figure, (low, high) in {
        "dice": (0, 1),
        "accuracy": (0, 1),
        "alignment": (0, 4),
        "effective_rank": (1, 8),
    }.items():
        assert low <= val.get(figure, low) <= high

    variables, step = checkpoint.load_best(tmp_path)
    assert step == STEPS
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype(np.float32)}
    stored = variables["model_state"]
    fresh = jax.tree.map_with_path(lambda path, x: np.full_like(x, path[-1].key == "var"), stored)
    for one, other in zip(jax.tree.leaves(stored["batch_stats"]), jax.tree.leaves(fresh["batch_stats"]), strict=True):
        assert not np.array_equal(one, other)
    assert validate(config, variables["params"], stored) == pytest.approx(val, rel=1e-4)
    assert validate(config, variables["params"], fresh)["loss"] != pytest.approx(val["loss"], rel=1e-3)


@pytest.mark.parametrize("name", ["segment", pytest.param("simclr", marks=pytest.mark.slow)])
def test_bfloat16_starts_near_float32(phantom_dataset: Path, name: str):
    """The first step's loss of the same parameters, batch and draws."""
    dataset, devices = shards.open_dataset(phantom_dataset), mesh.make_mesh(8)
    rows = loader.select_rows(dataset, split="train", slices="all")
    batch = loader.Slices(dataset, crop_px=64, crop_at="random").batch(rows[:: len(rows) // 8][:8])
    losses, params = {}, None
    for dtype in ("float32", "bfloat16"):
        config = config_of(name, phantom_dataset, compute_dtype=dtype)
        task = loop.TASKS[config.task](config, intensity="hu", readers=4, mesh=devices)
        if params is None:
            params, _ = jax.jit(task.init)(jax.random.key(0), batch)
        loss, _ = jax.jit(task.loss_fn)(params, {}, mesh.to_devices(batch, devices), jax.random.key(1))
        assert loss.dtype == jnp.float32
        losses[dtype] = float(loss)
    assert losses["bfloat16"] != losses["float32"]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.02)


class Constant(nn.Module):
    """In place of the U-Net: one and the same logit everywhere."""

    encoder: Any
    widths: Any
    out_channels: Any
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        shape = (*x.shape[:-1], self.out_channels)
        return jnp.broadcast_to(self.param("logit", nn.initializers.constant(-0.5), (1, 1, 1, 1)), shape)


def loss_of(shares: np.ndarray, weights: np.ndarray, *, logit: float, pixels: int) -> float:
    """Cross entropy and Dice loss of images that are the same all over; `shares` (batch,) are the targets."""
    p = 1 / (1 + np.exp(-logit))
    cross_entropy = -(shares * np.log(p) + (1 - shares) * np.log(1 - p))
    overlap, both = 2 * pixels * np.minimum(shares, p), pixels * (shares + p)
    dice = ((weights * overlap).sum() + 1) / ((weights * both).sum() + 1)
    return (weights * cross_entropy).sum() / weights.sum() + 1 - dice


def test_each_target_is_what_it_says(slices_dataset: Path, monkeypatch: pytest.MonkeyPatch):
    """Images marked all over, which no augmentation changes, by 0 to 4 readers; the last one has no weight."""
    monkeypatch.setattr(segment, "UNet", Constant)
    side_px = 16
    bits = np.array([0b0000, 0b0001, 0b0101, 0b0111, 0b1111, 0b1000, 0b0110, 0b1111], np.uint8)
    weights = np.array([1, 1, 1, 1, 1, 1, 1, 0], np.float32)
    batch = {
        "image": np.full((8, side_px, side_px), 99, np.uint8),
        "readers": np.tile(bits[:, None, None], (1, side_px, side_px)),
        "weight": weights,
    }
    marked = np.unpackbits(bits[:, None], axis=1, bitorder="little")[:, :4]  # (batch, reader)
    devices = mesh.make_mesh(8)

    def losses(targets: str, count: int) -> list[float]:
        task = segment.make(
            config_of("segment", slices_dataset, targets=targets), intensity="unit", readers=4, mesh=devices
        )
        params, _ = task.init(jax.random.key(0), batch)
        one = jax.jit(task.loss_fn)
        return [float(one(params, {}, batch, jax.random.key(seed))[0]) for seed in range(count)]

    def expected(shares: np.ndarray) -> float:
        return loss_of(shares, weights, logit=-0.5, pixels=side_px**2)

    np.testing.assert_allclose(losses("majority", 1), expected(marked.sum(axis=1) >= 2), rtol=1e-5)
    np.testing.assert_allclose(losses("soft", 1), expected(marked.mean(axis=1)), rtol=1e-5)
    # At least 1, 2, 3, 4 readers: the second counts as much as the other three together.
    levels = [loss_of((marked.sum(axis=1) > k).astype(float), weights, logit=-0.5, pixels=side_px**2) for k in range(4)]
    np.testing.assert_allclose(losses("levels", 1), (levels[1] + np.mean([levels[0], *levels[2:]])) / 2, rtol=1e-5)
    # One reader for each image: every loss is one of those that the 4 ** 7 choices can give, and they vary.
    choices = np.array(np.meshgrid(*[range(4)] * 7, indexing="ij")).reshape(7, -1).T
    chosen = np.unique(np.take_along_axis(marked[:7].T, choices, axis=0), axis=0)
    possible = np.array([expected(np.append(shares, 0).astype(float)) for shares in chosen])
    drawn = losses("random", 12)
    assert np.abs(np.array(drawn)[:, None] - possible).min(axis=1).max() < 1e-5
    assert len(np.unique(np.round(drawn, 5))) > 3


@pytest.mark.parametrize("targets", ["majority", "soft", "random"])
def test_every_target_of_one_reader_is_that_ones_mask(
    slices_dataset: Path, monkeypatch: pytest.MonkeyPatch, targets: str
):
    monkeypatch.setattr(segment, "UNet", Constant)
    side_px = 16
    bits, weights = np.array([0, 1, 1, 0, 1, 0, 1, 1], np.uint8), np.ones(8, np.float32)
    batch = {
        "image": np.full((8, side_px, side_px), 99, np.uint8),
        "readers": np.tile(bits[:, None, None], (1, side_px, side_px)),
        "weight": weights,
    }
    config, devices = config_of("segment", slices_dataset, targets=targets), mesh.make_mesh(8)
    task = segment.make(config, intensity="unit", readers=1, mesh=devices)
    params, _ = task.init(jax.random.key(0), batch)
    loss, (figures, _) = jax.jit(task.loss_fn)(params, {}, batch, jax.random.key(1))
    np.testing.assert_allclose(loss, loss_of(bits.astype(float), weights, logit=-0.5, pixels=side_px**2), rtol=1e-5)
    sums = jax.jit(task.eval_fn)(params, {}, batch, jax.random.key(1))
    np.testing.assert_allclose(sums["loss"] / 8, loss, rtol=1e-5)
    np.testing.assert_array_equal(sums["counts"], [0, 0, 5 * side_px**2, 3 * side_px**2])  # Nothing is found.
    np.testing.assert_array_equal(figures["counts"], sums["counts"])
