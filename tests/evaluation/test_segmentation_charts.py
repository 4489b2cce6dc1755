"""What charts show, read back from the figures lines and bars."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scans
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle

from lungjax import metrics
from lungjax.evaluation.plots import segmentation_charts
from lungjax.evaluation.segmentation import report


def _labels(axes: Axes) -> list[str]:
    legend = axes.get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


def test_both_charts_of_two_models(tmp_path: Path, figures: dict[str, Figure]):
    some = scans.several(8, patients=5)
    tally = scans.tally_of(some)
    other = [scans.Series(one.patient, one.name, one.marks, one.prediction, one.probability**2) for one in some]
    found = report.segmentation_figures(tally, scans.tally_of(other), resamples=5)
    written = segmentation_charts.draw_charts(tally, found, tmp_path / "val.json")
    assert [path.name for path in written] == ["val.reliability.png", "val.dice.png"]
    assert all(path.stat().st_size > 10_000 for path in written)
    above, below = figures["val.reliability.png"].axes
    diagonal, ours, theirs, readers = above.lines
    np.testing.assert_array_equal(np.asarray(diagonal.get_xydata()), [[0, 0], [1, 1]])
    sides = ((ours, found), (theirs, found["against"]), (readers, found["readers"]))
    for line, side in sides:
        curve = side["reliability"]["curve"]
        expected = [(one["probability"], one["share"]) for one in curve]
        np.testing.assert_array_equal(np.asarray(line.get_xydata()), expected)
        assert f"ECE {side['reliability']['ece']['value']:.4f}" in str(line.get_label())
    bars = [patch for patch in below.patches if isinstance(patch, Rectangle)]
    assert [bar.get_height() for bar in bars] == [one["pixels"] for one in found["reliability"]["curve"]]
    assert sum(bar.get_height() for bar in bars) == found["slices"] * np.prod(scans.SHAPE[1:])


def test_dice_of_slices_and_nodules_beside_the_readers(tmp_path: Path, figures: dict[str, Figure]):
    some = scans.several(8, patients=5)
    tally = scans.tally_of(some)
    found: dict[str, Any] = report.segmentation_figures(tally, resamples=5)
    segmentation_charts.draw_charts(tally, found, tmp_path / "val.json")
    slices, nodules = figures["val.dice.png"].axes
    dice = []
    for one in some:
        truth = one.readers.sum(axis=0) >= 2
        score = metrics.scores(metrics.confusion(one.prediction, truth))["dice"]
        dice += [value for value, mask in zip(score, truth, strict=True) if mask.any()]
    heights, _ = np.histogram(dice, bins=20, range=(0, 1))
    bars = [patch.get_height() for patch in slices.patches if isinstance(patch, Rectangle)]
    np.testing.assert_allclose(bars, 100 * heights / len(dice))
    assert np.mean(dice) == pytest.approx(found["per_slice"]["dice"]["value"])
    assert _labels(slices)[0] == f"model ({len(dice)} slices), median {np.median(dice):.2f}"
    assert np.asarray(slices.lines[0].get_xdata())[0] == pytest.approx(np.median(dice))
    for axes in (slices, nodules):
        assert sum(isinstance(patch, Polygon) for patch in axes.patches) == 1  # The readers' outline.
        assert len(axes.lines) == 2
        assert sum(p.get_height() for p in axes.patches if isinstance(p, Rectangle)) == pytest.approx(100)
    assert f"model ({found['nodules_marked']} nodules in 3-D)" in _labels(nodules)[0]


def test_one_reader_and_nothing_to_score_are_drawn(tmp_path: Path, figures: dict[str, Figure]):
    some = scans.several(2, patients=2)
    tally = scans.tally_of(some, readers=1)
    segmentation_charts.draw_charts(tally, report.segmentation_figures(tally, resamples=5), tmp_path / "one.json")
    assert len(figures["one.reliability.png"].axes[0].lines) == 2
    assert len(figures["one.dice.png"].axes[0].lines) == 1
    none = np.zeros(scans.SHAPE, bool)
    bare = scans.tally_of([scans.Series("P", "S", np.zeros((2, 4, *scans.SHAPE), bool), none, none.astype(float))])
    segmentation_charts.draw_charts(bare, report.segmentation_figures(bare, resamples=5), tmp_path / "none.json")
    assert not figures["none.dice.png"].axes[0].patches
