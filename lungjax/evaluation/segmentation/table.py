"""The report of a segmentation as a table to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lungjax.evaluation.segmentation import disagreement, surface
from lungjax.metrics import SCORES

_SURFACE = {"hd95_mm": "HD95, mm", **{name: name.replace("_", " ").replace("mm", " mm") for name in surface.NAMES[1:]}}
_MAJORITY = {
    **{name: name for name in SCORES},
    "dice_all": "dice, every slice",
    "dice_own": "dice, own reference",
    **_SURFACE,
}
_NODULES = {name: label for name, label in _MAJORITY.items() if name not in ("accuracy", "dice_all")}
_EACH = {
    **{name: name for name in SCORES[:-1]},  # Accuracy is left out: it adds nothing to the tables above.
    "dice_both": "dice, both marked",
    **_SURFACE,
}
_GED = {name: f"{name} samples" for name in disagreement.NAMES} | {"one_mask": "one mask"}
_RELIABILITY = {"ece": "ECE", "ece_from_0.05": "ECE from 0.05 on"}
_BLOCKS = (
    ("against the majority, pooled over all slices", ("pooled",), _MAJORITY),
    ("against the majority, pooled over the slices where it is not empty", ("pooled_own",), _MAJORITY),
    ("against the majority, mean per slice", ("per_slice",), _MAJORITY),
    ("against the majority, mean per nodule in 3-D", ("per_nodule",), _NODULES),
    ("against each reader, pooled over all slices", ("against_readers", "pooled"), _EACH),
    ("against each reader, mean per slice", ("against_readers", "per_slice"), _EACH),
    ("against each reader, mean per nodule in 3-D", ("against_readers", "per_nodule"), _EACH),
    ("GED^2, lower is better (readers: the best possible)", ("ged",), _GED),
    ("probability against the share of readers", ("reliability",), _RELIABILITY),
)
_NOTES_ONE_READER = (
    "model: against what the one reader marked",
    "per slice, per nodule: over those that the reader marked",
)
_NOTES = (
    "majority: the pixels that at least 2 readers marked; readers: mean of each against at least 2 of the others",
    "each reader: the model, or another reader, against one reader's pixels, counted over all readers",
    "per slice, per nodule: over those where at least 2 readers agree, or that the reference reader marked",
    "HD95 left out: how many have an empty mask, so no distance; -: undefined, or spacing unknown",
    "the JSON file's conventions define every figure, and how empty masks count",
)


def segmentation_table(report: Mapping[str, Any]) -> str:
    """The figures of model and readers side by side, each with its interval.

    With a single reader there are no figures of readers. Where two models are compared, a second table gives both and
    their difference.

    Args:
      report: from `lungjax.evaluation.segmentation.report.segmentation_figures`; where it also has `split`, the header
        names it.

    Returns:
      Lines without a newline at the end. A dash stands for an undefined figure or interval.
    """
    one_reader = report["readers"] is None
    columns = {"model": report} if one_reader else {"model": report, "readers": report["readers"]}
    lines = [*_head(report), "", *_table(columns)]
    if "against" in report:
        other = report["against"]
        lines += ["", "A: the model above; B: the model it is compared with; the same patients are resampled for both"]
        lines += _table({"A": report, "B": other, "A - B": other["difference"]})
    lines += ["", f"[low, high]: {report['interval']}", *(_NOTES_ONE_READER if one_reader else _NOTES)]
    return "\n".join(line.rstrip() for line in lines)


def _head(report: Mapping[str, Any]) -> list[str]:
    lines = [f"split: {report['split']}"] if "split" in report else []
    what = "that the reader marked" if report["readers"] is None else "where at least 2 readers agree"
    for unit in ("slices", "nodules"):
        lines.append(f"{report[unit]:,} {unit}, {report[f'{unit}_marked']:,} {what}")
    lines[-2] = f"{report['patients']:,} patients, {lines[-2]}"
    return lines


def _table(columns: Mapping[str, Mapping[str, Any]]) -> list[str]:
    rows = [["", *columns]]
    for title, path, labels in _BLOCKS:
        parts = [_part_at(column, path) for column in columns.values()]
        if parts[0]:
            rows += [[title], *_rows(parts, labels)]
    widths = [max(len(row[n]) for row in rows if len(row) > 1) for n in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)) for row in rows]


def _rows(parts: Sequence[Mapping[str, Any]], labels: Mapping[str, str]) -> list[list[str]]:
    names = [name for name in labels if name in parts[0]]
    distances = [name for name in names if name in surface.NAMES]
    if distances and all(part[name]["value"] is None for part in parts for name in distances):  # Spacing is unknown.
        others = {name: labels[name] for name in names if name not in distances}
        return [*_rows(parts, others), ["  HD95, surface dice", *["-"] * len(parts)]]
    rows = []
    for name in names:
        rows.append([f"  {labels[name]}", *(_cell(part[name]) for part in parts)])
        if all("left_out" in part[name] for part in parts):
            rows.append(["  HD95 left out", *(f"{part[name]['left_out']:,}" for part in parts)])
    return rows


def _part_at(report: Mapping[str, Any], path: tuple[str, ...]) -> Mapping[str, Any]:
    """The figures at this path; empty where the report has no such part."""
    for name in path:
        report = report.get(name, {})
    return report


def _cell(figure: Mapping[str, Any]) -> str:
    value, low, high = (figure[key] for key in ("value", "low", "high"))
    if value is None:
        return "-"
    return f"{value:z.3f} [{low:z.3f}, {high:z.3f}]" if low is not None and high is not None else f"{value:z.3f} [-]"
