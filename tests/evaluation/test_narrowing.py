"""From all slices to those that matter: ranks and recalls by hand, chance and intervals by another way."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from lungjax.evaluation.detection import detection_table, narrowing
from lungjax.evaluation.detection.narrowing import Narrowed
from lungjax.evaluation.plots import detection_charts
from lungjax.evaluation.stats import bootstrap


def narrowed(rank: list[int], marked: list[list[int]], readers: list[int], centre: list[int]) -> Narrowed:
    """Of a nodule `marked` names the slices; two stages, the first half of the ranks and all."""
    masks = np.array([[number in one for number in range(len(rank))] for one in marked], bool)
    ranks = np.array(rank)
    return Narrowed(
        rank=ranks,
        stages={"all": np.ones(len(rank), bool), "half": ranks <= len(rank) // 2},
        marked=masks.reshape(-1, len(rank)),
        centre=np.array(centre, np.int64),
        readers=np.array(readers, np.int64),
    )


def made_up(scans: int = 9) -> list[Narrowed]:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(scans):
        slices, nodules = int(rng.integers(20, 60)), int(rng.integers(0, 5))
        first = rng.integers(0, slices - 5, nodules)
        marked = [list(range(at, at + int(rng.integers(1, 6)))) for at in first]
        rank = (rng.permutation(slices) + 1).tolist()
        found.append(narrowed(rank, marked, rng.integers(1, 5, nodules).tolist(), first.tolist()))
    return found


def test_one_slice_of_each_finding_then_their_others_then_lung_then_the_rest():
    lung_mm2 = np.array([0.0, 5.0, 0.0, 9.0, 9.0, 0.0, 7.0, 0.0])
    ranks = narrowing.rank_slices(
        scores=np.array([0.9, 0.6]), slices=np.array([[2, 4], [4, 5]]), widest=np.array([3, 5]), lung_mm2=lung_mm2
    )
    # 3 and 5 (where they are widest), 2 and 4 (beside the better one's), 6 and 1 (lung), 0 and 7.
    np.testing.assert_array_equal(np.argsort(ranks), [3, 5, 2, 4, 6, 1, 0, 7])
    # Two findings that are widest in one slice: the better one's score is the slice's.
    wide = np.array([[0, 7], [3, 5], [6, 6]])
    ranks = narrowing.rank_slices(np.array([0.5, 0.8, 0.7]), wide, np.array([4, 4, 6]), lung_mm2)
    np.testing.assert_array_equal(np.argsort(ranks), [4, 6, 3, 5, 2, 1, 7, 0])
    assert sorted(ranks) == list(range(1, 9))
    none = narrowing.rank_slices(np.zeros(0), np.zeros((0, 2), int), np.zeros(0, int), lung_mm2)
    np.testing.assert_array_equal(np.argsort(none), [3, 4, 6, 1, 0, 2, 5, 7])


def test_recall_by_hand():
    scans = [
        narrowed([1, 2, 3, 4, 5, 6], [[1, 2], [5]], [4, 1], [2, 5]),
        narrowed([3, 2, 1], [[0]], [3], [0]),
        narrowed([2, 1], [], [], []),
    ]
    kept = np.array([1, 2, 3, 6])
    every = narrowing.recall_of_kept(scans, kept, readers=1)
    np.testing.assert_allclose(every["recall"], np.array([0, 1, 2, 3]) / 3)
    np.testing.assert_allclose(every["centre"], np.array([0, 0, 2, 3]) / 3)
    np.testing.assert_array_equal(every["counts"][0], [2, 0, 1, 1, 2, 0, 0, 1, 2])
    sure = narrowing.recall_of_kept(scans, kept, readers=3)
    np.testing.assert_allclose(sure["recall"], [0, 0.5, 1, 1])
    none = narrowing.recall_of_kept(scans[2:], kept, readers=1)
    assert np.isnan(none["recall"]).all()
    assert np.isnan(none["chance"]).all()


def test_chance_is_the_mean_over_all_ways_to_draw():
    scan = narrowed([1, 2, 3, 4, 5, 6, 7], [[1, 2, 3], [5]], [4, 4], [2, 5])
    kept = np.arange(1, 9)
    chance = narrowing.recall_of_kept([scan], kept, readers=1)["chance"]
    for number, expected in zip(kept, chance, strict=True):
        draws = list(itertools.combinations(range(7), min(int(number), 7)))
        hits = [scan.marked[:, list(draw)].any(axis=1).mean() for draw in draws]
        assert expected == pytest.approx(np.mean(hits))


def test_report_against_a_loop_over_drawn_scans():
    scans = made_up()
    report = narrowing.narrowing_figures(scans, resamples=50, seed=3)
    weights = bootstrap.resample_weights(len(scans), resamples=50, seed=3)
    for least in narrowing.READERS:
        part = report["by_readers"][str(least)]
        assert part["nodules"] == sum(int((scan.readers >= least).sum()) for scan in scans)
        for row in part["curve"]:
            kept = np.array([row["kept"]])
            drawn = []
            for weight in weights:
                copies = [scans[n] for n in np.repeat(np.arange(len(scans)), weight)]
                drawn.append(narrowing.recall_of_kept(copies, kept, readers=least)["recall"][0])
            assert row["recall"]["value"] == narrowing.recall_of_kept(scans, kept, readers=least)["recall"][0]
            expected = np.nanquantile(drawn, [0.025, 0.975])
            assert [row["recall"]["low"], row["recall"]["high"]] == pytest.approx(expected)
            share = sum(min(row["kept"], len(scan.rank)) for scan in scans) / sum(len(scan.rank) for scan in scans)
            assert row["share_kept"] == pytest.approx(share)
        for level, needed in part["slices_for"].items():
            reached = [
                narrowing.recall_of_kept(scans, np.array([k]), readers=least)["recall"][0] for k in (needed - 1, needed)
            ]
            assert reached[0] < float(level) <= reached[1]
    half = report["stages"]["half"]
    assert half["slices"] == sum(len(scan.rank) // 2 for scan in scans)
    hits = [(scan.marked[scan.readers >= 3] & scan.stages["half"]).sum(axis=1) > 0 for scan in scans]
    assert half["recall"]["3"] == pytest.approx(np.concatenate(hits).mean())
    assert report["stages"]["all"]["recall"]["1"] == 1


def test_nothing_to_find_is_undefined_and_still_a_table(tmp_path: Path):
    scans = [narrowed([1, 2, 3], [], [], [])]
    report = narrowing.narrowing_figures(scans)
    assert report["by_readers"]["3"]["slices_for"]["0.9"] is None
    assert report["stages"]["half"]["recall"] == {"1": None, "3": None, "4": None}
    assert ">= 3 readers (0 nodules)" in "\n".join(detection_table.narrowing_lines(report))
    detection_charts.narrowing_chart(scans, report, tmp_path / "none.png")


def test_the_chart_shows_the_recalls(tmp_path: Path, figures: dict[str, Figure]):
    scans = made_up()
    report = narrowing.narrowing_figures(scans, resamples=5)
    detection_charts.narrowing_chart(scans, report, tmp_path / "n.png")
    lines = {str(line.get_label()): np.asarray(line.get_xydata()) for line in figures["n.png"].axes[0].lines}
    count = report["by_readers"]["3"]["nodules"]
    for row in report["by_readers"]["3"]["curve"]:
        for label, name in (
            (f"{count} nodules of 3 or more readers", "recall"),
            ("of these, the slice of the centre", "centre"),
            ("of these, slices drawn at random", "chance"),
        ):
            value = row[name] if name == "chance" else row[name]["value"]
            assert lines[label][row["kept"] - 1] == pytest.approx([row["kept"], value])
    table = "\n".join(detection_table.narrowing_lines(report))
    assert f">= 3 readers ({count} nodules)" in table
    row = report["by_readers"]["1"]["curve"][3]["recall"]
    assert f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]" in table
