"""`scripts/ablation.py`: each row is the recipe with its change alone, and is compared with the recipe."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import runs

from lungjax import json_files
from lungjax.evaluation import run_study
from lungjax.train import loop

ablation = runs.load(runs.ROOT / "scripts" / "ablation.py")


@pytest.mark.slow
def test_a_study(slices_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config = runs.small_config("segment", slices_dataset)
    config.steps = config.eval_every = config.checkpoint_every = 3
    variants = {name: ablation.VARIANTS[name] for name in ("recipe", "targets=soft")}
    assert ablation.study(config, variants, seeds=1, out=tmp_path)
    dice = {}
    for name, workdir in zip(variants, ("recipe-0", "targets=soft-0"), strict=True):
        began = json_files.unsealed(json_files.read(tmp_path / "runs" / workdir / "config.json"))
        expected = config.copy_and_resolve_references()
        expected.update_from_flattened_dict(variants[name])
        assert began == json.loads(expected.to_json())
        counts = json.loads((tmp_path / "runs" / workdir / "scores.json").read_text())["scored"]
        tp, fp, fn, _ = (sum(column) for column in zip(*counts.values(), strict=True))
        dice[name] = 2 * tp / (2 * tp + fp + fn)
    rows = (tmp_path / "table.md").read_text().splitlines()[2:4]
    assert rows[0].startswith(f"| recipe | {dice['recipe']:.3f} [")
    assert rows[0].endswith("| - |")
    for name, row in zip(list(variants)[1:], rows[1:], strict=True):
        assert row.startswith(f"| {name} | {dice[name]:.3f} [")
        assert f"| {dice[name] - dice['recipe']:+z.3f} [" in row

    monkeypatch.setattr(loop, "train_together", None)  # What is finished is not run again.
    assert ablation.study(config, variants, seeds=1, out=tmp_path)


def test_seeds_of_a_variant_are_trained_together(slices_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config = runs.small_config("segment", slices_dataset)
    config.replicas = 2
    groups: list[list[tuple[str, str, int]]] = []

    def train(planned: Any) -> bool:
        groups.append([(workdir.name, own.targets, own.seed) for own, workdir in planned])
        for _, workdir in planned:
            workdir.mkdir(parents=True)
        return True

    def score(workdir: Path, *_: Any) -> dict[str, Any]:
        return {"dice": 0.5, "scored": {"P1": [1, 1, 1, 7]}, "step": 3, "train_patients": ["P2"], "train_slices": 4}

    monkeypatch.setattr(loop, "train_together", train)
    monkeypatch.setattr(run_study, "_score", score)
    variants = {name: ablation.VARIANTS[name] for name in ("recipe", "targets=soft")}
    assert ablation.study(config, variants, seeds=3, out=tmp_path)
    assert groups == [
        [("recipe-0", "majority", 0), ("recipe-1", "majority", 1)],
        [("targets=soft-0", "soft", 0), ("targets=soft-1", "soft", 1)],
        [("recipe-2", "majority", 2)],
        [("targets=soft-2", "soft", 2)],
    ]


def test_changes_are_of_what_the_configuration_has():
    """A misspelt name would leave a row that is the recipe again."""
    config = runs.load_config("segment", "slices")
    config.model.encoder.width, config.model.decoder = 16, (64, 32, 16)  # The small network of the README's table.
    for name, changes in ablation.VARIANTS.items():
        one = config.copy_and_resolve_references()
        one.update_from_flattened_dict(changes)
        assert (one == config) == (name == "recipe")


def test_a_mistake_gets_one_sentence(capsys: pytest.CaptureFixture[str]):
    path = str(runs.ROOT / "configs" / "segment.py:quick")
    assert ablation.main(["ablation.py", "--out=somewhere"]) == 2
    assert "--config is missing" in capsys.readouterr().err
    with warnings.catch_warnings():  # ml_collections loads a configuration by a deprecated way.
        warnings.simplefilter("ignore", DeprecationWarning)
        assert ablation.main(["ablation.py", f"--config={path}", "--out=somewhere", "--variants=magic"]) == 2
    assert "there is no 'magic'; there are recipe, targets=majority" in capsys.readouterr().err
