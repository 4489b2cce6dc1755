"""Probes during pretraining: which questions are asked of which slices, by whom, and of what."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import runs

from lungjax.data import loader, shards
from lungjax.data.intensity import to_hu, window
from lungjax.models.encoder import ResNet
from lungjax.train import loop, mesh, probe


def side(marked: list[int], majority: list[int], rating: list[float]) -> pd.DataFrame:
    return pd.DataFrame({"readers_marked": marked, "majority_px": majority, "malignancy_median": rating})


def test_questions_by_what_the_slices_can_answer():
    nan = float("nan")
    whole = side([0] * 30 + [2] * 30, [0] * 35 + [9] * 25, [nan] * 30 + [1.0] * 25 + [3.0] * 5)
    asked, said = probe._questions([whole, whole])
    assert list(asked) == ["nodule"]
    np.testing.assert_array_equal(asked["nodule"][0], [0] * 30 + [1] * 30)
    assert "not probed: malignancy;" in said

    crops = side([0] * 3 + [2] * 60, [0] * 23 + [9] * 40, [2.5] * 21 + [3.0] * 22 + [3.5] * 20)
    asked, said = probe._questions([crops, crops])
    assert list(asked) == ["majority", "malignancy"]
    np.testing.assert_array_equal(asked["majority"][1], [0] * 23 + [1] * 40)
    np.testing.assert_array_equal(asked["malignancy"][0], [0] * 21 + [-1] * 22 + [1] * 20)
    assert said == ""

    asked, said = probe._questions([crops, crops.iloc[40:]])
    assert asked == {}
    assert "nodule or majority, malignancy" in said


def test_spread_takes_as_many_as_it_may():
    rows = np.arange(5_000)
    chosen = probe._spread(rows)
    assert len(set(chosen)) == len(chosen) == probe.MOST
    assert (chosen[0], chosen[-1]) == (0, 4_999)
    assert probe._spread(rows[:7]) is not None
    np.testing.assert_array_equal(probe._spread(rows[:7]), rows[:7])


@pytest.fixture(scope="module")
def config(slices_dataset: Path):
    config = runs.small_config("simclr", slices_dataset)
    config.steps = config.eval_every = config.checkpoint_every = config.log_every = 2
    return config


def test_what_is_not_probed_is_said_once(
    config, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    config.eval_every = 1
    assert loop.train_and_evaluate(config, tmp_path)
    assert capfd.readouterr().err.count("not probed: nodule or majority, malignancy") == 1
    assert "auc" not in (tmp_path / "metrics.jsonl").read_text()


def test_probes_learn_from_train_patients_and_are_scored_on_val_patients(
    config, slices_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Answers are made up from the row's number, and features are that answer: the AUC is 1, of those rows alone."""
    dataset = shards.open_dataset(slices_dataset)
    asked: list[np.ndarray] = []

    def questions(sides: list[pd.DataFrame]):
        asked.extend(one["row"].to_numpy() for one in sides)
        return {"even": [(one["row"].to_numpy() % 2 == 0).astype(int) for one in sides]}, ""

    seen: list[int] = []
    original = loader.Slices.batch

    def batch(self: loader.Slices, rows: np.ndarray, uniform: np.ndarray | None = None):
        found = original(self, rows, uniform)
        if uniform is None:
            seen.extend(rows.tolist())
        return found

    monkeypatch.setattr(probe, "_questions", questions)
    monkeypatch.setattr(loader.Slices, "batch", batch)
    made = loop.TASKS["pretrain"]

    def with_answers(*args, **more):
        task = made(*args, **more)
        assert task.features is not None
        original = task.features

        def features(params, model_state, batch):
            found = original(params, model_state, batch)
            return found * 0 + (batch["row"] % 2 == 0).astype(found.dtype)[:, None] + 0.1

        return dataclasses.replace(task, features=features)

    monkeypatch.setitem(loop.TASKS, "pretrain", with_answers)
    config.eval_every = 2
    assert loop.train_and_evaluate(config, tmp_path)
    split = dataset.index["split"].to_numpy()
    assert [set(split[rows]) for rows in asked] == [{"train"}, {"val"}]
    assert set(seen) == {*asked[0].tolist(), *asked[1].tolist()}
    last = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["val/linear_auc_even"] == 1


def test_features_are_the_encoders_pooled_last_map(config, slices_dataset: Path):
    dataset = shards.open_dataset(slices_dataset)
    slices = loader.Slices(dataset, crop_px=64, crop_at="nodule")
    task = loop.TASKS["pretrain"](config, intensity=dataset.intensity, readers=4, mesh=mesh.make_mesh(8))
    batch = slices.batch(np.arange(8))
    params, model_state = task.init(jax.random.key(0), batch)
    shown = window(to_hu(jnp.asarray(batch["image"]), intensity=dataset.intensity), tuple(config.augment.window_hu))
    maps: Any = ResNet(**config.model.encoder).apply({"params": params["encoder"]}, shown[..., None], train=False)
    last = np.asarray(maps[-1])
    assert task.features is not None
    found = task.features(params, model_state, batch)
    assert found.shape == (8, last.shape[-1])
    np.testing.assert_allclose(found, last.mean(axis=(1, 2)), rtol=1e-4, atol=1e-5)
