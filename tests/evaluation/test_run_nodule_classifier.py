"""A nodule classifier from training to figures: calibrated, compared with the diameter, exported, cross-validated."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import patches as made
import pytest
import runs

from lungjax import cli, json_files
from lungjax.data import folds, nodules, shards, splits
from lungjax.errors import InputError
from lungjax.evaluation import run_evaluate, run_nodule_classifier
from lungjax.evaluation.classification import binary_scores
from lungjax.evaluation.stats import calibration
from lungjax.export import run as exporting
from lungjax.prediction.nodule_classifier import NoduleClassifier
from lungjax.preparation.run import prepare
from lungjax.train import calibrate, loop, trained

PATIENTS = 60


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.write(tmp_path_factory.mktemp("source") / "patches.npz", patients=PATIENTS)


@pytest.fixture(scope="module")
def data(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("prepared") / "patches"
    prepare(file, out, workers=1)
    return out


def small(data: Path):
    config = runs.load_config("classify")
    config.data.path = str(data)
    config.data.batch_size = 16
    config.model.encoder.width = config.model.width = config.model.hidden = 8
    config.steps = config.eval_every = config.checkpoint_every = 30
    config.average_decay = 0.9
    config.optimizer.learning_rate = 1e-2
    return config


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("classify")
    assert loop.train_and_evaluate(small(data), workdir)
    return workdir


def test_a_run_ends_with_pictures_and_a_calibration(run: Path, data: Path):
    assert (run / "examples" / "0000030.png").stat().st_size > 1000
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["val/auc"] > 0.7
    line = json_files.unsealed(json_files.read(run / "calibration.json"))
    model, dataset = trained.open_trained(run), shards.open_dataset(data)
    assert model.calibration == line
    graded = run_nodule_classifier.score_split(model, dataset, split="val")
    known = ~np.isnan(graded.label)
    assert known.sum() == line["fitted_on"]
    again = calibration.fit_platt(graded.logit[known], graded.label[known] > 0.5)
    assert (again.slope, again.offset) == pytest.approx((line["slope"], line["offset"]), rel=1e-3)
    np.testing.assert_allclose(graded.probability, again(graded.logit), rtol=1e-3)


def test_figures_are_of_the_test_patients_and_of_what_readers_decided(run: Path, data: Path, tmp_path: Path):
    report = run_evaluate.evaluate(run, data=None, split="test", out=tmp_path / "out.json")
    index = shards.open_dataset(data).index
    index = index[(index["split"] == "test") & (index["malignancy_median"] != 3)]
    assert (report["nodules"], report["positives"]) == (len(index), (index["malignancy_median"] > 3).sum())
    with (tmp_path / "out.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    decided = [row for row in rows if float(row["malignancy_median"]) != 3]
    assert len(rows) == len(decided) + report["indeterminate"]
    labels = np.array([float(row["malignancy_median"]) > 3 for row in decided])
    scores = np.array([float(row["probability"]) for row in decided])
    assert report["roc_auc"]["value"] == pytest.approx(binary_scores.ranking(labels, scores)[0, 0], abs=1e-3)
    assert report["on_fewer"] == {}  # Nobody's outlines of made-up nodules are known.
    assert 0 < report["ratings"]["malignancy"]["value"] < 3
    rating = report["ratings"]["malignancy"]
    assert (rating["deviation"] > 0, rating["readers_off"] > 0) == (True, True)
    assert report["type"]["nodules"] == sum(sum(told.values()) for told in report["type"]["table"].values()) > 0
    assert sum(sum(told.values()) for told in report["calcification"]["table"].values()) == len(rows)
    assert "type, against the readers' median of texture" in (tmp_path / "out.table.txt").read_text()
    assert 0 < report["readers"]["readings"] <= 4 * len(rows)
    assert "one reader" in (tmp_path / "out.table.txt").read_text()
    for name in ("out.table.txt", "out.roc.png", "out.reliability.png"):
        assert (tmp_path / name).stat().st_size > 300
    assert json.loads((tmp_path / "out.json").read_text()) == report


def test_strangers_bring_a_file(run: Path, tmp_path: Path, monkeypatch, capsys):
    """All of it counts, for the model saw none of them; of those that it saw, none."""
    monkeypatch.chdir(tmp_path)
    theirs = made.write(tmp_path / "theirs.npz", patients=9, seed=1, prefix="STRANGER")
    assert cli.main(["evaluate", "--model", str(run), "--data", str(theirs)]) == 0
    report = json.loads((run / "evaluation-test-theirs.json").read_text())
    assert report["nodules"] + report["indeterminate"] == 18
    with (run / "evaluation-test-theirs.csv").open() as stream:
        assert len({row["patient_id"] for row in csv.DictReader(stream)}) == 9
    assert "not pathology" in capsys.readouterr().out
    (tmp_path / "bad.npz").write_bytes(b"no zip")
    assert cli.main(["evaluate", "--model", str(run), "--data", str(tmp_path / "bad.npz")]) == 2
    assert "bad.npz holds neither DICOM files nor" in capsys.readouterr().err
    model = trained.open_trained(run)
    seen = next(patient for patient, split in model.patients.items() if split == "train")
    columns = made.columns(patients=1, seed=2)
    columns["patient_id"][:] = seen
    np.savez_compressed(tmp_path / "seen.npz", allow_pickle=True, **columns)
    assert cli.main(["evaluate", "--model", str(run), "--data", str(tmp_path / "seen.npz")]) == 2
    assert "no rated nodule of split test" in capsys.readouterr().err


def test_an_export_grades_as_the_run_does(run: Path, data: Path, tmp_path: Path):
    run_evaluate.evaluate(run, data=None, split="test", out=None)
    exported = trained.open_trained(exporting.export(run, tmp_path / "out", dtype="float16"))
    card = (tmp_path / "out" / "README.md").read_text()
    for part in ("calibration | sigmoid(", "roc_auc |", "not pathology", "classifies nodules, it finds none"):
        assert part in card
    dataset = shards.open_dataset(data)
    graded = run_nodule_classifier.score_split(trained.open_trained(run), dataset, split="test")
    grader = NoduleClassifier(exported)
    hu, _ = dataset.pixels(nodules.rows_for(dataset, exported.patients, "test"))
    said = grader.predict(np.stack(hu), graded.index["column_spacing_mm"].to_numpy())
    np.testing.assert_allclose(said.probability, graded.probability, atol=5e-3)
    np.testing.assert_allclose(said.ratings, graded.expected, atol=2e-2)
    assert len(grader.predict(np.zeros((0, 41, 41), np.int16), np.zeros(0)).probability) == 0
    with pytest.raises(InputError, match="pixel_mm holds a number that is not above 0"):
        grader.predict(np.stack(hu), np.zeros(len(hu)))


def test_two_nodule_classifiers_are_compared_on_the_same_nodules(run: Path, data: Path, tmp_path: Path):
    report = run_evaluate.evaluate(run, data=None, split="all", out=tmp_path / "o.json", against=run)
    graded = run_nodule_classifier.score_split(trained.open_trained(run), shards.open_dataset(data), split="all")
    half = np.arange(len(graded.logit)) % 2 == 0
    again = run_nodule_classifier.score_figures(run_nodule_classifier.pooled([graded.only(half), graded.only(~half)]))
    assert again["roc_auc"]["value"] == report["roc_auc"]["value"]
    difference = report["others"]["against"]["difference"]["roc_auc"]
    assert set(difference.values()) == {0.0}
    assert "difference" in (tmp_path / "o.table.txt").read_text()


def test_what_is_no_patch_is_not_graded(slices_dataset: Path, run: Path, tmp_path: Path):
    config = small(slices_dataset)
    with pytest.raises(InputError, match="patches of one nodule each"):
        loop.train_and_evaluate(config, tmp_path / "run")
    with pytest.raises(InputError, match="patches of one nodule each"):
        run_evaluate.evaluate(run, data=slices_dataset, split="test", out=tmp_path / "o.json")
    (run / "calibration.json").rename(tmp_path / "kept.json")
    (run / "calibration.json").write_text("{")
    with pytest.raises(InputError, match=r"calibration\.json is damaged"):
        trained.open_trained(run)
    shutil.move(tmp_path / "kept.json", run / "calibration.json")
    line = {"slope": 2.0, "offset": 1.0, "step": 1}
    (tmp_path / "calibration.json").write_text(json.dumps(line))
    assert calibrate.read_calibration(tmp_path, 1) == line
    assert calibrate.read_calibration(tmp_path, 2) == {}  # Of another checkpoint.


def test_diameter_is_that_of_the_mean_area():
    class Made:
        spacing_mm = np.array([0.5, 0.5], np.float32)

        class dataset:
            @staticmethod
            def pixels(rows):
                one = np.zeros((9, 9), np.uint8)
                one[:4, :4], one[:2, :4] = 1, 3  # 16 px and 8 px: 12 of 0.25 mm2.
                return None, [one, np.zeros((9, 9), np.uint8)]

    found = nodules.diameters_mm(Made(), np.arange(2))  # pyright: ignore[reportArgumentType]
    np.testing.assert_allclose(found, [2 * np.sqrt(3 / np.pi), np.nan])


def test_folds_part_the_patients(data: Path, tmp_path: Path):
    tested = []
    for fold in range(3):
        out = folds.write(data, tmp_path / str(fold), fold=fold, folds=3)
        dataset = shards.open_dataset(out, verify=True)
        of = dataset.manifest["split"]["patients"]
        assert set(of.values()) == {"train", "val", "test"}
        tested += [patient for patient, split in of.items() if split == "test"]
        assert {patient: split == "test" for patient, split in of.items()} == {
            patient: folds.fold_of(patient, 3) == fold for patient in of
        }
        np.testing.assert_array_equal(dataset.pixels([5])[0][0], shards.open_dataset(data).pixels([5])[0][0])
    assert len(tested) == len(set(tested)) == PATIENTS
    kept = folds.assign([*splits.ALWAYS_TEST, "A", "B", "C", "D"], 0, 3)
    assert all(
        folds.assign(splits.ALWAYS_TEST, fold, 3) == dict.fromkeys(splits.ALWAYS_TEST, "test") for fold in range(3)
    )
    assert set(kept) == {*splits.ALWAYS_TEST, "A", "B", "C", "D"}
