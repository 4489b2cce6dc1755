"""How Dice grows with the number of labelled patients: figures over several seeds, their table and chart."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from lungjax import metrics
from lungjax.evaluation.plots import training_plots
from lungjax.evaluation.plots.overlay import BLUE, VERMILLION
from lungjax.evaluation.plots.segmentation_charts import GREEN
from lungjax.evaluation.stats import bootstrap

SCRATCH = "scratch"
"""The start with which every other start is compared."""
INTERVAL = (
    "mean over seeds of the pooled Dice on the test patients, with a 95 % percentile interval over test patients and "
    "seeds: both are drawn with replacement, independently, the same ones for all columns, so differences are paired. "
    "A seed decides which patients are labelled, the order of the batches, and the initial random weights; with few "
    "seeds the intervals are somewhat too narrow"
)
_COLOURS = (VERMILLION, BLUE, GREEN, "#CC79A7", "#E69F00")


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run, scored.

    Attributes:
      start: `SCRATCH`, or the name of the network whose encoder it started from.
      share: of the train patients, in (0, 1].
      seed: of the run.
      patients: the number of train patients it was trained on.
      counts: pixels of each test patient: true positive, false positive, false negative, true negative.
    """

    start: str
    share: float
    seed: int
    patients: int
    counts: Mapping[str, Sequence[int]]


@dataclasses.dataclass(frozen=True)
class Point:
    """A figure of one start and share, or the difference between two starts; low and high are NaN without an interval.

    Attributes:
      value, low, high: Dice.
      seeds: the number of runs that are averaged.
      patients: the number of train patients of each run.
    """

    value: float
    low: float
    high: float
    seeds: int
    patients: int


def point(runs: Sequence[Run], less: Sequence[Run] = (), *, resamples: int = bootstrap.RESAMPLES) -> Point | None:
    """The mean of the runs' pooled Dice, or its difference from that of `less`, over the seeds that both have.

    Args:
      runs: all of one start and share.
      less: runs of another start with the same share; empty for the figure itself.
      resamples: of patients and seeds.

    Returns:
      The figure, or None where no seed is left.

    Raises:
      ValueError: the runs were not scored on the same patients.
    """
    sides = [{run.seed: run for run in side} for side in (runs, less) if side]
    seeds = sorted(set.intersection(*(set(side) for side in sides))) if sides else []
    if not seeds:
        return None
    people = sorted(sides[0][seeds[0]].counts)
    if any(sorted(run.counts) != people for side in sides for run in side.values()):
        raise ValueError("the runs were not scored on the same patients")
    sums = np.array([[[side[seed].counts[p] for seed in seeds] for side in sides] for p in people], np.float64)
    drawn_people = bootstrap.resample_weights(len(people), resamples=resamples, seed=0).astype(np.float64)
    drawn_seeds = bootstrap.resample_weights(len(seeds), resamples=resamples, seed=1) / len(seeds)
    each = metrics.scores(sums.sum(axis=0))["dice"]  # (sides, seeds)
    dice = metrics.scores(np.tensordot(drawn_people, sums, axes=1))["dice"]  # (resamples, sides, seeds)
    low, high = bootstrap.percentiles(_difference((dice * drawn_seeds[:, None]).sum(axis=-1)))
    ends = (float(low), float(high)) if len(people) > 1 else (math.nan, math.nan)
    return Point(float(_difference(each.mean(axis=-1))), *ends, len(seeds), sides[0][seeds[0]].patients)


def _difference(sides: np.ndarray) -> np.ndarray:
    """(..., sides) -> the first minus the second, or the only side."""
    return sides[..., 0] - sides[..., 1] if sides.shape[-1] > 1 else sides[..., 0]


def points(runs: Sequence[Run]) -> tuple[dict[str, dict[float, Point]], dict[str, dict[float, Point]]]:
    """For each start, by share: its figures, and for all but `SCRATCH` the differences from `SCRATCH`."""
    starts = list(dict.fromkeys(run.start for run in runs))
    shares = sorted({run.share for run in runs})

    def select(start: str, share: float) -> list[Run]:
        return [run for run in runs if (run.start, run.share) == (start, share)]

    figures: dict[str, dict[float, Point]] = {start: {} for start in starts}
    gains: dict[str, dict[float, Point]] = {start: {} for start in starts if start != SCRATCH}
    for start in starts:
        for share in shares:
            own, base = select(start, share), select(SCRATCH, share)
            if figure := point(own):
                figures[start][share] = figure
            if start != SCRATCH and own and base and (gain := point(own, base)):
                gains[start][share] = gain
    return figures, gains


