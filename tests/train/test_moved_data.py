"""A data set that was moved is the same one, by its manifest; another one at its place is not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import runs

import lungjax
from lungjax.data.manifest import save_manifest
from lungjax.errors import InputError
from lungjax.train import loop


def test_a_run_goes_on_with_data_that_were_moved(slices_dataset: Path, tmp_path: Path):
    data, moved = tmp_path / "data", tmp_path / "moved"
    shutil.copytree(slices_dataset, data)
    config = runs.small_config("segment", data)
    config.update({"steps": 2, "eval_every": 2, "checkpoint_every": 2, "log_every": 1})
    loop.train_and_evaluate(config, tmp_path / "run")
    data.rename(moved)
    with pytest.raises(InputError, match=r"data, with which run was trained, is not there; name the data by --data\."):
        lungjax.evaluate(tmp_path / "run")
    config.data.path = str(moved)
    assert loop.train_and_evaluate(config, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "config.json").read_text())["data"]["path"] == str(moved)

    manifest = json.loads((moved / "manifest.json").read_text())
    manifest["files"]["quarantine.jsonl"]["sha256"] = "0" * 64  # Another data set, of the same patients.
    shutil.copytree(moved, data)
    save_manifest(data, manifest)
    config.data.path = str(data)
    with pytest.raises(InputError, match=r"was started with another config\.data\.path"):
        loop.train_and_evaluate(config, tmp_path / "run")
