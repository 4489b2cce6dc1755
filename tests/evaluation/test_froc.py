"""FROC against the published figures of a real submission, by hand, and against a loop over drawn scans."""

from __future__ import annotations

import csv
import dataclasses
import time
from pathlib import Path

import numpy as np
import pytest

from lungjax.errors import InputError
from lungjax.evaluation.detection import froc, luna16_rules
from lungjax.evaluation.detection.luna16_rules import Matches, ScoredPoints
from lungjax.evaluation.stats import bootstrap


def _findings(*rows: tuple[str, float, float]) -> ScoredPoints:
    """(scan, x in mm, value), y and z being 0."""
    scan, x_mm, value = zip(*rows, strict=True) if rows else ((), (), ())
    at_mm = np.stack([np.array(x_mm, float), np.zeros(len(rows)), np.zeros(len(rows))], axis=1)
    return ScoredPoints(np.array(scan, dtype=str), at_mm, np.array(value, float))


def test_a_real_submission_has_its_published_figures(real_data: Path):
    folder = real_data / "luna16" / "deeplung"
    with (folder / "seriesuids.csv").open() as file:
        scans = [row[0] for row in csv.reader(file)]
    marks = luna16_rules.match(
        scans,
        luna16_rules.read_points(folder / "submission.csv", "probability"),
        luna16_rules.read_points(folder / "annotations.csv", "diameter_mm"),
        luna16_rules.read_points(folder / "annotations_excluded.csv", "diameter_mm"),
    )
    start = time.perf_counter()
    report = froc.froc_figures(marks)
    assert time.perf_counter() - start < 30  # Measured: 2 s for 1,000 resamples; the rest is for a busy machine.
    counts = [report[f"{kind}"] for kind in ("true_positives", "false_positives", "false_negatives", "scans")]
    assert counts == [1136, 46078, 50, 888]
    published = ["0.692", "0.769", "0.824", "0.865", "0.893", "0.917", "0.933"]
    assert [f"{one['value']:.3f}" for one in report["sensitivity"].values()] == published
    assert f"{report['cpm']['value']:.3f}" == "0.842"
    # 1,186 nodules of 601 scans: about 0.842 +- 1.96 sqrt(0.842 * 0.158 / 1186) were each a scan of its own.
    assert 0.81 < report["cpm"]["low"] < 0.83
    assert 0.85 < report["cpm"]["high"] < 0.88


def test_rules_by_hand():
    candidates = _findings(
        ("a", 1.0, 0.5),  # On the nodule at 0, 6 mm wide,
        ("a", -2.0, 0.7),  # and again: this one counts.
        ("a", 3.0, 0.9),  # Not within its radius: the distance is the radius.
        ("a", 54.0, 0.8),  # On an excluded finding of unknown width: 5 mm around 50.
        ("a", 55.0, 0.6),  # Not within it.
        ("a", 20.0, 0.4),  # Within two nodules: finds both.
        ("b", 0.0, 0.3),  # A scan without nodules.
        ("z", 0.0, 1.0),  # A scan nobody asked for.
    )
    nodules = _findings(("a", 0.0, 6.0), ("a", 18.0, 8.0), ("a", 22.0, 8.0), ("a", 99.0, 8.0), ("z", 0.0, 9.0))
    marks = luna16_rules.match(["a", "b", "c"], candidates, nodules, _findings(("a", 50.0, -1.0), ("a", 1.0, 4.0)))
    found = sorted(zip(marks.scan.tolist(), marks.probability.tolist(), marks.hit.tolist(), strict=True))
    assert found == [
        (0, 0.4, True),
        (0, 0.4, True),
        (0, 0.6, False),
        (0, 0.7, True),
        (0, 0.9, False),
        (1, 0.3, False),
    ]
    np.testing.assert_array_equal(marks.nodules, [4, 0, 0])
    assert (marks.candidates, marks.ignored, marks.doubles) == (7, 1, 1)
    false_positives, sensitivity, threshold = froc.froc_curve(marks)
    np.testing.assert_allclose(false_positives, [0, 1 / 3, 1 / 3, 2 / 3, 2 / 3, 1])
    np.testing.assert_allclose(sensitivity, [0, 0, 1 / 4, 1 / 4, 3 / 4, 3 / 4])
    np.testing.assert_allclose(threshold, [np.inf, 0.9, 0.7, 0.6, 0.4, 0.3])
    # 1/8 and 1/4 false positives a scan lie before the first step; from 1 on nothing more is found.
    report = froc.froc_figures(marks, resamples=10)
    assert [one["value"] for one in report["sensitivity"].values()] == [0, 0, 0.25, 0.75, 0.75, 0.75, 0.75]
    assert report["cpm"]["value"] == pytest.approx(3.25 / 7)