def table(runs: Sequence[Run]) -> str:
    """A Markdown table with a line for each share: a dash where no run has finished; the number of seeds where it is
    not all of them.
    """
    figures, gains = points(runs)
    columns = {start: (by_share, False) for start, by_share in figures.items()}
    columns |= {f"{start} less {SCRATCH}": (by_share, True) for start, by_share in gains.items()}
    seeds = len({run.seed for run in runs})
    lines = ["| " + " | ".join(["train patients", *columns]) + " |", "|---" * (len(columns) + 1) + "|"]
    for share in sorted({run.share for run in runs}):
        patients = next(run.patients for run in runs if run.share == share)
        cells = [_cell(by_share.get(share), seeds, sign) for by_share, sign in columns.values()]
        lines.append("| " + " | ".join([f"{100 * share:g} % ({patients})", *cells]) + " |")
    return "\n".join([*lines, "", f"{seeds} seed{'s' * (seeds > 1)}; {INTERVAL}."])


def table_of_changes(runs: Sequence[Run], *, base: str) -> str:
    """A Markdown table with a line for each start, all of one share: the figure, and its difference from `base`."""
    seeds = len({run.seed for run in runs})
    by_start: dict[str, list[Run]] = {}
    for run in runs:
        by_start.setdefault(run.start, []).append(run)
    lines = [f"| | pooled Dice | less {base} |", "|---|---|---|"]
    for start, own in by_start.items():
        gain = None if start == base else point(own, by_start[base])
        lines.append(f"| {start} | {_cell(point(own), seeds, False)} | {_cell(gain, seeds, True)} |")
    return "\n".join([*lines, "", f"{seeds} seed{'s' * (seeds > 1)}; {INTERVAL}."])


def _cell(figure: Point | None, seeds: int, sign: bool) -> str:
    if figure is None:
        return "-"
    form = "+z.3f" if sign else ".3f"
    ends = "[-]" if math.isnan(figure.low) else f"[{figure.low:{form}}, {figure.high:{form}}]"
    return f"{figure.value:{form}} {ends}" + (f", {figure.seeds} of {seeds} seeds" if figure.seeds < seeds else "")


def chart(runs: Sequence[Run], path: Path) -> None:
    """Dice over the number of labelled patients with intervals, and below it the differences from `SCRATCH`.

    Args:
      runs: at least one.
      path: the PNG.
    """
    figures, gains = points(runs)
    figure = training_plots.canvas(6.4, 6.4 if gains else 4.2)
    panels = figure.subplots(2 if gains else 1, 1, sharex=True, squeeze=False, height_ratios=(3, 2) if gains else None)
    above, below = panels[0, 0], panels[-1, 0]
    for axes, lines in ((above, figures), (below, gains)):
        for start, by_share in lines.items():
            number = list(figures).index(start)
            aside = 1.05 ** (number - (len(figures) - 1) / 2)  # Side by side, because intervals would overlap.
            line = [by_share[share] for share in sorted(by_share)]
            values = np.array([point.value for point in line])
            ends = np.array([(point.value - point.low, point.high - point.value) for point in line])
            ends = ends.reshape(-1, 2).T
            style = {"marker": "o", "ms": 5, "lw": 1.5, "capsize": 3, "color": _COLOURS[number % len(_COLOURS)]}
            label = f"from {start}"
            axes.errorbar([point.patients * aside for point in line], values, np.maximum(ends, 0), label=label, **style)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    ticks = sorted({run.patients: run.share for run in runs}.items())
    below.set_xscale("log")
    below.set_xticks([n for n, _ in ticks], [f"{n}\n{100 * share:g} %" for n, share in ticks], minor=False)
    below.minorticks_off()
    below.set_xlabel("train patients with labels")
    above.set(ylabel="pooled Dice, test patients", title="Dice over the number of labelled patients")
    above.legend(frameon=False, loc="best")
    if gains:
        below.axhline(0, color="0.4", lw=1)
        below.set_ylabel(f"gain over {SCRATCH}")
    training_plots.save(figure, path)
