"""`report.html`: a scan to scroll through, with its predicted nodules, in one file that fetches nothing.

The viewer is our own, under 300 lines (`viewer.js`). NiiVue (0.69.0, BSD-2-Clause, `npm pack @niivue/niivue`) does draw
a scan from one file without a network, but in a larger file: around its library (2.3 MB) lies a compressed NIfTI file
as base64. For LIDC-IDRI-0003, 140 slices cut as this page cuts them, that is 43.9 MB of HU, or 21.9 MB of 8 bits in the
lung window, of which no other window and no HU can be read. 20 MB were the limit for taking it. This page has 29.3 MB,
every HU in it, for `html_voxels` predicts a voxel from those before it; `tests/prediction/test_browser.py` holds these
figures. NiiVue would also unpack the whole scan before the first picture, where this page unpacks a slice when it is
looked at; and it needs WebGL2.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from lungjax.ct import windows
from lungjax.ct.scan import RATING_NAMES
from lungjax.evaluation.plots import html_page
from lungjax.prediction.outputs import html_voxels, report_json

WINDOWS_HU = {
    "Lung": windows.ends(windows.LUNG_HU),
    "Soft tissue": windows.ends(windows.SOFT_TISSUE_HU),
    "Bone": windows.ends(windows.BONE_HU),
}
_SIDES = (("R", "L"), ("A", "P"), ("F", "H"))
"""Towards less and towards more of x, y, z in DICOM's patient coordinates."""
_AXIAL = 0.8
"""Least cosine between the normal of axial slices and the body."""


def write(path: Path, *, hu: np.ndarray, mask: np.ndarray, report: Mapping[str, Any]) -> Path:
    """Writes the page of one scan, under a temporary name first.

    Args:
      path: the HTML file; its folder must exist.
      hu: int16 (slices, rows, columns), lowest slice first. The page keeps it exactly from -1024 to 3071 HU, within the
        rows and columns that hold more than air.
      mask: uint8 of that shape; a voxel's value is the number of its nodule, 0 for none.
      report: by `report_json.as_dict`. Its texts may come from strangers: they are shown, and never run.

    Returns:
      `path`.

    Raises:
      ValueError: voxels, mask and the report's `scan` differ in shape, voxels or mask are of another type, or the
        report is of another schema.
    """
    if report["schema"] != report_json.SCHEMA:
        raise ValueError(f"a report of schema {report['schema']}; this lungjax makes pages of {report_json.SCHEMA}")
    if hu.ndim != 3 or hu.shape != mask.shape or list(hu.shape) != list(report["scan"]["shape"]):
        raise ValueError(f"voxels {hu.shape}, mask {mask.shape} and report {report['scan']['shape']} differ in shape")
    if hu.dtype != np.int16 or mask.dtype != np.uint8:
        raise ValueError(f"voxels are {hu.dtype}, not int16, or the mask is {mask.dtype}, not uint8")
    box = html_voxels.box(hu)
    nodules, candidates = report["nodules"], report["candidates"]
    return html_page.write(
        path,
        "prediction/outputs/html_report.html",
        title=f"{report['scan']['patient_id']}: lungjax",
        script=resources.files("lungjax.prediction.outputs").joinpath("viewer.js").read_text(encoding="utf-8"),
        report=report,
        patient=report["patient"],
        nodules=[_row(nodule, mark) for mark, nodule in enumerate(nodules)],
        candidates=[_row(candidate, mark) for mark, candidate in enumerate(candidates, len(nodules))],
        threshold=html_page.number(report["threshold"], ".2f"),
        operating_point=_operating_point(report.get("operating_point")),
        origin=_origin(report),
        windows=list(WINDOWS_HU),
        viewer=_for_viewer(report, box),
        slices=_slices(hu, mask, box),
    )


def _operating_point(point: Mapping[str, Any] | None) -> str | None:
    """Where the threshold comes from; None for reports that do not tell."""
    if point is None:
        return None
    rate = point["false_positives_a_scan"]
    wanted = "" if rate is None else f"The threshold is for {rate:g} false positives a scan. "
    return wanted + point["source"]


def _row(nodule: Mapping[str, Any], mark: int) -> dict[str, Any]:
    """Of the tables of nodules; `mark` is the nodule's place among those of `_for_viewer`."""
    number = html_page.number
    first, last = nodule["slices"]
    score = "" if nodule["score"] is None else f", score {nodule['score']:.2f}"
    return {
        "mark": mark,
        "number": nodule["number"],
        "label": f"Show nodule {nodule['number']}{score}",
        "cells": [
            round(nodule["centre_voxel"][0]) + 1,
            number(nodule["score"], ".2f"),
            number(nodule["malignancy"], ".2f"),
            nodule["type"],
            _unbroken(f"{number(nodule['longest_mm'], '.1f')} x {number(nodule['perpendicular_mm'], '.1f')}"),
            number(nodule["mean_mm"], ".1f"),
            " ".join(nodule[name] for name in ("side", "zone") if nodule[name]) or None,
            number(nodule["pleura_mm"], ".1f"),
            nodule["lung_rads"],
        ],
        "measures": [
            f"{first + 1} to {last + 1}",
            None if nodule["centre_mm"] is None else ", ".join(f"{mm:.1f}" for mm in nodule["centre_mm"]),
            number(nodule["volume_mm3"], ",.0f"),
            number(nodule["solid_mean_mm"], ".1f"),
            number(nodule["mean_hu"], ".0f"),
        ],
        "ratings": [_rating(nodule["ratings"].get(name)) for name in RATING_NAMES],
    }


