"""`scripts/cross_validate.py`: every patient is scored by the run of the other folds, one fold at a time or several."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import patches
import pytest
import runs

from lungjax.preparation.run import prepare
from lungjax.train import loop

cross_validate = runs.load(runs.ROOT / "scripts" / "cross_validate.py")
SMALL = (
    "--config.data.batch_size=8",
    "--config.model.encoder.width=8",
    "--config.model.width=8",
    "--config.model.hidden=8",
    "--config.steps=2",
    "--config.eval_every=2",
)


@pytest.mark.exhaustive
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # ml_collections loads a configuration by a deprecated way.
def test_folds_that_are_trained_together_score_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    prepare(patches.write(tmp_path / "patches.npz", patients=60), tmp_path / "data", workers=1)
    at_a_time: list[int] = []
    original = loop.train_together
    monkeypatch.setattr(loop, "train_together", lambda planned: (at_a_time.append(len(planned)), original(planned))[1])
    figures, rows = [], []
    for replicas in (1, 2):
        out = tmp_path / f"by-{replicas}"
        command = ["--data", str(tmp_path / "data"), "--out", str(out), "--folds", "2", "--"]
        assert cross_validate.main([*command, *SMALL, f"--config.replicas={replicas}"]) == 0
        figures.append(json.loads((out / "cross-validation.json").read_text()))
        rows.append(pd.read_csv(out / "cross-validation.csv"))
    assert at_a_time == [1, 1, 2]
    assert len(rows[0]) == 120
    for name in rows[0].columns:
        one, other = (table[name] for table in rows)
        if pd.api.types.is_float_dtype(one):
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)
        else:
            assert (one == other).all()
    assert len(figures[0]["folds"]) == 2


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_each_fold_starts_from_its_own_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    prepare(patches.write(tmp_path / "patches.npz", patients=12), tmp_path / "data", workers=1)
    groups: list[list[tuple[str, str, str]]] = []

    def train(planned: Any) -> bool:
        for own, workdir in planned:
            assert (workdir.parent / "data" / "manifest.json").is_file()
            assert own.data.path == str(workdir.parent / "data")
            assert own.replicas == 1
        names = [(own.task, workdir.parent.name, Path(own.init_from).name) for own, workdir in planned]
        groups.append(names)
        return len(groups) < 4

    monkeypatch.setattr(loop, "train_together", train)
    command = ["--data", str(tmp_path / "data"), "--out", str(tmp_path / "out"), "--folds", "3"]
    command += ["--pretrain", "configs/simclr.py:patches", "--", "--config.replicas=2"]
    assert cross_validate.main(command) == 1  # Stopped.
    assert groups[:3] == [[("pretrain", f"fold-{fold}", "")] for fold in range(3)]
    assert groups[3] == [("classify", f"fold-{fold}", "pretrained") for fold in (0, 1)]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--", "--config.lerning_rate=1"], "--config.lerning_rate: there is no such key"),
        (
            ["--config", "configs/segment.py:quick"],
            "config.task is segment; a cross-validation is of",
        ),
        (["--config", "configs/classify.py:typo"], "there is no variant 'typo'"),
    ],
)
def test_a_mistake_gets_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
):
    out = tmp_path / "out"
    assert cross_validate.main(["--data", str(tmp_path), "--out", str(out), *arguments]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("cross_validate: error: ")
    assert sentence in line
    assert not out.exists()
