"""The report of a classifier: a table to read, ROC curves, and the reliability of the probability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lungjax.evaluation.classification import binary_scores, one_reader
from lungjax.evaluation.plots import training_plots
from lungjax.evaluation.plots.overlay import BLUE, VERMILLION

GREEN = "#009E73"
_LABELS = {
    "roc_auc": "ROC AUC",
    "pr_auc": "PR AUC",
    **{f"sensitivity_at_specificity_{s:.2f}": f"sensitivity at {s:.2f}" for s in binary_scores.SPECIFICITIES},
    "brier": "Brier score",
    "ece": "ECE",
}


def classification_table(report: Mapping[str, Any], *, unit: str = "nodules", positive: str = "malignant") -> str:
    """The figures with their intervals; then those of each score they are compared with, and the differences.

    Args:
      report: from `score_figures`, for instance `lungjax.evaluation.run_nodule_classifier.score_figures`.
      unit: what is classified.
      positive: what those of the positive class are called.

    Returns:
      Lines without a newline at the end.
    """
    lines = [f"split: {report['split']}"] if "split" in report else []
    lines += [f"{report['patients']:,} patients, {report['nodules']:,} {unit}, {report['positives']:,} {positive}", ""]
    rows = [["", "model"], *([label, cell(report[name])] for name, label in _LABELS.items())]
    if "before" in report:
        rows += [[f"{_LABELS[name]}, not calibrated", cell(figure)] for name, figure in report["before"].items()]
    lines += _columns(rows)
    parts = {"all": report, **report.get("on_fewer", {})}
    for which, part in parts.items():
        for name in part["others"]:
            lines += ["", f"against {name}, on {part['nodules']:,} {unit} ({which.replace('_', ' ')})"]
            lines += _compared(part, name)
    if report.get("readers"):
        lines += ["", *_compared_with_one_reader(report["readers"])]
    if "ratings" in report:
        rows = [["", "expected rating", "constant"]]
        ratings = {name: figure for name, figure in report["ratings"].items() if name != "what"}
        rows += [[name, cell(figure), f"{figure['constant']:.3f}"] for name, figure in ratings.items()]
        lines += ["", "mean absolute difference from the readers' mean", *_columns(rows)]
    if report.get("type"):
        lines += ["", *_types(report["type"])]
    if report.get("calcification"):
        lines += ["", "calcified as benign nodules are, against most readers", *_told(report["calcification"]["table"])]
    return "\n".join([*lines, "", f"[low, high]: {report['interval']}"])


def _types(types: Mapping[str, Any]) -> list[str]:
    """How the types agree with the readers', and how often each is told."""
    named = {"model": types, "one reader": types.get("one_reader"), "model, the same": types.get("beside_one_reader")}
    shown = {name: part for name, part in named.items() if part}
    rows = [["", *shown]]
    rows += [[what, *(cell(part[what]) for part in shown.values())] for what in ("agreement", "kappa")]
    for kind in types["sensitivity"]:
        rows.append([kind, *(cell(part["sensitivity"][kind]) for part in shown.values())])
    return ["type, against the readers' median of texture", *_columns(rows), "", *_told(types["table"])]


def _told(table: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Of what readers say, a line each, how many the model tells to be what."""
    rows = [["readers", *(f"model: {kind}" for kind in table)]]
    return _columns([*rows, *([kind, *map(str, counts.values())] for kind, counts in table.items())])


def _compared(part: Mapping[str, Any], name: str) -> list[str]:
    """The model's figures, those of one of `part`'s others, and the differences."""
    other = part["others"][name]
    each = [[_LABELS[n], cell(part[n]), cell(other[n]), cell(other["difference"][n])] for n in binary_scores.RANKING]
    return _columns([["", "model", name, "difference"], *each])


def _compared_with_one_reader(part: Mapping[str, Any]) -> list[str]:
    title = f"against the median of the other readers, on {part['readings']:,} readings of {part['rated']:,} nodules"
    return [title, *_compared(part, one_reader.NAME)]


def cell(figure: Mapping[str, Any]) -> str:
    """`0.950 [0.930, 0.970]`; a dash where the figure is undefined."""
    value, low, high = (figure[key] for key in ("value", "low", "high"))
    if value is None:
        return "-"
    return f"{value:z.3f} [{low:z.3f}, {high:z.3f}]" if low is not None and high is not None else f"{value:z.3f} [-]"


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    lines = ("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) for row in rows)
    return [line.rstrip() for line in lines]


def roc_chart(labels: np.ndarray, scores: Mapping[str, tuple[np.ndarray, Mapping[str, Any]]], path: Path) -> None:
    """Draws the ROC curves of several scores of the same nodules.

    Args:
      labels: (n,) bool.
      scores: by name, scores (n,) and their AUC with its interval as in a report; at most three.
      path: the PNG.
    """
    figure = training_plots.canvas(5.4, 5.4)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.6", lw=1, ls="--")
    for (name, (score, auc)), colour in zip(scores.items(), (VERMILLION, BLUE, GREEN), strict=False):
        false, hit = binary_scores.roc(labels, score)
        axes.plot(false, hit, color=colour, lw=1.8, label=f"{name}: AUC {cell(auc)}")
    axes.set(xlabel="1 - specificity", ylabel="sensitivity", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    axes.set_title(f"ROC: {labels.sum():,} malignant, {(~labels).sum():,} benign")
    axes.legend(frameon=False, loc="lower right", fontsize=9)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    training_plots.save(figure, path)


def reliability_chart(report: Mapping[str, Any], path: Path, *, unit: str = "nodules") -> None:
    """Draws the share of malignant nodules over the predicted probability, before and after calibration, and the number
    in each bin.

    Args:
      report: with `curve` and `curve_before`, `ece`, and `before`.
      path: the PNG.
      unit: what is classified.
    """
    figure = training_plots.canvas(5.4, 6.2)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    above.plot([0, 1], [0, 1], color="0.6", lw=1, ls="--")
    sides = (
        ("calibrated", "curve", report["ece"], VERMILLION),
        ("not calibrated", "curve_before", report["before"]["ece"], BLUE),
    )
    for label, name, ece, colour in sides:
        bins = report[name]
        x, y = np.array([part["probability"] for part in bins]), np.array([part["share"] for part in bins])
        number = np.array([part["nodules"] for part in bins])
        spread = 1.96 * np.sqrt(np.maximum(y * (1 - y), 1e-9) / number)
        above.errorbar(
            x,
            y,
            yerr=spread,
            color=colour,
            marker="o",
            ms=4,
            lw=1.5,
            elinewidth=0.8,
            label=f"{label}: ECE {ece['value']:.3f}",
        )
        edges = [part["low"] for part in bins]
        style = {"color": "0.6", "ec": "white"} if name == "curve" else {"color": "none", "ec": BLUE}
        below.bar(edges, number, width=1 / binary_scores.BINS, align="edge", **style)
    above.set(ylabel="share that is malignant", xlim=(-0.02, 1.02), ylim=(-0.05, 1.05))
    above.set_title("Reliability of the probability")
    above.legend(frameon=False, loc="upper left", fontsize=9)
    below.set(xlabel="predicted probability", ylabel=unit)
    for axes in (above, below):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    training_plots.save(figure, path)
