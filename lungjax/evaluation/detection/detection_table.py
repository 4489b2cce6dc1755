"""The figures of a detector as a table to read: FROC, and recall when only some slices are kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def froc_lines(report: Mapping[str, Any]) -> list[str]:
    """The table of `lungjax.evaluation.detection.froc.froc_figures`, line by line."""
    rows = [(f"at {rate}", _cell(figure)) for rate, figure in report["sensitivity"].items()]
    counts = {
        "found": "true_positives",
        "missed": "false_negatives",
        "false positives": "false_positives",
        "on excluded nodules": "ignored",
        "again on a nodule": "doubles",
    }
    return [
        f"scans: {report['scans']:,}, nodules: {report['nodules']:,}, candidates: {report['candidates']:,}",
        "",
        "sensitivity at false positives a scan",
        *(f"  {name:<10}{value}" for name, value in [*rows, ("mean, CPM", _cell(report["cpm"]))]),
        "",
        "candidates at the lowest threshold",
        *(f"  {name:<22}{report[key]:>8,}" for name, key in counts.items()),
        "",
        f"[low, high]: {report['interval']}",
    ]


def narrowing_lines(report: Mapping[str, Any]) -> list[str]:
    """The table of `lungjax.evaluation.detection.narrowing.narrowing_figures`, line by line."""
    by_readers = report["by_readers"]
    heads = [f">= {least} readers ({part['nodules']:,} nodules)" for least, part in by_readers.items()]
    lines = [
        "recall of the readers' nodules when only the first slices of a scan are kept",
        _row("slices", "share", heads),
    ]
    for rows in zip(*(part["curve"] for part in by_readers.values()), strict=True):
        cells = [_cell(row["recall"]) for row in rows]
        lines.append(_row(str(rows[0]["kept"]), f"{rows[0]['share_kept']:.1%}", cells))
    lines.append("slices of a scan needed for a recall of")
    first = next(iter(by_readers.values()))
    for level in first["slices_for"]:
        needed = [part["slices_for"][level] for part in by_readers.values()]
        lines.append(_row(level, "", ["-" if number is None else str(number) for number in needed]))
    lines += ["slices left at each stage, and their recall", _row("", "share", heads)]
    for name, stage in report["stages"].items():
        cells = ["-" if stage["recall"][least] is None else f"{stage['recall'][least]:.3f}" for least in by_readers]
        lines.append(_row(name, f"{stage['share_kept']:.1%}", cells))
    return lines


def _row(name: str, share: str, cells: list[str]) -> str:
    return f"  {name:<24}{share:>8}  " + "  ".join(f"{cell:<28}" for cell in cells).rstrip()


def _cell(figure: Mapping[str, float | None]) -> str:
    value, low, high = (figure[name] for name in ("value", "low", "high"))
    if value is None:
        return "-"
    return f"{value:.3f} [-]" if low is None or high is None else f"{value:.3f} [{low:.3f}, {high:.3f}]"
