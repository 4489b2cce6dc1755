"""What lungjax wrote at 20a579c opens in this version, with the figures of then, or is refused by a sentence.

Of tests/data/written_at_20a579c.tar.xz, which is never written anew; beside it lies the script that wrote it.
"""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lungjax
from lungjax import cli
from lungjax.data import shards
from lungjax.export import signature
from lungjax.prediction import opening
from lungjax.preparation import from_predictions, mine
from lungjax.train import checkpoint, loop, trained, workdir

WRITTEN = Path(__file__).parent / "data" / "written_at_20a579c.tar.xz"
RUNS = ("simclr", "segment", "classify", "diagnose")
"""One of each task that there was."""
PREVALENCE = {"prevalence", "prevalence_of"}
MARKING = {"outline_predicted", "outline", "marking_weights"}
STANDALONE = ("segment-stablehlo", "segment-onnx")


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written_before")
    with tarfile.open(WRITTEN) as file:
        file.extractall(folder, filter="data")
    return folder


@pytest.fixture
def before(unpacked: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of all, read-only; paths in configurations begin there."""
    monkeypatch.chdir(unpacked)
    return unpacked


@pytest.mark.parametrize(("name", "patients", "slices"), [("slices", 12, 72), ("nodules", 12, 24), ("scans", 2, 152)])
def test_prepared_data(before: Path, name: str, patients: int, slices: int):
    dataset = shards.open_dataset(before / "data" / name, verify=True)
    assert (len(dataset.manifest["split"]["patients"]), len(dataset)) == (patients, slices)
    records = dataset.read(range(len(dataset)))
    counts = dataset.manifest["counts"]
    marked = sum(bool(record.readers.any()) for record in records)
    assert marked == counts["slices_with_nodules"]
    assert bool(marked) == (name != "nodules"), "of patches there are ratings, and no outlines"
    assert len({record.series_uid for record in records}) == counts["scans"]


@pytest.mark.parametrize("name", RUNS)
def test_a_run_is_opened_and_goes_on(before: Path, name: str, tmp_path: Path):
    run = Path(shutil.copytree(before / "runs" / name, tmp_path / "run"))
    model = trained.open_trained(run)
    expected = {"simclr": set(), "segment": {"predicted", "share"}}.get(name, {"slope", "offset"})
    assert model.calibration.keys() >= expected
    assert loop.train_and_evaluate(workdir.read_config(run), run), "its last checkpoint is restored: no step is left"
    assert checkpoint.load_best(run)[1] == model.step
    assert trained.open_trained(run).calibration.keys() == model.calibration.keys() | (
        {"classify": PREVALENCE, "diagnose": PREVALENCE, "segment": MARKING}.get(name, set())
    )


def numbers(report: Any, before: str = "") -> dict[str, float]:
    """Every number in a report, by its path."""
    if isinstance(report, dict):
        return {name: x for key, value in report.items() for name, x in numbers(value, f"{before}/{key}").items()}
    return {before: float(report)} if isinstance(report, int | float) else {}


@pytest.mark.parametrize("name", RUNS[1:])
def test_figures_are_those_of_then(before: Path, name: str, tmp_path: Path):
    then = numbers(json.loads((before / "runs" / name / "evaluation-all.json").read_text()))
    for kind in ("runs", "exported"):
        now = numbers(lungjax.evaluate(before / kind / name, split="all", out=tmp_path / "now.json"))
        same = then.keys() & now.keys()
        assert len(same) > 10
        differ = {key: (then[key], now[key]) for key in same if not np.isclose(then[key], now[key], atol=1e-4)}
        # A segmenter's samples are spread more evenly since.
        sampled = {key for key in differ if key.startswith(("/ged/16/", "/ged/100/"))}
        assert all(np.isclose(*differ[key], atol=0.03) for key in sampled), differ
        assert differ.keys() == sampled, differ


@pytest.mark.parametrize("name", [*RUNS, "segment-orbax"])
def test_exported_weights(before: Path, name: str):
    model = trained.open_trained(before / "exported" / name)
    described = signature.network_signature(model)
    outputs = signature.run_network(model, described, signature.golden_inputs(described))
    assert outputs
    assert all(np.isfinite(value).all() for value in outputs.values())


@pytest.mark.parametrize("name", STANDALONE)
def test_exported_networks_predict_as_their_weights_do(before: Path, name: str):
    hu = np.random.default_rng(0).integers(-1000, 400, (2, 32, 32)).astype(np.int16)
    weights, standalone = (opening.open_model(before / "exported" / one) for one in ("segment", name))
    np.testing.assert_allclose(standalone.predict(hu), weights.predict(hu), atol=1e-4)


def test_candidates_are_mined_from_data_and_model_of_then(before: Path, tmp_path: Path):
    summary = mine.mine(before / "exported" / "segment", [before / "data" / "slices"], tmp_path / "out")
    assert summary.scans > 0


def test_findings_of_then_are_gathered(before: Path, dicom: Path, tmp_path: Path):
    reports = [json.loads(path.read_text()) for path in before.glob("predicted/*/report.json")]
    assert {report["schema"] for report in reports} == {2}
    summary = from_predictions.gather(before / "predicted", source=dicom, out=tmp_path / "found.npz")
    assert summary.nodules == sum(min(len(report["nodules"]), 8) for report in reports) > 0
    assert not summary.left_out


def test_results_of_then_are_not_gone_on_with(
    before: Path, dicom: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = Path(shutil.copytree(before / "predicted", tmp_path / "out"))
    assert cli.main(["predict", str(dicom), "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "was made by another version of lungjax (0.1.0, whose reports have schema 2); name another --out." in said
