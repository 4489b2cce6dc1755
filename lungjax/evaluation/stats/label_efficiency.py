"""How a figure grows with the number of labelled patients: over several seeds, its table and chart."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lungjax import metrics
from lungjax.errors import counted
from lungjax.evaluation.classification import binary_scores
from lungjax.evaluation.plots import training_plots
from lungjax.evaluation.plots.overlay import BLUE, VERMILLION
from lungjax.evaluation.plots.segmentation_charts import GREEN
from lungjax.evaluation.stats import bootstrap

SCRATCH = "scratch"
"""The start with which every other start is compared."""
Measure = Literal["dice", "roc_auc"]
LABELS: dict[Measure, str] = {"dice": "pooled Dice", "roc_auc": "ROC AUC of malignancy"}
INTERVAL = (
    "mean over seeds of the {} on the {} patients, with a 95 % percentile interval over these patients and "
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
      scored: of each patient, by `measure`: of `dice`, pixels: true positive, false positive, false negative, true
        negative; of `roc_auc`, [logit, 1 malignant or 0 benign] of each nodule.
      measure: the figure.
      split: of these patients.
    """

    start: str
    share: float
    seed: int
    patients: int
    scored: Mapping[str, Sequence[Any]]
    measure: Measure = "dice"
    split: str = "test"


@dataclasses.dataclass(frozen=True)
class Point:
    """A figure of one start and share, or the difference between two starts; low and high are NaN without an interval.

    Attributes:
      value, low, high: of the measure.
      seeds: the number of runs that are averaged.
      patients: the number of train patients of each run.
    """

    value: float
    low: float
    high: float
    seeds: int
    patients: int


def point(
    runs: Sequence[Run],
    less: Sequence[Run] = (),
    *,
    resamples: int = bootstrap.RESAMPLES,
    coverage: float = bootstrap.COVERAGE,
) -> Point | None:
    """The mean of the runs' figure, or its difference from that of `less`, over the seeds that both have.

    Args:
      runs: all of one start and share.
      less: runs of another start with the same share; empty for the figure itself.
      resamples: of patients and seeds.
      coverage: of the interval.

    Returns:
      The figure, or None where no seed is left.

    Raises:
      ValueError: the runs were not scored on the same patients.
    """
    sides = [{run.seed: run for run in side} for side in (runs, less) if side]
    seeds = sorted(set.intersection(*(set(side) for side in sides))) if sides else []
    if not seeds:
        return None
    first = sides[0][seeds[0]]
    people = sorted(first.scored)
    if any(sorted(run.scored) != people for side in sides for run in side.values()):
        raise ValueError("the runs were not scored on the same patients")
    drawn_people = bootstrap.resample_weights(len(people), resamples=resamples, seed=0).astype(np.float64)
    weights = np.concatenate([np.ones((1, len(people))), drawn_people])
    of_runs = [[_FIGURES[first.measure](side[seed], people, weights) for seed in seeds] for side in sides]
    figures = np.moveaxis(np.array(of_runs), -1, 0)  # (1 + resamples, sides, seeds)
    drawn_seeds = bootstrap.resample_weights(len(seeds), resamples=resamples, seed=1) / len(seeds)
    drawn = _difference((figures[1:] * drawn_seeds[:, None]).sum(axis=-1))
    low, high = bootstrap.percentiles(drawn, coverage=coverage)
    ends = (float(low), float(high)) if len(people) > 1 else (math.nan, math.nan)
    return Point(float(_difference(figures[0].mean(axis=-1))), *ends, len(seeds), first.patients)


def _dice(run: Run, people: Sequence[str], weights: np.ndarray) -> np.ndarray:
    """(resamples,), of weights (resamples, people)."""
    counts = np.array([run.scored[patient] for patient in people], np.float64)
    return metrics.scores(weights @ counts)["dice"]


def _roc_auc(run: Run, people: Sequence[str], weights: np.ndarray) -> np.ndarray:
    """As `_dice`."""
    nodules = np.array([nodule for patient in people for nodule in run.scored[patient]])
    person = np.repeat(np.arange(len(people)), [len(run.scored[patient]) for patient in people])
    return binary_scores.ranking(nodules[:, 1] > 0.5, nodules[:, 0], weights[:, person])[:, 0]