def _rating(rating: Mapping[str, Any] | None) -> str | None:
    """Expected, and how it is spread where that is known."""
    if rating is None:
        return None
    deviation = rating["standard_deviation"]
    return f"{rating['expected']:.1f}" + ("" if deviation is None else f" ±\N{NO-BREAK SPACE}{deviation:.1f}")


def _unbroken(text: str) -> str:
    """A text that stays on one line in a cell of a tight table."""
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def _origin(report: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Which models made the report, and of which scan, by the title of the section."""
    scan = report["scan"]
    models = {
        "Segmenter": report["model"],
        "Nodule classifier": report["nodule_classifier"],
        "Patient classifier": report["patient"]["model"],
    }
    origin = {title: _model(model) for title, model in models.items() if model}
    origin["Segmenter"] |= {"lungjax": report["lungjax"], "made": report["made"]}
    spacing_mm = ["unknown" if mm is None else f"{mm:.3f}" for mm in scan["spacing_mm"]]
    origin["The scan"] = {
        "patient": scan["patient_id"],
        "series": scan["series_uid"],
        "source": scan["source"],
        "size": " x ".join(str(size) for size in scan["shape"]) + " voxels: slices, rows, columns",
        "spacing": " x ".join(spacing_mm) + " mm",
    }
    return origin


def _model(model: Mapping[str, Any]) -> dict[str, Any]:
    window_hu = model["window_hu"]
    return {
        "model": model["name"],
        "task": model["task"],
        "step": model["step"],
        "trained on": model["trained_on"],
        "split": model["split_digest"],
        "intensity": model["intensity"],
        "window": None if window_hu is None else f"level {window_hu[0]:g}, width {window_hu[1]:g} HU",
    }


def _slices(hu: np.ndarray, mask: np.ndarray, box: Sequence[int]) -> Iterator[tuple[int, str, str | None]]:
    """Number, voxels and marks of each slice, packed; no marks where there is no nodule."""
    for number, (plane, marks) in enumerate(zip(hu, mask, strict=True)):
        part = np.ascontiguousarray(plane[box[0] : box[1], box[2] : box[3]])
        packed = html_voxels.pack_bytes(marks.tobytes()) if marks.any() else None
        yield number, html_voxels.pack(part), packed


def _for_viewer(report: Mapping[str, Any], box: Sequence[int]) -> dict[str, Any]:
    spacing_mm = report["scan"]["spacing_mm"]
    known = all(mm is not None and math.isfinite(mm) and mm > 0 for mm in spacing_mm)
    return {
        "shape": list(report["scan"]["shape"]),
        "box": list(box),
        "spacing": list(spacing_mm) if known else [1, 1, 1],
        "low_hu": html_voxels.LOW_HU,
        "high_hu": html_voxels.HIGH_HU,
        "windows": list(WINDOWS_HU.values()),
        "sides": sides(report["scan"]["affine_lps"]),
        "marks": [
            {
                "number": nodule["number"],
                "candidate": kind == "candidates",
                "slice": round(nodule["centre_voxel"][0]),
                "row": nodule["centre_voxel"][1],
                "column": nodule["centre_voxel"][2],
                "first": nodule["slices"][0],
                "last": nodule["slices"][1],
                "longest_mm": nodule["longest_mm"],
            }
            for kind in ("nodules", "candidates")
            for nodule in report[kind]
        ],
    }


def sides(affine_lps: Sequence[Sequence[float]] | None) -> list[str] | None:
    """Which side of the patient is left, right, top and bottom in the picture; None where slices are not axial.

    Args:
      affine_lps: 4 x 4, from (column, row, slice, 1) to mm towards the patient's left, back and head; or None.
    """
    if affine_lps is None:
        return None
    steps = np.asarray(affine_lps, np.float64)[:3, :3]
    steps = steps / np.maximum(np.linalg.norm(steps, axis=0), 1e-9)
    if abs(steps[2, 2]) < _AXIAL:
        return None
    letters = []
    for direction in (steps[:, 0], steps[:, 1]):
        axis = int(np.abs(direction).argmax())
        less, more = _SIDES[axis]
        letters += [less, more] if direction[axis] > 0 else [more, less]
    return letters
