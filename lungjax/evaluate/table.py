"""A report of `segmentation.report` as a table for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lungjax.evaluate.segmentation import SCORES

_LABELS = {"dice_all": "dice, every slice", "dice_own": "dice, own reference"}
_NOTES = (
    "model: against the pixels that at least 2 readers marked",
    "readers: each against the pixels that at least 2 of the others marked, then their mean",
    "per slice: over slices where at least 2 readers agree; on some, a reader's own reference is empty",
)
_NOTES_OF_ONE = (
    "model: against what the one reader marked, with no other to compare it with",
    "per slice: over slices where the reader marked anything",
)


def text(report: Mapping[str, Any]) -> str:
    """The figures of model and readers side by side, each with its interval, pooled and per slice.

    Where only one reader looked, there are no figures of readers.

    Args:
      report: from `segmentation.report`; where it also holds `split`, the header names it.

    Returns:
      Lines without a newline at the end. A dash stands for an undefined figure or interval.
    """
    alone = report["readers"] is None
    marked = "where the reader marked anything" if alone else "where at least 2 readers agree"
    head = f"{report['patients']:,} patients, {report['slices']:,} slices, {report['slices_marked']:,} {marked}"
    rows = [("", "model", "" if alone else "readers")]
    rows += [("pooled over all slices", "", ""), *_rows(report, "pooled", SCORES)]
    per_slice = (*SCORES, "dice_all") if alone else (*SCORES, *_LABELS)
    rows += [("mean per slice", "", ""), *_rows(report, "per_slice", per_slice)]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    split = [f"split: {report['split']}"] if "split" in report else []
    notes = [f"[low, high]: {report['interval']}", *(_NOTES_OF_ONE if alone else _NOTES)]
    return "\n".join(line.rstrip() for line in [*split, head, "", *lines, "", *notes])


def _rows(report: Mapping[str, Any], kind: str, names: tuple[str, ...]) -> list[tuple[str, str, str]]:
    model, readers = report[kind], (report["readers"] or {}).get(kind)
    return [
        (f"  {_LABELS.get(name, name)}", _cell(model[name]), _cell(readers[name]) if readers else "") for name in names
    ]


def _cell(figure: Mapping[str, Any]) -> str:
    value, low, high = (figure[key] for key in ("value", "low", "high"))
    if value is None:
        return "-"
    return f"{value:.3f} [{low:.3f}, {high:.3f}]" if low is not None and high is not None else f"{value:.3f} [-]"