_FIGURES: dict[Measure, Callable[[Run, Sequence[str], np.ndarray], np.ndarray]] = {"dice": _dice, "roc_auc": _roc_auc}


def _difference(sides: np.ndarray) -> np.ndarray:
    """(..., sides) -> the first minus the second, or the only side."""
    return sides[..., 0] - sides[..., 1] if sides.shape[-1] > 1 else sides[..., 0]


def clear_gains(runs: Sequence[Run]) -> tuple[list[tuple[str, float, Point]], int]:
    """The differences from `SCRATCH` that hold although so many are looked at (Bonferroni).

    Returns:
      Start, share and difference, with its interval of 1 - 5 % / K, where that has no 0 in it; and K, the number of
      differences.
    """
    _, gains = points(runs)
    compared = [(start, share) for start, by_share in gains.items() for share in by_share]
    count = len(compared)
    found = []
    for start, share in compared:
        sides = [[run for run in runs if (run.start, run.share) == (side, share)] for side in (start, SCRATCH)]
        gain = point(
            *sides, resamples=max(bootstrap.RESAMPLES, 1000 * count), coverage=1 - (1 - bootstrap.COVERAGE) / count
        )
        if gain is not None and (gain.low > 0 or gain.high < 0):
            found.append((start, share, gain))
    return found, count


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


def table(runs: Sequence[Run], *, corrected: bool = False) -> str:
    """A Markdown table with a line for each share: a dash where no run has finished; the number of seeds where it is
    not all of them. Where `corrected`, which takes a while, a line says which differences `clear_gains` finds.
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
    return "\n".join([*lines, "", _interval(runs), *([_clear(runs)] if corrected and gains else [])])


def _interval(runs: Sequence[Run]) -> str:
    seeds = counted(len({run.seed for run in runs}), "seed")
    return f"{seeds}; {INTERVAL.format(LABELS[runs[0].measure], runs[0].split)}."


def _clear(runs: Sequence[Run]) -> str:
    found, count = clear_gains(runs)
    held = [f"{start} at {100 * share:g} % ({_cell(gain, gain.seeds, True)})" for start, share, gain in found]
    return (
        f"{counted(count, 'difference')} from {SCRATCH}; with no 0 in an interval of 1 - 5 %/{count}: "
        f"{'; '.join(held) or 'none'}."
    )


def table_of_changes(runs: Sequence[Run], *, base: str) -> str:
    """A Markdown table with a line for each start, all of one share: the figure, and its difference from `base`."""
    seeds = len({run.seed for run in runs})
    by_start: dict[str, list[Run]] = {}
    for run in runs:
        by_start.setdefault(run.start, []).append(run)
    lines = [f"| | {LABELS[runs[0].measure]} | less {base} |", "|---|---|---|"]
    for start, own in by_start.items():
        gain = None if start == base else point(own, by_start[base])
        lines.append(f"| {start} | {_cell(point(own), seeds, False)} | {_cell(gain, seeds, True)} |")
    return "\n".join([*lines, "", _interval(runs)])


def _cell(figure: Point | None, seeds: int, sign: bool) -> str:
    if figure is None:
        return "-"
    form = "+z.3f" if sign else ".3f"
    ends = "[-]" if math.isnan(figure.low) else f"[{figure.low:{form}}, {figure.high:{form}}]"
    return f"{figure.value:{form}} {ends}" + (f", {figure.seeds} of {seeds} seeds" if figure.seeds < seeds else "")


def chart(runs: Sequence[Run], path: Path) -> None:
    """The figure over the number of labelled patients with intervals, and below it the differences from `SCRATCH`.

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
    label = LABELS[runs[0].measure]
    above.set(ylabel=f"{label}, {runs[0].split} patients", title=f"{label} over the number of labelled patients")
    above.legend(frameon=False, loc="best")
    if gains:
        below.axhline(0, color="0.4", lw=1)
        below.set_ylabel(f"gain over {SCRATCH}")
    training_plots.save(figure, path)
