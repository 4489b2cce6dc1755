"""`lungjax evaluate --submission`: any detector's candidates, scored by LUNA16's rules and with its files."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lungjax.errors import InputError
from lungjax.evaluation import output_file
from lungjax.evaluation.detection import detection_table, froc, luna16_rules
from lungjax.evaluation.detection.luna16_rules import ScoredPoints
from lungjax.evaluation.plots import detection_charts
from lungjax.train import workdir

_MISTAKEN: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "were in the order z, y, x": lambda at_mm: at_mm[:, ::-1],
    "counted to the right and the front": lambda at_mm: at_mm * (-1, -1, 1),
}
_FILES = ("annotations.csv", "annotations_excluded.csv", "seriesuids.csv")


def evaluate(submission: Path, *, luna16: Path, out: Path | None) -> dict[str, Any]:
    """Scores a CSV of `seriesuid,coordX,coordY,coordZ,probability`: figures, a table and the FROC chart.

    Args:
      submission: the CSV.
      luna16: the folder of `annotations.csv`, `annotations_excluded.csv` and `seriesuids.csv`. The last lists the scans
        to score, one a line, including those without a nodule.
      out: the JSON file to write; None for `froc-SUBMISSION.json` in the current folder. The table, `.table.txt`, and
        the chart, `.froc.png`, are written next to it.

    Returns:
      The content of the JSON file: what `lungjax.evaluation.detection.froc.froc_figures` returns, and the sources.

    Raises:
      InputError: a file is missing or is not a CSV of this form, the submission names none of the scans, or `out`
        cannot be written.
    """
    with output_file.held(out or Path(f"froc-{submission.stem}.json")) as out:
        return _evaluate(submission, luna16=luna16, out=out)


def _evaluate(submission: Path, *, luna16: Path, out: Path) -> dict[str, Any]:
    annotations, excluded, listed = (luna16 / name for name in _FILES)
    for path in (annotations, excluded, listed):
        if not path.is_file():
            raise InputError(f"{path}: no such file; --luna16 names the folder of {', '.join(_FILES)}.")
    scans = [line.split(",")[0].strip() for line in listed.read_text(encoding="utf-8-sig").splitlines()]
    scans = [scan for scan in scans if scan and scan != "seriesuid"]
    candidates = luna16_rules.read_points(submission, "probability")
    nodules, others = (luna16_rules.read_points(path, "diameter_mm") for path in (annotations, excluded))
    try:
        matches = luna16_rules.match(scans, candidates, nodules, others)
    except ValueError as error:
        raise InputError(str(error)) from error
    other_scans = len(set(candidates.scan) - set(scans))
    if len(candidates.scan) and not matches.candidates:
        raise InputError(
            f"{submission} names none of the {len(scans)} scans in {listed}; both must use the same series IDs."
        )
    if not matches.hit.any():
        _check_axes(submission, scans, candidates, nodules, others)
    report = {
        **froc.froc_figures(matches),
        "submission": str(submission),
        "luna16": str(luna16),
        "other_scans": other_scans,
    }
    table = "\n".join(detection_table.froc_lines(report))
    workdir.write_text(out, json.dumps(report, indent=1, allow_nan=False) + "\n")
    workdir.write_text(out.with_suffix(".table.txt"), table + "\n")
    detection_charts.froc_chart(matches, report, out.with_suffix(".froc.png"))
    print(table)
    if other_scans:
        print(f"Note: candidates in {other_scans} other scans, which {listed.name} does not list, were ignored.")
    print(f"\nfigures: {out}\npicture: {out.with_suffix('.froc.png')}")
    return report


def _check_axes(
    submission: Path, scans: list[str], candidates: ScoredPoints, nodules: ScoredPoints, excluded: ScoredPoints
) -> None:
    """Raises an InputError where candidates that hit no nodule would do so by other axes."""
    for what, change in _MISTAKEN.items():
        other = dataclasses.replace(candidates, at_mm=change(candidates.at_mm))
        if luna16_rules.match(scans, other, nodules, excluded).hit.any():
            raise InputError(
                f"{submission}: no candidate hits a nodule, but some would if the coordinates {what}; LUNA16's are x, "
                "y and z in mm to the patient's left, back and head."
            )
