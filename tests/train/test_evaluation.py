"""`lungjax evaluate` on a run: its figures by a second way, its pictures, its refusals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import runs

from lungjax.data import loader, shards, splits
from lungjax.lidc.prepare import prepare
from lungjax.lidc.scan import InputError
from lungjax.train import checkpoint, evaluation, loop, workdir


@pytest.fixture(scope="module")
def segment_run(slices_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = runs.small_config("segment", slices_dataset)
    config.steps = config.eval_every = config.checkpoint_every = 6
    folder = tmp_path_factory.mktemp("segment")
    assert loop.train_and_evaluate(config, folder)
    return folder


def test_pooled_figures_by_a_second_way(segment_run: Path, slices_dataset: Path, tmp_path: Path):
    out = tmp_path / "figures.json"
    report = evaluation.evaluate(segment_run, data=None, split="test", out=out)
    assert json.loads(out.read_text()) == json.loads(json.dumps(report))

    dataset = shards.open_dataset(slices_dataset)
    rows = np.flatnonzero(dataset.index["split"] == "test")
    config = workdir.read_config(segment_run)
    scorer = evaluation.Scorer(config, dataset, checkpoint.load(segment_run)[0])
    hits = predicted = there = 0
    for batch in loader.eval_batches(loader.Slices(dataset, crop_px=64, crop_at="nodule"), rows, batch_size=8):
        real = batch["weight"] > 0
        votes = np.unpackbits(batch["readers"][real][..., None], axis=-1).sum(axis=-1)
        mask, truth = scorer.logits(batch)[real] > 0, votes >= 2
        hits, predicted, there = hits + (mask & truth).sum(), predicted + mask.sum(), there + truth.sum()
    assert report["slices"] == len(rows)
    assert report["pooled"]["dice"]["value"] == pytest.approx(2 * hits / (predicted + there))
    assert report["pooled"]["recall"]["value"] == pytest.approx(hits / there)


@pytest.mark.parametrize("shown", [6, 12])
def test_three_sheets_even_if_a_batch_is_smaller(
    segment_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shown: int
):
    monkeypatch.setattr(evaluation, "SHOWN", shown)  # A batch holds 8.
    evaluation.evaluate(segment_run, data=None, split="all", out=tmp_path / "figures.json")
    assert {path.name for path in tmp_path.glob("*.png")} == {
        "figures.worst.png",
        "figures.spread.png",
        "figures.best.png",
    }


def test_data_of_another_intensity_are_scored(segment_run: Path, phantom_dataset: Path, tmp_path: Path):
    """A network sees HU, guessed where a source lost them: any source will do, and the report says which it was."""
    report = evaluation.evaluate(segment_run, data=phantom_dataset, split="all", out=tmp_path / "hu.json")
    assert report["data"]["intensity"] == "hu"
    assert report["model"]["trained_on"] == "unit"


def test_a_folder_for_a_file(segment_run: Path, tmp_path: Path):
    with pytest.raises(InputError, match="is a folder; --out names the JSON file"):
        evaluation.evaluate(segment_run, data=None, split="test", out=tmp_path)


def test_data_with_another_split_are_refused(
    segment_run: Path, kaggle_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The leak lock on whole data sets: what is scored, and what starts from the run's encoder."""
    with monkeypatch.context() as patch:
        patch.setattr(splits, "SALT", "another")
        prepare(kaggle_tree, tmp_path / "data", workers=1)
    with pytest.raises(InputError, match=r"data: \d+ patients lie in another split than when the checkpoint was"):
        evaluation.evaluate(segment_run, data=tmp_path / "data", split="test", out=None)
    config = workdir.read_config(segment_run)
    config.data.path, config.init_from = str(tmp_path / "data"), str(segment_run)
    with pytest.raises(InputError, match=r"data: \d+ patients lie in another split than when the checkpoint was"):
        loop.train_and_evaluate(config, tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


def test_figures_on_other_data_have_a_name_of_their_own(segment_run: Path, slices_dataset: Path, tmp_path: Path):
    run, other = tmp_path / "run", tmp_path / "other"
    shutil.copytree(segment_run, run)
    shutil.copytree(slices_dataset, other)
    report = evaluation.evaluate(run, data=other, split="test", out=None)
    assert json.loads((run / "evaluation-test-other.json").read_text())["data"] == report["data"]
    assert (report["data"]["crop_px"], report["data"]["crop_at"]) == (64, "nodule")
    assert not (run / "evaluation-test.json").exists()


def test_other_runs_and_damaged_ones_are_refused(segment_run: Path, tmp_path: Path):
    copy = tmp_path / "copy"
    shutil.copytree(segment_run, copy)
    (copy / "config.json").write_text('{"task": "segm')
    with pytest.raises(InputError, match=r"config\.json is damaged"):
        evaluation.evaluate(copy, data=None, split="test", out=None)
    shutil.copy(segment_run / "config.json", copy)
    shutil.rmtree(copy / "checkpoints")
    with pytest.raises(InputError, match="no checkpoints in it"):
        evaluation.evaluate(copy, data=None, split="test", out=None)
