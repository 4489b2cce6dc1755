"""`scripts/label_efficiency.py` on a dozen made-up patients: which runs it makes, what it scores, how it goes on."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import patches
import pytest
import runs

from lungjax.data import loader, shards
from lungjax.errors import InputError
from lungjax.evaluation import run_nodule_classifier, run_study
from lungjax.evaluation.run_segmentation import Scorer
from lungjax.preparation.run import prepare
from lungjax.train import loop, trained
from lungjax.train.runs import alone
from lungjax.train.watch import StopSignal

label_efficiency = runs.load(runs.ROOT / "scripts" / "label_efficiency.py")


def tiny(name: str, data: Path) -> Any:
    config = runs.small_config(name, data)
    config.steps = config.eval_every = config.checkpoint_every = 3
    config.log_every = 1
    return config


def starting_from(config: Any, source: str) -> Any:
    """The configuration of the runs that start from `source`."""
    return alone(config, {"init_from": source, "replicas": config.replicas})


@pytest.fixture(scope="module")
def pretrained(slices_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("simclr")
    assert loop.train_and_evaluate(tiny("simclr", slices_dataset), workdir)
    return workdir


@pytest.fixture
def trained_runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the workdirs that were trained in, in order."""
    found: list[str] = []
    original = loop.train_together

    def spy(planned: Any) -> bool:
        found.extend(workdir.name for _, workdir in planned)
        return original(planned)

    monkeypatch.setattr(loop, "train_together", spy)
    return found


@pytest.mark.slow
def test_a_study_goes_on_where_it_was_stopped(
    slices_dataset: Path, pretrained: Path, tmp_path: Path, trained_runs: list[str], monkeypatch: pytest.MonkeyPatch
):
    config = tiny("segment", slices_dataset)

    def study(starts: dict[str, str], seeds: int) -> bool:
        configs = {name: starting_from(config, source) for name, source in starts.items()}
        return label_efficiency.study(configs, shares=[0.2, 1.0], seeds=seeds, out=tmp_path)

    with monkeypatch.context() as stopping:  # As by a SIGTERM after the second step of the second run.
        stopping.setattr(StopSignal, "reached", lambda _, done: done == 2 and trained_runs[-1] == "scratch-100-0")
        assert not study({"scratch": ""}, 1)
    assert trained_runs == ["scratch-20-0", "scratch-100-0"]
    first = (tmp_path / "runs" / "scratch-20-0" / "scores.json").stat().st_mtime_ns
    assert not (tmp_path / "runs" / "scratch-100-0" / "scores.json").exists()
    assert (tmp_path / "table.md").read_text().count("\n| ") == 1  # One share so far.

    assert study({"scratch": "", "simclr": str(pretrained)}, 1)
    assert trained_runs[2:] == ["simclr-20-0", "scratch-100-0", "simclr-100-0"]
    assert (tmp_path / "runs" / "scratch-20-0" / "scores.json").stat().st_mtime_ns == first
    logged = (tmp_path / "runs" / "scratch-100-0" / "metrics.jsonl").read_text().splitlines()
    assert [line["step"] for line in map(json.loads, logged) if "train/loss" in line] == [1, 2, 3]
    assert (tmp_path / "table.md").read_text().startswith("| train patients | scratch | simclr | simclr less scratch |")
    assert (tmp_path / "chart.png").stat().st_size > 5000

    config.optimizer.learning_rate = 1e-4
    with pytest.raises(InputError, match=r"scratch-20-0: was started with another config\.optimizer\.learning_rate"):
        study({"scratch": ""}, 1)


