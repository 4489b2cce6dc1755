"""`lungjax evaluate --submission`: published figures by one command; files that are none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from lungjax import cli
from lungjax.evaluation.plots import training_plots


def test_published_figures_by_one_command(
    real_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    figures: list[Figure] = []
    save = training_plots.save
    monkeypatch.setattr(training_plots, "save", lambda figure, path: (figures.append(figure), save(figure, path))[1])
    folder, out = real_data / "luna16" / "deeplung", tmp_path / "found.json"
    arguments = ["--submission", str(folder / "submission.csv"), "--luna16", str(folder), "--out", str(out)]
    assert cli.main(["evaluate", *arguments]) == 0
    said = capsys.readouterr().out
    for part in (
        "scans: 888, nodules: 1,186",
        "0.842 [",
        "1,136",
        "46,078",
        "50",
        "at 0.125  0.692",
        "at 8      0.933",
    ):
        assert part in said, part
    assert (tmp_path / "found.table.txt").read_text().strip() in said
    report = json.loads(out.read_text())
    assert (report["true_positives"], report["false_positives"], report["false_negatives"]) == (1136, 46078, 50)
    curve, points = figures[0].axes[0].lines
    drawn = np.asarray(points.get_ydata(), float)
    np.testing.assert_allclose(drawn, [one["value"] for one in report["sensitivity"].values()])
    at = [int(np.argmin(np.abs(np.asarray(curve.get_xdata(), float) - rate))) for rate in (0.125, 1, 8)]
    np.testing.assert_allclose(np.asarray(curve.get_ydata(), float)[at], drawn[[0, 3, 6]])


def test_mistakes_of_a_submission(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    def refused(*arguments: str) -> str:
        assert cli.main(["evaluate", *arguments]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        return said

    head = "seriesuid,coordX,coordY,coordZ,"
    luna16 = tmp_path / "luna16"
    luna16.mkdir()
    mine = tmp_path / "mine.csv"
    given = ("--submission", str(mine), "--luna16", str(luna16), "--out", str(tmp_path / "out.json"))
    mine.write_text(head + "probability\nz,0,0,0,0.5\n")
    assert "--model, or --submission" in refused()
    assert "needs --luna16 DIR" in refused("--submission", str(mine))
    assert "takes neither --model nor --data" in refused(*given, "--model", "segmenter")
    assert "annotations.csv: no such file" in refused(*given)
    (luna16 / "seriesuids.csv").write_text("seriesuid\na\nb\n")
    for name in ("annotations", "annotations_excluded"):
        (luna16 / f"{name}.csv").write_text(head + "diameter_mm\na,0,0,0,9\n")
    assert "names none of the 2 scans" in refused(*given)
    mine.write_text(head + "score\na,0,0,0,0.5\n")
    assert "has no column 'probability'" in refused(*given)
    for name in ("annotations", "annotations_excluded"):
        (luna16 / f"{name}.csv").write_text(head + "diameter_mm\na,90,20,-100,9\n")
    for wrong, says in (("-100,20,90", "order z, y, x"), ("-90,-20,-100", "to the right and the front")):
        mine.write_text(head + f"probability\na,{wrong},0.5\n")
        assert says in refused(*given)
    for name in ("annotations", "annotations_excluded"):
        (luna16 / f"{name}.csv").write_text(head + "diameter_mm\na,0,0,0,9\n")
    assert not list(tmp_path.glob("out*"))
    mine.write_text(head + "probability\na,0,0,0,0.5\nz,0,0,0,0.5\n")
    assert cli.main(["evaluate", *given]) == 0
    assert "candidates in 1 other scans" in capsys.readouterr().out
    assert json.loads((tmp_path / "out.json").read_text())["cpm"]["value"] == 1
