"""A report of `segmentation.report` as a table for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lungjax.evaluate.segmentation import SCORES

_LABELS = {"dice_all": "dice, every slice", "dice_own": "dice, own reference"}


def text(report: Mapping[str, Any]) -> str:
    """The figures of model and readers side by side, each with its interval, pooled and per slice.

    Args:
      report: from `segmentation.report`; where it also holds `split`, the header names it.

    Returns:
      Lines without a newline at the end. A dash stands for an undefined figure or interval.
    """
    marked = f"{report['slices_marked']:,} where at least 2 readers agree"
    head = f"{report['patients']:,} patients, {report['slices']:,} slices, {marked}"
    rows = [("", "model", "readers")]
    rows += [("pooled over all slices", "", ""), *_rows(report, "pooled", SCORES)]
    rows += [("mean per slice", "", ""), *_rows(report, "per_slice", (*SCORES, *_LABELS))]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    split = [f"split: {report['split']}"] if "split" in report else []
    notes = [
        f"[low, high]: {report['interval']}",
        "model: against the pixels that at least 2 readers marked",
        "readers: each against the pixels that at least 2 of the others marked, then their mean",
        "per slice: over slices where at least 2 readers agree; on some, a reader's own reference is empty",
    ]
    return "\n".join(line.rstrip() for line in [*split, head, "", *lines, "", *notes])


def _rows(report: Mapping[str, Any], kind: str, names: tuple[str, ...]) -> list[tuple[str, str, str]]:
    model, readers = report[kind], report["readers"][kind]
    return [(f"  {_LABELS.get(name, name)}", _cell(model[name]), _cell(readers[name])) for name in names]


def _cell(figure: Mapping[str, Any]) -> str:
    value, low, high = (figure[key] for key in ("value", "low", "high"))
    if value is None:
        return "-"
    return f"{value:.3f} [{low:.3f}, {high:.3f}]" if low is not None and high is not None else f"{value:.3f} [-]"