@pytest.mark.slow
def test_patients_are_nested_and_scores_are_those_of_the_test_patients(
    slices_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    config = tiny("segment", slices_dataset)
    config.steps = config.eval_every = 1
    assert label_efficiency.study({"scratch": config}, shares=[0.2, 0.5, 1.0], seeds=1, out=tmp_path)
    found = [
        json.loads((tmp_path / "runs" / f"scratch-{percent}-0" / "scores.json").read_text())
        for percent in (20, 50, 100)
    ]
    dataset = shards.open_dataset(slices_dataset)
    split = dataset.manifest["split"]["patients"]
    learnt = [set(one["train_patients"]) for one in found]
    assert learnt[0] < learnt[1] < learnt[2] == {name for name, part in split.items() if part == "train"}
    said = capsys.readouterr().err
    assert all(f"{one['train_slices']} train and" in said for one in found)

    model = trained.open_trained(tmp_path / "runs" / "scratch-20-0")
    rows = loader.select_rows(dataset, split="test", slices="all")
    batch = loader.Slices(dataset, crop_px=64, crop_at="nodule").batch(np.resize(rows, 8 * -(-len(rows) // 8)))
    scorer = Scorer(model.config, dataset, model.variables)
    parts = [{name: part[k : k + 8] for name, part in batch.items()} for k in range(0, len(batch["row"]), 8)]
    mask = np.concatenate([scorer.predict(part)["logit"] for part in parts])[: len(rows)] > 0
    truth = np.unpackbits(batch["readers"][: len(rows), ..., None], axis=-1).sum(axis=-1) >= 2
    patients = dataset.index["patient_id"].iloc[rows].to_numpy()
    assert set(found[0]["scored"]) == set(patients) == {name for name, part in split.items() if part == "test"}
    for name, counts in found[0]["scored"].items():
        mine = patients == name
        m, t = mask[mine], truth[mine]
        assert counts == [(m & t).sum(), (m & ~t).sum(), (~m & t).sum(), (~m & ~t).sum()]


@pytest.mark.slow
def test_a_study_of_grading(tmp_path: Path):
    """On val patients, by the logits of their nodules; and a study scored before there were others than of masks."""
    source = patches.write(tmp_path / "patches.npz", patients=60)
    prepare(source, tmp_path / "data", workers=1)
    config = runs.load_config("classify")
    config.data.path, config.data.batch_size = str(tmp_path / "data"), 16
    config.model.encoder.width = config.model.width = config.model.hidden = 8
    config.steps = config.eval_every = config.checkpoint_every = 2
    assert label_efficiency.study({"scratch": config}, shares=[1.0], seeds=1, out=tmp_path / "study", split="val")
    workdir = tmp_path / "study" / "runs" / "scratch-100-0"
    result = json.loads((workdir / "scores-val.json").read_text())
    model, dataset = trained.open_trained(workdir), shards.open_dataset(tmp_path / "data")
    scores = run_nodule_classifier.score_split(model, dataset, split="val")
    known = ~np.isnan(scores.label)
    nodules = np.array([nodule for own in result["scored"].values() for nodule in own])
    np.testing.assert_allclose(np.sort(nodules[:, 0]), np.sort(scores.logit[known]), rtol=1e-5)
    assert set(result["scored"]) == set(scores.index["patient_id"][known])
    positive, negative = (nodules[nodules[:, 1] == label, 0] for label in (1, 0))
    pairs = positive[:, None] - negative[None, :]
    assert result["roc_auc"] == pytest.approx(np.mean((pairs > 0) + 0.5 * (pairs == 0)))
    assert "ROC AUC of malignancy on the val patients" in (tmp_path / "study" / "table.md").read_text()

    result["counts"] = result.pop("scored")
    (workdir / "scores-val.json").write_text(json.dumps(result))
    (again,) = run_study.scores([(trained.open_trained(workdir).config, workdir)], dataset, split="val")
    assert again is not None
    assert again["scored"] == result["counts"]
    config.task = "sift"
    with pytest.raises(InputError, match=r"config\.task is sift; a study compares segment and classify"):
        next(run_study.scores([(config, tmp_path / "sift")], dataset))


@pytest.mark.exhaustive
def test_runs_that_are_trained_together_score_the_same(
    slices_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Two runs of other seeds and shares."""
    config = tiny("segment", slices_dataset)
    at_a_time: list[int] = []
    original = loop.train_together
    monkeypatch.setattr(loop, "train_together", lambda planned: (at_a_time.append(len(planned)), original(planned))[1])
    for out, replicas in (("alone", 1), ("together", 2)):
        config.replicas = replicas
        assert label_efficiency.study({"scratch": config}, shares=[0.5, 1.0], seeds=1, out=tmp_path / out)
    assert at_a_time == [1, 1, 2]
    for share in (50, 100):
        alone, together = (
            json.loads((tmp_path / out / "runs" / f"scratch-{share}-0" / "scores.json").read_text())
            for out in ("alone", "together")
        )
        assert alone["train_patients"] == together["train_patients"]
        assert alone["dice"] == pytest.approx(together["dice"], abs=1e-3)


def test_replicas_are_runs_of_the_study_that_are_trained_at_a_time(
    slices_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = tiny("segment", slices_dataset)
    config.replicas = 3
    groups: list[list[str]] = []
    stops_at = "scratch-100-1"

    def train(planned: Any) -> bool:
        groups.append([workdir.name for _, workdir in planned])
        assert all(own.replicas == 1 for own, _ in planned)
        for _, workdir in planned:
            workdir.mkdir(parents=True)
        return stops_at not in groups[-1]

    def score(workdir: Path, *_: Any) -> dict[str, Any]:
        return {"dice": 0.5, "scored": {"P1": [1, 1, 1, 7]}, "step": 3, "train_patients": ["P2"], "train_slices": 4}

    monkeypatch.setattr(loop, "train_together", train)
    monkeypatch.setattr(run_study, "_score", score)
    assert not label_efficiency.study({"scratch": config}, shares=[0.5, 1.0], seeds=2, out=tmp_path)
    assert groups == [["scratch-50-0", "scratch-100-0", "scratch-50-1"], ["scratch-100-1"]]
    stops_at, config.replicas = "", 0
    (tmp_path / "runs" / "scratch-100-1").rmdir()
    assert label_efficiency.study({"scratch": config}, shares=[0.5, 1.0], seeds=2, out=tmp_path)
    assert groups[2:] == [["scratch-100-1"]]
    assert (tmp_path / "table.md").is_file()


def test_one_seed_of_everything_comes_before_the_next(slices_dataset: Path):
    config = tiny("segment", slices_dataset)
    starts = {"scratch": config, "simclr": starting_from(config, "somewhere")}
    made = list(label_efficiency._runs(starts, shares=[0.01, 1.0], seeds=2))
    assert [(name, one.data.train_share, one.seed, one.init_from) for name, one in made] == [
        ("scratch", 0.01, 0, ""),
        ("simclr", 0.01, 0, "somewhere"),
        ("scratch", 1.0, 0, ""),
        ("simclr", 1.0, 0, "somewhere"),
        ("scratch", 0.01, 1, ""),
        ("simclr", 0.01, 1, "somewhere"),
        ("scratch", 1.0, 1, ""),
        ("simclr", 1.0, 1, "somewhere"),
    ]
    assert (config.seed, config.data.train_share, config.init_from) == (0, 1.0, "")


def starts_of(*arguments: str) -> dict[str, Any]:
    config = runs.ROOT / "configs" / "classify.py"
    command = ["label_efficiency.py", "--out=somewhere", f"--config={config}:quick", "--config.data.path=anywhere"]
    return label_efficiency._starts([*command, *arguments])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Of ml_collections.
def test_names_of_starts():
    starts = starts_of("--pretrained", "views=a/b", "--pretrained=c/near")
    assert {name: config.init_from for name, config in starts.items()} == {
        "scratch": "",
        "views": "a/b",
        "near": "c/near",
    }
    assert {config.steps for config in starts.values()} == {60}
    with pytest.raises(InputError, match="there is already a start 'near'"):
        starts_of("--pretrained=near=a", "--pretrained=c/near")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Of ml_collections.
def test_a_start_may_have_settings_of_its_own():
    own = ["--own=short:steps=10", "--own=views:optimizer.encoder_rate=0.1"]
    starts = starts_of("--pretrained=short=", "--pretrained=views=a/b", "--config.steps=40", *own)
    found = {name: (one.init_from, one.steps, one.optimizer.encoder_rate) for name, one in starts.items()}
    assert found == {"scratch": ("", 40, 1.0), "short": ("", 10, 1.0), "views": ("a/b", 40, 0.1)}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("own", "sentence"),
    [
        ("near:steps=3", "--own near:steps=3: use NAME:KEY=VALUE, where NAME is one of scratch"),
        ("scratch:steps", "--own scratch:steps: use NAME:KEY=VALUE"),
        ("scratch:step=3", "--config.step: there is no such key; did you mean config.steps?"),
        ("scratch:steps=few", "--config.steps=few: "),
        ("scratch:seed=3", "--own scratch:seed=3: config.seed is set by the study"),
        ("scratch:data.path=a", "config.data.path is set by the study"),
    ],
)
def test_a_wrong_setting_of_a_start_is_named(own: str, sentence: str):
    with pytest.raises(InputError, match=re.escape(sentence)):
        starts_of(f"--own={own}")


def test_runs_that_are_computed_otherwise_are_not_trained_together(tmp_path: Path):
    configs = [runs.load_config("classify") for _ in range(5)]
    for config, steps in zip(configs, (4, 4, 4, 2, 4), strict=True):
        config.steps = steps
    found = run_study._groups([(config, tmp_path) for config in configs], 2)
    assert [[config.steps for config, _ in group] for group in found] == [[4, 4], [4], [2], [4]]


def test_a_mistake_gets_one_sentence(capsys: pytest.CaptureFixture[str]):
    assert label_efficiency.main(["label_efficiency.py", "--out=somewhere"]) == 2
    said = capsys.readouterr().err.strip()
    assert said == "label_efficiency: error: --config is missing; see --help for an example."
