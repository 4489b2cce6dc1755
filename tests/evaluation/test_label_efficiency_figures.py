"""Label efficiency: intervals over patients and seeds against a second way, tables with gaps, the chart."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from lungjax.evaluation.stats import label_efficiency
from lungjax.evaluation.stats.label_efficiency import Run


def run(start: str, share: float, seed: int, *, people: int = 30, better: float = 0.0) -> Run:
    """Made-up counts; seeds differ a little, patients a lot, and the same way for every start."""
    rng = np.random.default_rng(7)
    size = rng.integers(50, 500, people)
    found = np.clip(rng.beta(5, 3, people) + 0.05 * seed + better, 0, 1)
    hit = np.round(found * size).astype(int)
    columns = (hit, size // 4, size - hit, np.full(people, 10_000))
    counts = {f"P{p:02d}": [int(column[p]) for column in columns] for p in range(people)}
    return Run(start, share, seed, patients=round(400 * share), counts=counts)


def dice(counts: np.ndarray) -> float:
    hit, false, missed, _ = counts
    return 2 * hit / (2 * hit + false + missed)


def test_value_and_interval_by_a_second_way():
    runs, base = ([run(start, 0.1, s, better=b) for s in range(3)] for start, b in (("simclr", 0.1), ("scratch", 0.0)))
    single, gain = label_efficiency.point(runs, resamples=4000), label_efficiency.point(runs, base, resamples=4000)
    assert single is not None
    assert gain is not None
    table = {id(side): np.array([list(one.counts.values()) for one in side]) for side in (runs, base)}

    def mean(side: list[Run], seeds: np.ndarray, people: np.ndarray) -> float:
        return float(np.mean([dice(table[id(side)][s, people].sum(axis=0)) for s in seeds]))

    all_seeds, everyone = np.arange(3), np.arange(30)
    assert single.value == pytest.approx(mean(runs, all_seeds, everyone))
    assert gain.value == pytest.approx(single.value - mean(base, all_seeds, everyone))
    rng = np.random.default_rng(1)
    drawn = []
    for _ in range(4000):
        seeds, people = rng.integers(0, 3, 3), rng.integers(0, 30, 30)
        one = mean(runs, seeds, people)
        drawn.append((one, one - mean(base, seeds, people)))
    expected = np.quantile(drawn, [0.025, 0.975], axis=0)
    np.testing.assert_allclose([single.low, single.high], expected[:, 0], atol=0.004)
    np.testing.assert_allclose([gain.low, gain.high], expected[:, 1], atol=0.004)
    assert gain.high - gain.low < 0.5 * (single.high - single.low)  # Paired: the patients' spread cancels.


def test_seeds_widen_an_interval():
    same = [dataclasses.replace(run("scratch", 0.1, 1), seed=s) for s in range(3)]
    apart = [run("scratch", 0.1, s) for s in range(3)]
    one, three = label_efficiency.point(same), label_efficiency.point(apart)
    assert one is not None
    assert three is not None
    assert three.high - three.low > 1.05 * (one.high - one.low)


def test_a_difference_takes_the_seeds_that_both_have():
    runs, base = [run("simclr", 0.1, s, better=0.1) for s in range(2)], [run("scratch", 0.1, s) for s in (1, 2)]
    gain = label_efficiency.point(runs, base)
    assert gain is not None
    assert gain.seeds == 1
    expected = [dice(np.sum(list(one.counts.values()), axis=0)) for one in (runs[1], base[0])]
    assert gain.value == pytest.approx(expected[0] - expected[1])
    assert label_efficiency.point(runs[:1], base) is None
    with pytest.raises(ValueError, match="not scored on the same patients"):
        label_efficiency.point(runs, [run("scratch", 0.1, 1, people=29)])


def test_a_table_of_an_unfinished_study(tmp_path: Path):
    runs = [run("scratch", 0.01, s) for s in range(3)] + [run("scratch", 1.0, 0), run("simclr", 0.01, 0, better=0.1)]
    lines = label_efficiency.table(runs).splitlines()
    assert lines[0] == "| train patients | scratch | simclr | simclr less scratch |"
    assert lines[2].startswith("| 1 % (4) | 0.")
    assert lines[2].count("1 of 3 seeds") == 2
    assert lines[3].startswith("| 100 % (400) | 0.")
    assert lines[3].endswith("1 of 3 seeds | - | - |")
    assert "| +0." in lines[2]
    assert lines[-1].startswith("3 seeds; mean over seeds")
    label_efficiency.chart(runs, tmp_path / "chart.png")
    label_efficiency.chart(runs[:4], tmp_path / "scratch.png")
    assert (tmp_path / "chart.png").stat().st_size > (tmp_path / "scratch.png").stat().st_size > 5000


def test_one_patient_has_no_interval():
    assert "[-]" in label_efficiency.table([run("scratch", 0.01, 0, people=1)])
