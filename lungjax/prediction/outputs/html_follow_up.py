"""`follow-up.html`: the nodules of two scans of a patient side by side, in one file that fetches nothing."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from lungjax.ct import windows
from lungjax.evaluation.plots import html_page, mask_edges
from lungjax.prediction.follow_up.compared import ComparedScan
from lungjax.prediction.outputs import report_json

MOST = 40
"""Nodules whose pictures the page has; the tables have all."""
_CLOSE_MM = 50.0
_RING_MM = 8.0
_INCHES = 2.8
_COLOUR = "#D55E00"
_SIDES = ("first", "second")
_ALONE = {
    "new": ("New", "Predicted in the second scan alone; the first one shows their place."),
    "gone": ("Gone", "Predicted in the first scan alone; the second one shows their place."),
    "not_shown": (
        "Not shown by both",
        "Nodules whose place the other scan does not show: whether they are new or gone is not known.",
    ),
}
"""Titles and texts of the nodules of one scan alone."""


def write(
    path: Path, follow_up: Mapping[str, Any], first: ComparedScan, second: ComparedScan, *, links: Mapping[str, str]
) -> Path:
    """Writes the page.

    Args:
      path: the HTML file; its folder must exist.
      follow_up: by `follow_up_json.as_dict`. Its texts may come from strangers: they are shown, and never run.
      first, second: what was compared.
      links: where the page of the `first` and of the `second` scan lies; either may be missing.

    Returns:
      `path`.
    """
    scans = {"first": first, "second": second}
    pictures = []
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".pictures-") as holder:
        png = Path(holder) / "nodule.png"
        for title, places in _places(follow_up, scans)[:MOST]:
            _draw(png, scans, places)
            pictures.append((title, html_page.inline(png)))
    # Two names where one scan has no PatientID.
    patient = " and ".join(dict.fromkeys(follow_up[name]["patient_id"] for name in _SIDES))
    return html_page.write(
        path,
        "prediction/outputs/follow_up.html",
        title=f"{patient}: lungjax",
        patient=patient,
        follow_up=follow_up,
        matched=[_matched_row(nodule) for nodule in follow_up["matched"]],
        alone=[(*_ALONE[status], [_alone_row(status, nodule) for nodule in follow_up[status]]) for status in _ALONE],
        pictures=pictures,
        left_out=max(sum(len(follow_up[name]) for name in ("matched", "new", "gone", "not_shown")) - MOST, 0),
        scans={name: _scan(follow_up[name]) for name in _SIDES},
        links=links,
    )


def _scan(scan: Mapping[str, Any]) -> dict[str, Any]:
    spacing_mm = ["unknown" if mm is None else f"{mm:.3f}" for mm in scan["spacing_mm"]]
    return {
        "date": scan["date"] or "unknown",
        "patient": scan["patient_id"],
        "series": scan["series_uid"],
        "source": scan["source"],
        "spacing": " x ".join(spacing_mm) + " mm",
        "nodules": scan["nodules"],
    }


def _matched_row(nodule: Mapping[str, Any]) -> list[str]:
    low, high = nodule["growth_percent_interval"]
    return [
        str(nodule["second"]),
        " → ".join(f"{volume:,.0f}" for volume in nodule["volumes_mm3"]),
        " → ".join(f"{longest:.1f}" for longest in nodule["longest_mm"]),
        f"{nodule['growth_percent']:+.0f} ({low:+.0f} to {high:+.0f})",
        nodule["change"],
        _doubling(nodule),
        f"{nodule['distance_mm']:.1f}",
    ]


def _alone_row(status: str, nodule: Mapping[str, Any]) -> list[Any]:
    number = html_page.number
    sizes = number(nodule["volume_mm3"], ",.0f"), number(nodule["longest_mm"], ".1f")
    return [nodule["number"], _side(status, nodule), *sizes, nodule["candidate"]]


def _side(status: str, nodule: Mapping[str, Any]) -> str:
    """The scan that a nodule of `new`, `gone` or `not_shown` is of."""
    return {"new": "second", "gone": "first"}.get(status) or nodule["scan"]


def _doubling(nodule: Mapping[str, Any]) -> str:
    if nodule["doubling_days"] is None:
        return "-"
    low, high = nodule["doubling_days_interval"]
    upper = f"from {low:,} on" if high is None else f"{low:,} to {high:,}"
    return f"{nodule['doubling_days']:,} ({upper})"


def _places(
    follow_up: Mapping[str, Any], scans: Mapping[str, ComparedScan]
) -> list[tuple[str, dict[str, tuple[np.ndarray, int]]]]:
    """What is drawn of each nodule: a title, and for `first` and `second` its place (slice, row, column) and number.

    The number is 0 where the nodule was not predicted; a side that does not show its place is missing.
    """
    pictures = []
    for nodule in follow_up["matched"]:
        places = {side: _nodule_place(scans[side], nodule[side]) for side in _SIDES}
        title = f"Nodule {nodule['first']} of the first scan, nodule {nodule['second']} of the second"
        pictures.append((f"{title}: {nodule['growth_percent']:+.0f} %, {nodule['change']}", places))
    for status, words in (("new", "new"), ("gone", "gone"), ("not_shown", "not shown by the other")):
        for nodule in follow_up[status]:
            side = _side(status, nodule)
            other = "second" if side == "first" else "first"
            places = {side: _nodule_place(scans[side], nodule["number"])}
            if status != "not_shown":
                places[other] = (report_json.voxel_of(scans[other].scan, nodule["place_mm"]), 0)
            pictures.append((f"Nodule {nodule['number']} of the {side} scan: {words}", places))
    return pictures


def _nodule_place(compared: ComparedScan, number: int) -> tuple[np.ndarray, int]:
    """Its centre, in the slice that shows most of it."""
    nodule = next(nodule for nodule in compared.report["nodules"] if nodule["number"] == number)
    first, last = nodule["slices"]
    areas = (compared.mask[first : last + 1] == number).sum(axis=(1, 2))
    return np.array([first + int(areas.argmax()), *nodule["centre_voxel"][1:]]), number


def _draw(path: Path, scans: Mapping[str, ComparedScan], places: Mapping[str, tuple[np.ndarray, int]]) -> None:
    """Both sides at the same scale, the nodule outlined; a ring where it is not, or nothing."""
    figure = Figure(figsize=(2 * _INCHES, _INCHES + 0.25), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, side in zip(figure.subplots(1, 2), _SIDES, strict=True):
        axes.axis("off")
        if side not in places:
            axes.set_title(f"{side} scan: not shown", fontsize=8)
            continue
        compared, (place, number) = scans[side], places[side]
        _panel(axes, compared, place, number)
        date = "" if compared.date is None else f", {compared.date}"
        axes.set_title(f"{side} scan{date}: slice {round(place[0]) + 1}", fontsize=8)
    figure.savefig(path, dpi=110)


def _panel(axes: Axes, compared: ComparedScan, place: Sequence[float] | np.ndarray, number: int) -> None:
    _, row_mm, column_mm = compared.scan.spacing_mm
    index = min(max(round(float(place[0])), 0), len(compared.mask) - 1)
    low, high = windows.ends(windows.LUNG_HU)
    image = compared.scan.voxels[index]
    axes.imshow(image, cmap="gray", vmin=low, vmax=high, interpolation="nearest", aspect=row_mm / column_mm)
    row, column = float(place[1]), float(place[2])
    half_row, half_column = _CLOSE_MM / 2 / row_mm, _CLOSE_MM / 2 / column_mm
    axes.set(xlim=(column - half_column, column + half_column), ylim=(row + half_row, row - half_row))
    if number:
        outline = compared.mask[index] == number
        axes.add_collection(LineCollection(list(mask_edges.edges(outline)), colors=_COLOUR, linewidths=1.2))
    else:
        axes.add_patch(Circle((column, row), _RING_MM / column_mm, fill=False, color=_COLOUR, lw=1, ls="--"))