def test_of_too_many_candidates_the_likeliest_count_and_ties_with_the_next_do_not():
    many = [("a", float(n), n / 1000) for n in range(150)]
    marks = luna16_rules.match(["a"], _findings(*many), _findings(("a", -99.0, 5.0)), _findings())
    assert marks.probability.min() == pytest.approx(0.050)
    assert len(marks.hit) == 100
    tied = [*many[:149], ("a", 149.0, 0.049), ("a", 150.0, 0.050)]  # The 101st is 0.049 or, with the tie, 0.050.
    marks = luna16_rules.match(["a"], _findings(*tied), _findings(("a", -99.0, 5.0)), _findings())
    assert marks.probability.min() == pytest.approx(0.050)
    assert marks.candidates == 100
    same = [("a", float(n), 0.5) for n in range(101)]
    assert luna16_rules.match(["a"], _findings(*same), _findings(), _findings()).candidates == 0


def _random_marks(scans: int, marks: int) -> Matches:
    rng = np.random.default_rng(0)
    probability = rng.integers(0, 40, marks) / 40  # With many ties between hits and false positives.
    scan, hit = rng.integers(0, scans, marks), rng.random(marks) < 0.2
    nodules = np.bincount(scan[hit], minlength=scans) + rng.integers(0, 2, scans)
    return Matches(scan, probability, hit, nodules, marks, 0, 0)


def test_weights_are_scans_drawn_several_times():
    marks = _random_marks(12, 400)
    weights = bootstrap.resample_weights(12, resamples=5, seed=3)
    for row, weight in zip(froc.sensitivities(marks, weights), weights, strict=True):
        drawn = np.repeat(np.arange(12), weight)
        mine = [np.flatnonzero(marks.scan == scan) for scan in drawn]
        copies = np.concatenate(mine)
        again = dataclasses.replace(
            marks,
            scan=np.repeat(np.arange(12), [len(one) for one in mine]),
            probability=marks.probability[copies],
            hit=marks.hit[copies],
            nodules=marks.nodules[drawn],
        )
        false_positives, sensitivity, _ = froc.froc_curve(again)
        np.testing.assert_allclose(row, np.interp(froc.RATES, false_positives, sensitivity))


def test_a_resample_without_nodules_is_undefined():
    marks = dataclasses.replace(_random_marks(3, 30), nodules=np.array([0, 0, 40]))
    found = froc.sensitivities(marks, np.array([[1, 2, 0], [1, 1, 1]]))
    assert np.isnan(found[0]).all()
    assert np.isfinite(found[1]).all()
    none = dataclasses.replace(marks, hit=np.zeros(30, bool), nodules=np.zeros(3, int))
    assert froc.froc_figures(none)["cpm"] == {"value": None, "low": None, "high": None}
    assert np.isnan(froc.froc_curve(none)[1]).all()


def test_no_interval_from_one_scan_and_nothing_from_none():
    marks = luna16_rules.match(["a"], _findings(("a", 0.0, 0.5)), _findings(("a", 1.0, 6.0)), _findings())
    report = froc.froc_figures(marks)
    assert report["cpm"] == {"value": 1.0, "low": None, "high": None}
    assert report["interval"].startswith("none: one scan")
    empty = froc.froc_figures(luna16_rules.match(["a", "b"], _findings(), _findings(("a", 1.0, 6.0)), _findings()))
    assert empty["cpm"]["value"] == 0
    for scans in ([], ["a", "a"]):
        with pytest.raises(ValueError, match="expected distinct scans"):
            luna16_rules.match(scans, _findings(), _findings(), _findings())


def test_files_that_are_none(tmp_path: Path):
    path = tmp_path / "submission.csv"
    head = "seriesuid,coordX,coordY,coordZ,probability\n"
    path.write_text(head + "007,1,2,3,0.5\n")
    read = luna16_rules.read_points(path, "probability")
    assert read.scan.tolist() == ["007"]
    np.testing.assert_array_equal(np.column_stack([read.at_mm, read.value]), [[1, 2, 3, 0.5]])
    path.write_text("Probability; CoordZ;coordY;coordX;note;SeriesUID\n0,5;3;2;1,25;x;007\n")  # As a spreadsheet does.
    read = luna16_rules.read_points(path, "probability")
    assert read.scan.tolist() == ["007"]
    np.testing.assert_array_equal(np.column_stack([read.at_mm, read.value]), [[1.25, 2, 3, 0.5]])
    for text, said in (
        (head.replace("coordZ", "z") + "a,1,2,3,0.5\n", "has no column 'coordZ'"),
        (head + "a,1,2,3,0.5\n\na,1,2\n", "line 4: .* has no four numbers"),
        (head + "a,1,x,3,0.5\n", "line 2: .* has no four numbers"),
        (head + "a,1,nan,3,0.5\n", "line 2: .* are not finite"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=said):
            luna16_rules.read_points(path, "probability")
