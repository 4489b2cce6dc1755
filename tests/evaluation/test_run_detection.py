"""`lungjax evaluate --whole-scans` of a network that has been told the truth, or half of it, on phantom DICOM."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import chests
import numpy as np
import pytest

from lungjax import cli
from lungjax.ct.scan import Scan
from lungjax.evaluation import run_detection
from lungjax.evaluation.detection import froc, luna16_rules, reference

FILES = [
    "found.candidates.csv",
    "found.froc.png",
    "found.json",
    "found.narrowing.png",
    "found.nodules.png",
    "found.table.txt",
]


THRESHOLD = 0.83


def evaluate(data: Path, *, split: str, out: Path) -> dict[str, Any]:
    return run_detection.evaluate(Path("m"), candidate_classifier=None, data=data, split=split, out=out)


@pytest.fixture
def network(read: dict[str, Scan], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> chests.Told:
    """Told what at least two readers marked; and a false finding beside it, less probable."""
    told = []
    for scan in read.values():
        probability = np.where(np.bitwise_count(scan.reader_bits()) >= 2, 0.9, 0.01)
        middle = len(scan.voxels) // 2
        part = probability[middle - 1 : middle + 1, 60:70, 30:40]
        part[...] = np.maximum(part, 0.7)
        told.append((scan.voxels, probability))
    trained = chests.untrained(tmp_path / "model")
    points = {"false_positives_a_scan": [1.0], "threshold": [THRESHOLD], "default": 1.0, "fitted_on": "a test"}
    seen = {"slice_mm": [0.5, 5.0], "pixel_mm": [0.5, 5.0], "side_px": 64}
    trained = dataclasses.replace(trained, seen=seen, operating_points=points)
    network = chests.Told(told)
    monkeypatch.setattr(run_detection, "open_trained", lambda _: trained)
    monkeypatch.setattr(run_detection, "Segmenter", lambda *_: network)
    return network


def test_a_network_that_knows(
    network: chests.Told, dicom: Path, read: dict[str, Scan], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "found.json"
    arguments = ["evaluate", "--whole-scans", "--model", "m", "--data", str(dicom), "--out", str(out)]
    arguments += ["--candidate-classifier", "none"]
    assert cli.main(arguments) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == FILES
    said = json.loads(out.read_text())
    marked = {key: reference.reference_nodules(scan) for key, scan in read.items()}
    wanted = sum(one.wanted() for every in marked.values() for one in every)
    assert wanted > 0
    assert (said["scans"], said["froc"]["nodules"]) == (2, wanted)
    assert len(said["each_nodule"]) == sum(map(len, marked.values()))
    for one in said["each_nodule"]:
        if one["readers"] <= 4:  # One cluster of six readings is two nodules that touch: its centre lies between them.
            assert one["score"] == pytest.approx(0.9, abs=1e-3)
            assert one["dice"] > 0.98  # float16 rounds nothing away; what is beyond the lungs is.
    hits = sum(one["rank"] is not None for one in said["each_nodule"] if one["wanted"])
    assert said["froc"]["true_positives"] == hits > 1
    at_threshold = said["froc"]["at_threshold"]
    assert at_threshold["sensitivity"] == pytest.approx(hits / wanted)
    stages = said["narrowing"]["stages"]
    shares = [stages[name]["share_kept"] for name in ("all", "lungs", "candidates", "nodules")]
    assert shares[0] == 1
    assert shares == sorted(shares, reverse=True)
    assert stages["nodules"]["recall"]["3"] == 1
    table = (tmp_path / "found.table.txt").read_text()
    assert table.strip() in capsys.readouterr().out
    assert f"nodules: {wanted}" in table
    # The candidates, as a submission of their own, by the challenge's rules.
    own = [one for one in said["each_nodule"] if one["wanted"]]
    others = [one for one in said["each_nodule"] if not one["wanted"]]
    marks = luna16_rules.match(
        list(read),
        luna16_rules.read_points(tmp_path / "found.candidates.csv", "probability"),
        *map(points, (own, others)),
    )
    again = froc.froc_figures(marks)
    assert again["sensitivity"] == said["froc"]["sensitivity"]
    assert again["false_positives"] == said["froc"]["false_positives"]
    with (tmp_path / "found.candidates.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["seriesuid"] for row in rows} == set(read)
    unsure = sum(float(row["probability"]) < THRESHOLD for row in rows)
    assert unsure == 2  # The false findings that it was told, one a scan.
    assert 2 * at_threshold["false_positives_a_scan"] == said["froc"]["false_positives"] - unsure


def points(nodules: list[dict]) -> luna16_rules.ScoredPoints:
    at_mm = np.array([one["centre_mm"] for one in nodules], float).reshape(-1, 3)
    scans = np.array([one["scan"] for one in nodules], dtype=str)
    return luna16_rules.ScoredPoints(scans, at_mm, np.array([one["diameter_mm"] for one in nodules], float))


def test_a_refused_scan_has_missed_all(
    network: chests.Told, dicom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    trained = dataclasses.replace(
        run_detection.open_trained(Path("m")), seen={"slice_mm": [9, 9], "pixel_mm": [0.5, 5]}
    )
    monkeypatch.setattr(run_detection, "open_trained", lambda _: trained)
    said = run_detection.evaluate(
        Path("m"), candidate_classifier=None, data=dicom, split="test", out=tmp_path / "found.json"
    )
    assert len(said["refused"]) == 2
    assert said["froc"]["true_positives"] == said["froc"]["candidates"] == 0
    assert said["froc"]["false_negatives"] == said["froc"]["nodules"] > 0
    assert "refused: " in (tmp_path / "found.table.txt").read_text()
    assert network.calls == 0


def test_splits_are_the_models_own(
    network: chests.Told, dicom: Path, read: dict[str, Scan], tmp_path: Path, monkeypatch
):
    first, second = (scan.patient_id for scan in read.values())
    trained = dataclasses.replace(run_detection.open_trained(Path("m")), patients={first: "train", second: "val"})
    monkeypatch.setattr(run_detection, "open_trained", lambda _: trained)
    said = run_detection.evaluate(
        Path("m"), candidate_classifier=None, data=dicom, split="val", out=tmp_path / "val.json"
    )
    assert {one["patient_id"] for one in said["each_nodule"]} == {second}
    assert said["froc"]["cpm"]["low"] is None  # One scan.
    every = run_detection.evaluate(
        Path("m"), candidate_classifier=None, data=dicom, split="all", out=tmp_path / "all.json"
    )
    assert every["model"]["trained_on_patients"] == 1
    assert "Note: the model was trained on 1" in (tmp_path / "all.table.txt").read_text()


def test_a_patient_of_the_candidate_classifiers_training_is_not_tested(
    network: chests.Told, dicom: Path, read: dict[str, Scan], tmp_path: Path, monkeypatch
):
    """The detector has seen neither patient, the classifier was trained on the first."""
    first, second = (scan.patient_id for scan in read.values())
    detector = run_detection.open_trained(Path("m"))
    points = {"false_positives_a_scan": [1.0], "threshold": [0.5], "default": 1.0, "fitted_on": "a test"}
    sifting = dataclasses.replace(detector, patients={first: "train", second: "test"}, operating_points=points)
    monkeypatch.setattr(run_detection, "open_trained", lambda path: sifting if path == Path("c") else detector)
    monkeypatch.setattr(run_detection, "CandidateClassifier", _Same)
    said = run_detection.evaluate(
        Path("m"), candidate_classifier=Path("c"), data=dicom, split="test", out=tmp_path / "found.json"
    )
    assert {one["patient_id"] for one in said["each_nodule"]} == {second}


class _Same:
    """A candidate classifier that takes everything for a nodule."""

    def __init__(self, trained: Any):
        self.trained = trained

    def predict(self, stacks: np.ndarray, pixel_mm: np.ndarray) -> np.ndarray:
        return np.ones(len(stacks))


def test_mistakes_of_whole_scans(
    network: chests.Told, phantom_dataset: Path, kaggle_tree: Path, dicom: Path, tmp_path: Path, monkeypatch, capsys
):
    def refused(*arguments: str) -> str:
        assert (
            cli.main(["evaluate", "--model", "m", "--whole-scans", "--candidate-classifier", "none", *arguments]) == 2
        )
        return capsys.readouterr().err

    out = ["--out", str(tmp_path / "out.json")]
    assert "needs --data" in refused(*out)
    assert "neither --against nor --flips" in refused("--data", str(dicom), "--flips", *out)
    assert "is prepared data" in refused("--data", str(phantom_dataset), *out)
    assert "has the format slices" in refused("--data", str(kaggle_tree), *out)
    assert "none of them of split val" in refused("--data", str(dicom), "--split", "val", *out)
    assert "is a folder" in refused("--data", str(dicom), "--out", str(tmp_path))
    assert list(tmp_path.iterdir()) == []
