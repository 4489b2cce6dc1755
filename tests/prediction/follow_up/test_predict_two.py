"""`lungjax predict A B --same-patient` from DICOM to its files: order, resumption, mistakes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import chests
import numpy as np
import pydicom
import pytest

from lungjax import cli
from lungjax.prediction import pipeline
from lungjax.prediction.follow_up import registration
from lungjax.prediction.outputs import follow_up_folder

FILES = ["first", "follow-up.csv", "follow-up.html", "follow-up.json", "second"]


class Moved:
    """Stands for a registration: the second scan is the first one, 30 mm to the left."""

    affine_lps = np.array([[1, 0, 0, 30], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    spline, lung_dice = True, 1.0

    def to_second(self, points_mm: np.ndarray) -> np.ndarray:
        return points_mm + np.array([30, 0, 0])

    def to_first(self, points_mm: np.ndarray) -> np.ndarray:
        return points_mm - np.array([30, 0, 0])


@pytest.fixture
def pair(told: chests.Told, dicom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A phantom series of 1 March 2020, and the same, 30 mm to the left, of 9 June: 100 days later."""
    monkeypatch.setattr(registration, "register", lambda *_: Moved())
    open_pipeline = pipeline.open_pipeline  # Without classifiers, for time's sake.
    without = {"candidate_classifier": None, "nodule_classifier": None, "patient_classifier": None}
    monkeypatch.setattr(pipeline, "open_pipeline", lambda model, **given: open_pipeline(model, **{**given, **without}))
    _, folder = next(iter(chests.folders(dicom).items()))
    made = tmp_path / "a", tmp_path / "b"
    for number, (to, date) in enumerate(zip(made, ("20200301", "20200609"), strict=True)):
        to.mkdir()
        for path in folder.glob("*.dcm"):
            image = pydicom.dcmread(path)
            image.StudyDate = date
            image.SeriesInstanceUID = f"1.2.{number + 1}"
            image.ImagePositionPatient[0] += 30 * number
            image.save_as(to / path.name)
    return made


def run(first: Path, second: Path, out: Path, *more: str) -> int:
    return cli.main(
        [
            "predict",
            str(first),
            str(second),
            "--same-patient",
            "--model",
            "model",
            "--candidate-classifier",
            "none",
            "--out",
            str(out),
            *more,
        ]
    )


def test_two_series(pair: tuple[Path, Path], told: chests.Told, tmp_path: Path, capsys: pytest.CaptureFixture):
    out = tmp_path / "out"
    assert run(*pair, out) == 0
    said = capsys.readouterr().out
    assert "100 days lie between the scans" in said
    assert str(out / "follow-up.html") in said
    assert sorted(path.name for path in out.iterdir()) == FILES
    report = json.loads((out / "follow-up.json").read_text())
    assert [report[name]["date"] for name in ("first", "second")] == ["2020-03-01", "2020-06-09"]
    assert [report[name]["series_uid"] for name in ("first", "second")] == ["1.2.1", "1.2.2"]
    nodules = json.loads((out / "first" / "report.json").read_text())["nodules"]
    assert nodules
    for nodule in nodules:
        (matched,) = [one for one in report["matched"] if one["first"] == nodule["number"]]
        assert matched["second"] == nodule["number"]
        assert (matched["distance_mm"], matched["growth_percent"]) == (0, 0)
        assert matched["doubling_days"] is None
    assert "first/report.html" in (out / "follow-up.html").read_text()
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert told.calls == 2
    assert run(*pair, out) == 0
    assert "which was there already" in capsys.readouterr().out
    assert told.calls == 2
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    (out / "follow-up.json").unlink()  # As a call leaves it that was killed as it ended.
    assert run(*pair, out) == 0
    remade = json.loads((out / "follow-up.json").read_text())
    assert remade | {"made": None} == report | {"made": None}


def test_given_in_the_other_order(pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture):
    """They are compared by their dates, and that is said; dates that are given count instead."""
    assert run(pair[1], pair[0], tmp_path / "out") == 0
    assert "given before the earlier one, of 2020-03-01: the first is the earlier." in capsys.readouterr().out
    report = json.loads((tmp_path / "out" / "follow-up.json").read_text())
    assert (report["first"]["series_uid"], report["days"]) == ("1.2.1", 100)
    other = tmp_path / "other"
    assert run(pair[1], pair[0], other, "--dates", "2021-01-01", "2021-01-31") == 0
    report = json.loads((other / "follow-up.json").read_text())
    assert (report["first"]["series_uid"], report["days"], report["warnings"]) == ("1.2.2", 30, [])


def test_mistakes(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    def said(*arguments: str) -> str:
        assert cli.main(["predict", *arguments, "--model", "model", "--out", str(tmp_path / "out")]) == 2
        return capsys.readouterr().err

    first, second = map(str, pair)
    assert "takes one SCAN" in said(first, second)
    assert "takes one SCAN" in said(first, "--dates", "2020-01-01", "2020-02-02")
    assert "compares two scans; 1 were given" in said(first, "--same-patient")
    assert "are the same scan" in said(first, first, "--same-patient")
    for path in pair[1].glob("*.dcm"):
        image = pydicom.dcmread(path)
        image.PatientID = "SOMEBODY-ELSE"
        image.save_as(path)
    assert "are of different patients" in said(first, second, "--same-patient")
    assert not (tmp_path / "out").exists()  # Nothing was predicted.
    with pytest.raises(SystemExit):
        cli.main(["predict", first, second, "--same-patient", "--out", "o", "--dates", "1.2.2020", "2020-02-02"])
    assert "'1.2.2020' is not a date as 2024-01-31" in capsys.readouterr().err


def test_what_lies_in_out_is_not_mixed_up(pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture):
    out = tmp_path / "out"
    assert run(*pair, out) == 0
    assert run(*pair, out, "--dates", "2021-01-01", "2021-01-31") == 2
    assert "is of other predictions or dates" in capsys.readouterr().err
    assert run(pair[1], pair[0], out, "--dates", "2021-01-01", "2021-01-31") == 2
    assert "holds what was predicted of" in capsys.readouterr().err
    (out / "follow-up.json").write_text("[]")
    assert run(*pair, out) == 2
    assert "is none of ours" in capsys.readouterr().err


def test_a_call_that_fails_leaves_whole_predictions_and_no_comparison(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    out = tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr(follow_up_folder.html_follow_up, "write", full)
        assert run(*pair, out) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert sorted(path.name for path in out.iterdir()) == ["first", "second"]
    assert run(*pair, out) == 0
    assert sorted(path.name for path in out.iterdir()) == FILES
