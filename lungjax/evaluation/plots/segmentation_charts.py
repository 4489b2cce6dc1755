"""Charts of a segmentation: the reliability of the probability, and the distribution of Dice."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from lungjax.evaluation.plots import training_plots
from lungjax.evaluation.plots.overlay import BLUE, VERMILLION
from lungjax.evaluation.segmentation import reliability, sections
from lungjax.evaluation.segmentation.tally import Tally

GREEN = "#009E73"
_EDGES = np.linspace(0, 1, 21)


def draw_charts(tally: Tally, report: Mapping[str, Any], out: Path) -> list[Path]:
    """Draws both charts, named after the report's file `out`.

    Args:
      tally: of the model.
      report: `segmentation_figures` of it; with `against`, the other model's reliability is drawn too.

    Returns:
      The files written: `OUT.reliability.png` and `OUT.dice.png`.
    """
    curves = {"model": report["reliability"]}
    if "against" in report:
        curves["the model it is compared with"] = report["against"]["reliability"]
    readers = None if report["readers"] is None else report["readers"]["reliability"]
    spread = {
        "slices": sections.dice_values(tally.slices, readers=tally.readers),
        "nodules in 3-D": sections.dice_values(tally.nodules.units, readers=tally.readers),
    }
    written = out.with_suffix(".reliability.png"), out.with_suffix(".dice.png")
    reliability_curve(curves, readers, written[0])
    dice_histogram(spread, written[1])
    return list(written)


def reliability_curve(models: Mapping[str, Mapping[str, Any]], readers: Mapping[str, Any] | None, path: Path) -> None:
    """Draws the share of readers who marked over the predicted probability, and the number of pixels in each bin.

    Args:
      models: by label, the `reliability` of a report; the number of pixels is the first model's.
      readers: the readers' `reliability`; None where there is only one reader.
      path: the PNG.
    """
    figure = training_plots.canvas(5.6, 6.2)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    above.plot([0, 1], [0, 1], color="0.6", lw=1, ls="--", label="probability = share of readers")
    for (label, model), colour in zip(models.items(), (VERMILLION, BLUE), strict=False):
        bins = model["curve"]
        x, y = [part["probability"] for part in bins], [part["share"] for part in bins]
        above.plot(x, y, color=colour, marker="o", ms=4, lw=1.5, label=f"{label}: {_ece(model)}")
    if readers is not None:
        bins = readers["curve"]
        x, y = [part["probability"] for part in bins], [part["share"] for part in bins]
        above.plot(x, y, "s", color=GREEN, ms=7, mfc="none", label=f"one reader, against the others: {_ece(readers)}")
    above.set(ylabel="share of the readers who marked", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    above.set_title("Reliability of the predicted probability")
    above.legend(frameon=False, loc="upper left", fontsize=8)
    bins = next(iter(models.values()))["curve"]
    pixels = [part["pixels"] for part in bins]
    below.bar([part["low"] for part in bins], pixels, width=1 / reliability.BINS, align="edge", color="0.6", ec="white")
    below.set(yscale="log", xlabel="predicted probability", ylabel="pixels")
    for axes in (above, below):
        _plain(axes)
    training_plots.save(figure, path)


def dice_histogram(spread: Mapping[str, tuple[np.ndarray, np.ndarray | None]], path: Path) -> None:
    """Draws the distribution of Dice of the model and of the readers, in a panel for each kind of unit.

    Args:
      spread: by the name of the unit, the model's values and the readers', each (n,) in [0, 1]; None for the readers
        where there is only one.
      path: the PNG.
    """
    figure = training_plots.canvas(4.6 * len(spread), 3.8)
    panels = figure.subplots(1, len(spread), squeeze=False)[0]
    for axes, (unit, (model, readers)) in zip(panels, spread.items(), strict=True):
        _histogram(axes, model, BLUE, f"model ({len(model):,} {unit})", filled=True)
        if readers is not None:
            _histogram(axes, readers, VERMILLION, "one reader, against the others' majority", filled=False)
        axes.set(xlabel="Dice", ylabel=f"share of {unit} (%)", xlim=(-0.02, 1.02), title=f"Dice of {unit}")
        # Below the panel, because a legend inside it would cover bars.
        handles, _ = axes.get_legend_handles_labels()
        axes.legend(
            handles=[*handles, Line2D([], [], color="0.3", ls=":", label="medians")],
            fontsize=8,
            frameon=False,
            loc="upper center",
            bbox_to_anchor=(0.5, -0.18),
        )
        _plain(axes)
    training_plots.save(figure, path)


def _histogram(axes: Axes, values: np.ndarray, colour: str, label: str, *, filled: bool) -> None:
    if not len(values):
        return
    median = float(np.median(values))
    weights = np.full(len(values), 100 / len(values))
    kind = (
        {"histtype": "bar", "color": colour, "alpha": 0.5} if filled else {"histtype": "step", "color": colour, "lw": 2}
    )
    axes.hist(values, bins=_EDGES.tolist(), weights=weights, label=f"{label}, median {median:.2f}", **kind)
    axes.axvline(median, color=colour, ls=":", lw=2)


def _ece(scored: Mapping[str, Any]) -> str:
    value = scored["ece_from_0.05"]["value"]
    return f"ECE {scored['ece']['value']:.4f}" + ("" if value is None else f", {value:.3f} from 0.05 on")


def _plain(axes: Axes) -> None:
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
