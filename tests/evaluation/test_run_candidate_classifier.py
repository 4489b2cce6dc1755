"""A candidate classifier from mined candidates to its figures, as the commands take it there."""

from __future__ import annotations

import json
from pathlib import Path

import chests
import numpy as np
import pytest
import runs

from lungjax import cli
from lungjax.data import shards
from lungjax.data.candidates import Stacks
from lungjax.errors import InputError
from lungjax.evaluation import run_candidate_classifier
from lungjax.prediction import opening
from lungjax.prediction.sliding_window import Segmenter
from lungjax.preparation.mine import mine
from lungjax.train import loop
from lungjax.train.trained import open_trained


class Bright(Segmenter):
    """Stands for a detector: what is brighter than lung is a nodule to it."""

    def __init__(self, folder: Path):
        trained = chests.untrained(folder)
        super().__init__(trained, forward=lambda hu: [np.where(np.asarray(hu) > -300, 0.9, 0.0).astype(np.float32)])


@pytest.fixture(scope="module")
def candidates(slices_dataset: Path, phantom_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Disks that the readers marked, and vessels of phantoms, which nobody did."""
    folder = tmp_path_factory.mktemp("mined")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opening, "open_model", lambda model: Bright(folder / "model"))
        mine("model", [slices_dataset, phantom_dataset], folder / "candidates")
    return folder / "candidates"


@pytest.fixture(scope="module")
def run(candidates: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = runs.load_config("sift")
    config.data.path = str(candidates)
    config.model.encoder.width = config.model.hidden = 8
    config.patch.side_px = 32
    config.steps = config.eval_every = config.checkpoint_every = 12
    workdir = tmp_path_factory.mktemp("sift") / "run"
    assert loop.train_and_evaluate(config, workdir)
    return workdir


def test_figures_are_of_the_candidates_of_the_split(run: Path, candidates: Path, tmp_path: Path, capsys):
    out = tmp_path / "found.json"
    arguments = ["evaluate", "--model", str(run), "--data", str(candidates), "--split", "all", "--out", str(out)]
    assert cli.main(arguments) == 0
    report = json.loads(out.read_text())
    label = Stacks(shards.open_dataset(candidates)).label
    assert (report["nodules"], report["positives"]) == ((~np.isnan(label)).sum(), (label == 1).sum())
    table = capsys.readouterr().out
    assert f"{report['positives']:,} nodules" in table
    assert "malignant" not in table
    assert run_candidate_classifier.NOTE in table
    written = sorted(path.name for path in tmp_path.iterdir())
    assert written == ["found.csv", "found.json", "found.reliability.png", "found.roc.png", "found.table.txt"]
    assert len((tmp_path / "found.csv").read_text().splitlines()) == 1 + report["nodules"]


def test_a_split_has_only_its_own_patients(run: Path, candidates: Path):
    model, dataset = open_trained(run), shards.open_dataset(candidates)
    every = run_candidate_classifier.score_split(model, dataset, split="all")
    parts = [run_candidate_classifier.score_split(model, dataset, split=name) for name in ("train", "val", "test")]
    assert sum(len(part.index) for part in parts) == len(every.index)
    for name, part in zip(("train", "val", "test"), parts, strict=True):
        assert {model.patients[patient] for patient in part.index["patient_id"]} == {name}
    np.testing.assert_allclose(np.sort(np.concatenate([part.logit for part in parts])), np.sort(every.logit), atol=1e-4)


def test_other_data_are_refused(run: Path, slices_dataset: Path):
    with pytest.raises(InputError, match="holds no candidates"):
        run_candidate_classifier.score_split(open_trained(run), shards.open_dataset(slices_dataset), split="all")


def test_a_sheet_of_examples_is_drawn(run: Path):
    assert [path.name for path in (run / "examples").iterdir()] == ["0000012.png"]
