"""What a detector found, as a table for people: FROC, and from all slices to those that matter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def froc(report: Mapping[str, Any]) -> list[str]:
    """Lines for `lungjax.evaluation.detection.froc.froc_figures`."""
    rows = [(f"at {rate}", _figure(one)) for rate, one in report["sensitivity"].items()]
    counts = {
        "found": "true_positives",
        "missed": "false_negatives",
        "false positives": "false_positives",
        "on excluded findings": "ignored",
        "again on a nodule": "doubles",
    }
    return [
        f"scans: {report['scans']:,}, nodules: {report['nodules']:,}, candidates: {report['candidates']:,}",
        "",
        "sensitivity at false positives a scan",
        *(f"  {name:<10}{value}" for name, value in [*rows, ("mean, CPM", _figure(report["cpm"]))]),
        "",
        "candidates at the lowest threshold",
        *(f"  {name:<22}{report[key]:>8,}" for name, key in counts.items()),
        "",
        f"[low, high]: {report['interval']}",
    ]


def narrowing(report: Mapping[str, Any]) -> list[str]:
    """Lines for `lungjax.evaluation.detection.narrowing.narrowing_figures`."""
    by_readers = report["by_readers"]
    heads = [f">= {least} readers ({one['nodules']:,} nodules)" for least, one in by_readers.items()]
    lines = ["recall of the readers' nodules when the first slices of a scan are kept", _row("slices", "share", heads)]
    for rows in zip(*(one["curve"] for one in by_readers.values()), strict=True):
        cells = [_figure(row["recall"]) for row in rows]
        lines.append(_row(str(rows[0]["kept"]), f"{rows[0]['share_kept']:.1%}", cells))
    lines.append("slices of a scan for a recall of")
    first = next(iter(by_readers.values()))
    for level in first["slices_for"]:
        needed = [one["slices_for"][level] for one in by_readers.values()]
        lines.append(_row(level, "", ["-" if one is None else str(one) for one in needed]))
    lines += ["what is left, and the recall of that", _row("", "share", heads)]
    for name, stage in report["stages"].items():
        cells = ["-" if stage["recall"][least] is None else f"{stage['recall'][least]:.3f}" for least in by_readers]
        lines.append(_row(name, f"{stage['share_kept']:.1%}", cells))
    return lines


def _row(name: str, share: str, cells: list[str]) -> str:
    return f"  {name:<24}{share:>8}  " + "  ".join(f"{cell:<28}" for cell in cells).rstrip()


def _figure(one: Mapping[str, float | None]) -> str:
    value, low, high = (one[name] for name in ("value", "low", "high"))
    if value is None:
        return "-"
    return f"{value:.3f} [-]" if low is None or high is None else f"{value:.3f} [{low:.3f}, {high:.3f}]"
