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
    return Run(start, share, seed, patients=round(400 * share), scored=counts)


def dice(counts: np.ndarray) -> float:
    hit, false, missed, _ = counts
    return 2 * hit / (2 * hit + false + missed)


def test_value_and_interval_by_a_second_way():
    runs, base = ([run(start, 0.1, s, better=b) for s in range(3)] for start, b in (("simclr", 0.1), ("scratch", 0.0)))
    single, gain = label_efficiency.point(runs, resamples=4000), label_efficiency.point(runs, base, resamples=4000)
    assert single is not None
    assert gain is not None
    table = {id(side): np.array([list(one.scored.values()) for one in side]) for side in (runs, base)}

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
    expected = [dice(np.sum(list(one.scored.values()), axis=0)) for one in (runs[1], base[0])]
    assert gain.value == pytest.approx(expected[0] - expected[1])
    assert label_efficiency.point(runs[:1], base) is None
    with pytest.raises(ValueError, match="not scored on the same patients"):
        label_efficiency.point(runs, [run("scratch", 0.1, 1, people=29)])


def test_a_table_of_an_unfinished_study(tmp_path: Path):
    runs = [run("scratch", 0.01, s) for s in range(3)] + [run("scratch", 1.0, 0), run("simclr", 0.01, 0, better=0.1)]
    lines = label_efficiency.table(runs, corrected=True).splitlines()
    assert lines[0] == "| train patients | scratch | simclr | simclr less scratch |"
    assert lines[2].startswith("| 1 % (4) | 0.")
    assert lines[2].count("1 of 3 seeds") == 2
    assert lines[3].startswith("| 100 % (400) | 0.")
    assert lines[3].endswith("1 of 3 seeds | - | - |")
    assert "| +0." in lines[2]
    assert lines[-2].startswith("3 seeds; mean over seeds of the pooled Dice on the test patients")
    assert lines[-1].startswith("1 difference from scratch; with no 0 in an interval of 1 - 5 %/1: simclr at 1 % (+0.")
    label_efficiency.chart(runs, tmp_path / "chart.png")
    label_efficiency.chart(runs[:4], tmp_path / "scratch.png")
    assert (tmp_path / "chart.png").stat().st_size > (tmp_path / "scratch.png").stat().st_size > 5000


def graded(start: str, seed: int, *, people: int = 40, better: float = 0.0) -> Run:
    """Made-up logits of one to four nodules a patient."""
    rng = np.random.default_rng(5)
    number = rng.integers(1, 5, people)
    label = rng.integers(0, 2, number.sum())
    logit = rng.normal(0, 1, number.sum()) + (0.8 + better) * label + 0.05 * seed * rng.normal(0, 1, number.sum())
    nodules = np.split(np.stack([logit, label], axis=1), np.cumsum(number)[:-1])
    scored = {f"P{p:02d}": own.tolist() for p, own in enumerate(nodules)}
    return Run(start, 0.1, seed, patients=40, scored=scored, measure="roc_auc", split="val")


def test_roc_auc_by_a_second_way():
    runs, base = ([graded(start, s, better=b) for s in range(2)] for start, b in (("simclr", 0.5), ("scratch", 0.0)))
    gain = label_efficiency.point(runs, base, resamples=500)
    assert gain is not None

    def auc(one: Run, people: np.ndarray) -> float:
        logit, label = np.concatenate([one.scored[f"P{p:02d}"] for p in people]).T
        pairs = logit[label == 1][:, None] - logit[label == 0][None, :]
        return float(np.mean((pairs > 0) + 0.5 * (pairs == 0)))

    everyone, rng = np.arange(40), np.random.default_rng(3)
    assert gain.value == pytest.approx(
        np.mean([auc(a, everyone) - auc(b, everyone) for a, b in zip(runs, base, strict=True)])
    )
    drawn = []
    for _ in range(500):
        seeds, people = rng.integers(0, 2, 2), rng.integers(0, 40, 40)
        drawn.append(np.mean([auc(runs[s], people) - auc(base[s], people) for s in seeds]))
    np.testing.assert_allclose([gain.low, gain.high], np.quantile(drawn, [0.025, 0.975]), atol=0.012)
    assert "ROC AUC of malignancy on the val patients" in label_efficiency.table(runs + base)


def test_many_differences_need_wider_intervals():
    runs = [run("scratch", 0.1, s) for s in range(4)]
    others = [run(f"arm{k}", 0.1, s, better=0.004 * (-1) ** (k + s)) for k in range(20) for s in range(4)]
    found, count = label_efficiency.clear_gains(runs + others + [run("best", 0.1, s, better=0.2) for s in range(4)])
    assert count == 21
    assert [start for start, _, _ in found] == ["best"]
    wide, narrow = found[0][2], label_efficiency.point([run("best", 0.1, s, better=0.2) for s in range(4)], runs)
    assert narrow is not None
    assert wide.value == narrow.value
    assert wide.low < narrow.low < narrow.high < wide.high


def test_one_patient_has_no_interval():
    assert "[-]" in label_efficiency.table([run("scratch", 0.01, 0, people=1)])
