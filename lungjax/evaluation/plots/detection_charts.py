"""Charts of a detector: FROC, and recall over the number of slices that are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from lungjax.evaluation.detection import froc, narrowing
from lungjax.evaluation.detection.luna16_rules import Matches
from lungjax.evaluation.detection.narrowing import Narrowed
from lungjax.evaluation.plots import training_plots
from lungjax.evaluation.plots.overlay import BLUE, VERMILLION
from lungjax.evaluation.plots.segmentation_charts import GREEN
from lungjax.evaluation.stats import bootstrap

_RATES = np.geomspace(froc.RATES[0] / 2, froc.RATES[-1] * 2, 57)
"""The false positives a scan at which the curve is drawn, including `froc.RATES`."""
_RESAMPLES = 300
"""A band needs fewer resamples than a figure."""


def froc_chart(matches: Matches, report: Mapping[str, Any], path: Path) -> None:
    """Draws sensitivity over false positives a scan, with the bootstrap's band and LUNA16's seven points.

    Args:
      matches: from `luna16_rules.match`.
      report: `froc.froc_figures` of them.
      path: the PNG.
    """
    scans = len(matches.nodules)
    figure = training_plots.canvas(6.4, 4.4)
    axes = figure.subplots()
    sensitivity = froc.sensitivities(matches, np.ones((1, scans), np.int64), _RATES.tolist())[0]
    axes.plot(_RATES, sensitivity, color=BLUE, lw=1.8, label=f"nodules: {report['nodules']:,}, scans: {scans:,}")
    if scans > 1:
        weights = bootstrap.resample_weights(scans, resamples=_RESAMPLES)
        low, high = bootstrap.percentiles(froc.sensitivities(matches, weights, _RATES.tolist()))
        axes.fill_between(_RATES, low, high, color=BLUE, alpha=0.15, lw=0, label="95 %, bootstrap over scans")
    at_rates = [figure["value"] for figure in report["sensitivity"].values()]
    cpm = report["cpm"]["value"]
    mean = "CPM undefined" if cpm is None else f"LUNA16's seven rates, mean {cpm:.3f} (CPM)"
    values = [np.nan if value is None else value for value in at_rates]
    axes.plot(froc.RATES, values, "o", color=VERMILLION, ms=5, label=mean)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:g}" if rate >= 1 else f"1/{1 / rate:g}"))
    axes.set(xlabel="false positives a scan", ylabel="sensitivity", ylim=(-0.02, 1.02), title="FROC")
    _finish(axes)
    training_plots.save(figure, path)


def narrowing_chart(scans: Sequence[Narrowed], report: Mapping[str, Any], path: Path) -> None:
    """Draws the recall of the readers' nodules over the number of slices that are kept of each scan.

    Args:
      scans: at least one.
      report: `narrowing.narrowing_figures` of them.
      path: the PNG.
    """
    longest = max(len(scan.rank) for scan in scans)
    kept = np.arange(1, longest + 1)
    figure = training_plots.canvas(6.8, 4.6)
    axes = figure.subplots()
    for least, colour, width in zip(narrowing.READERS, (GREEN, BLUE, VERMILLION), (1.8, 3.0, 1.4), strict=True):
        recalls = narrowing.recall_of_kept(scans, kept, readers=least)
        nodules = report["by_readers"][str(least)]["nodules"]
        if not nodules:
            continue
        label = f"{nodules:,} nodules of {least} or more readers" if least > 1 else f"all {nodules:,} nodules"
        axes.step(kept, recalls["recall"], where="post", color=colour, lw=width, label=label)
        if least == narrowing.READERS[1]:
            centre = {"color": colour, "lw": 1.2, "ls": "--", "label": "of these, the slice of the centre"}
            axes.step(kept, recalls["centre"], where="post", **centre)
            axes.plot(kept, recalls["chance"], color="0.5", lw=1.2, ls=":", label="of these, slices drawn at random")
    for name, stage in report["stages"].items():
        mean = stage["slices"] / len(scans)
        if mean >= 1 and stage["share_kept"] < 1:
            axes.axvline(mean, color="0.7", lw=0.8, zorder=0)
            axes.annotate(name, (mean, 0.02), rotation=90, fontsize=7, color="0.4", ha="right", va="bottom")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:g}"))
    axes.set(xlabel="slices kept of a scan, the best first", ylabel="recall of the readers' nodules")
    axes.set(ylim=(-0.02, 1.02), xlim=(0.9, longest * 1.1), title="From all slices to those that matter")
    _finish(axes)
    training_plots.save(figure, path)


def _finish(axes: Axes) -> None:
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8, loc="best")
