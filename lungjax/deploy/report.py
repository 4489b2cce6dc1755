"""`report.html`: a scan to scroll through, with what a model found in it, in one file that fetches nothing.

The viewer is our own, under 300 lines (`viewer.js`), for NiiVue does not fit one file made by `pip install`: PyPI has
it only within ipyniivue (2.4.4, BSD-2-Clause), whose 5.0 MB bundle exports a Jupyter widget and not NiiVue itself, and
brings anywidget along; from npm it would need Node.js wherever lungjax is installed. It would also unpack a whole NIfTI
file (48 MB for 140 slices as base64) before the first picture, where this page unpacks a slice when it is looked at,
and it needs WebGL2.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lungjax.deploy import page, voxels

WINDOWS_HU = {"Lung": (-1350, 150), "Soft tissue": (-160, 240), "Bone": (-500, 1300)}
"""Level -600, 40 and 400, width 1500, 400 and 1800."""
_SIDES = (("R", "L"), ("A", "P"), ("F", "H"))
"""Towards less and towards more of x, y, z in DICOM's patient coordinates."""
_COLUMNS = (
    "",
    "slice",
    "score",
    "malignancy",
    "longest x across, mm",
    "volume, mm³",
    "mean, HU",
    "centre x, y, z, mm",
)
_MEANING = (
    "The probability that the readers of LIDC-IDRI would call at least one nodule of this patient malignant. What they "
    "call malignancy is an opinion from the pictures, not pathology; their patients were chosen for nodules, so in "
    "other people it is too high."
)
_LIMITS = (
    "The model has seen chest CT of adults from LIDC-IDRI, 2000 to 2010, and nothing else. It misses nodules and finds "
    "some where there are none. Sizes come from its outlines, not from a reader's calipers."
)
_KEYS = {
    "arrow keys, wheel, or drag up and down": "next slice towards the head or the feet",
    "Page Up, Page Down": "ten slices",
    "Home, End": "lowest and highest slice",
    "1, 2, 3": "window: lung, soft tissue, bone",
    "c": "contours on and off",
    "n, p": "next and previous nodule",
    "z, or double click": "zoom 1, 2, 4 times",
}


def write(path: Path, *, hu: np.ndarray, mask: np.ndarray, report: Mapping[str, Any]) -> Path:
    """Writes the page of one scan, under a temporary name first.

    Args:
      path: the HTML file; its folder must exist.
      hu: int16 (slices, rows, columns), lowest slice first. The page keeps it exactly from -1024 to 3071 HU, within the
        rows and columns that hold more than air.
      mask: uint8 of that shape; a voxel's value is the number of its nodule, 0 for none.
      report: of schema 1. Its texts may come from strangers: they are shown, and never run.

    Returns:
      `path`.

    Raises:
      ValueError: voxels and mask differ in shape, are of another type, or are not what the report's `scan` says; or the
        report is of another schema.
    """
    if report["schema"] != 1:
        raise ValueError(f"report.write: schema {report['schema']}; this lungjax writes pages of schema 1")
    if hu.ndim != 3 or hu.shape != mask.shape or list(hu.shape) != list(report["scan"]["shape"]):
        raise ValueError(f"report.write: voxels {hu.shape}, mask {mask.shape}, report {report['scan']['shape']}")
    if hu.dtype != np.int16 or mask.dtype != np.uint8:
        raise ValueError(f"report.write: voxels are {hu.dtype}, not int16, or mask {mask.dtype}, not uint8")
    return page.write(
        path, title=f"{report['scan']['patient_id']}: lungjax", body=_body(hu, mask, report), script="viewer.js"
    )


def _body(hu: np.ndarray, mask: np.ndarray, report: Mapping[str, Any]) -> Iterator[str]:
    yield _top(report)
    yield '<main class="columns">\n'
    yield _viewer(report)
    yield f"<div>\n{_patient(report)}{_found(report)}{_origin(report)}</div>\n</main>\n"
    yield f'<footer class="soft"><p>{page.text(report["notice"])}</p></footer>\n'
    box = voxels.box(hu)
    yield page.data("scan", _for_viewer(report, box))
    for number, (plane, marks) in enumerate(zip(hu, mask, strict=True)):
        part = np.ascontiguousarray(plane[box[0] : box[1], box[2] : box[3]])
        yield f'<script type="text/plain" id="v{number}">{voxels.pack(part)}</script>\n'
        if marks.any():
            yield f'<script type="text/plain" id="m{number}">{voxels.pack_bytes(marks.tobytes())}</script>\n'


def _for_viewer(report: Mapping[str, Any], box: Sequence[int]) -> dict[str, Any]:
    spacing_mm = report["scan"]["spacing_mm"]
    known = all(mm is not None and math.isfinite(mm) and mm > 0 for mm in spacing_mm)
    return {
        "shape": list(report["scan"]["shape"]),
        "box": list(box),
        "spacing": list(spacing_mm) if known else [1, 1, 1],
        "low_hu": voxels.LOW_HU,
        "high_hu": voxels.HIGH_HU,
        "windows": list(WINDOWS_HU.values()),
        "sides": sides(report["scan"]["affine_lps"]),
        "marks": [
            {
                "number": one["number"],
                "candidate": kind == "candidates",
                "slice": round(one["centre_voxel"][0]),
                "row": one["centre_voxel"][1],
                "column": one["centre_voxel"][2],
                "first": one["slices"][0],
                "last": one["slices"][1],
                "longest_mm": one["longest_mm"],
            }
            for kind in ("nodules", "candidates")
            for one in report[kind]
        ],
    }


def sides(affine_lps: Sequence[Sequence[float]] | None) -> list[str] | None:
    """What side of the patient is left, right, top and bottom in the picture; None where slices are not axial.

    Args:
      affine_lps: 4 x 4, from voxels to mm towards left, back and head; whether voxels are (slice, row, column) or
        (column, row, slice) shows in which of its columns runs along the body.
    """
    if affine_lps is None:
        return None
    steps = np.asarray(affine_lps, np.float64)[:3, :3]
    steps = steps / np.maximum(np.linalg.norm(steps, axis=0), 1e-9)
    if abs(steps[2, 0]) > 0.8:
        across = steps[:, 2]
    elif abs(steps[2, 2]) > 0.8:
        across = steps[:, 0]
    else:
        return None
    found = []
    for direction in (across, steps[:, 1]):
        axis = int(np.abs(direction).argmax())
        less, more = _SIDES[axis]
        found += [less, more] if direction[axis] > 0 else [more, less]
    return found


def _top(report: Mapping[str, Any]) -> str:
    scan = report["scan"]
    parts = [
        f"<header><h1>Scan of {page.text(scan['patient_id'])}</h1>\n"
        f'<p class="soft">Read by lungjax {page.text(report["lungjax"])}, {page.text(report["made"])}</p></header>\n'
        f'<p class="notice" role="note">{page.text(report["notice"])}</p>\n'
    ]
    if report["refused"]:
        parts.append(f'<p class="refused" role="alert"><strong>Refused:</strong> {page.text(report["refused"])}</p>\n')
    if report["warnings"]:
        lines = "".join(f"<li>{page.text(one)}</li>" for one in report["warnings"])
        parts.append(f'<div class="warnings" role="note"><strong>Mind</strong><ul>{lines}</ul></div>\n')
    parts.append('<noscript><p class="refused">The scan is drawn by a script in this file: allow it.</p></noscript>\n')
    return "".join(parts)


def _viewer(report: Mapping[str, Any]) -> str:
    slices = int(report["scan"]["shape"][0])
    windows = "".join(
        f'<button type="button" data-window aria-pressed="false" aria-keyshortcuts="{n}">{name}</button>'
        for n, name in enumerate(WINDOWS_HU, 1)
    )
    none = "" if report["nodules"] else " disabled"
    return f"""\
<section class="stay" aria-label="The scan">
<div class="tools"><div role="group" aria-label="Window">{windows}</div>
<div><button type="button" id="contours" aria-pressed="true" aria-keyshortcuts="c">Contours</button>
<button type="button" id="zoom" aria-keyshortcuts="z">Zoom 1x</button></div>
<div role="group" aria-label="Nodules"><button type="button" id="previous" aria-keyshortcuts="p"{none}>← Nodule</button>
<button type="button" id="next" aria-keyshortcuts="n"{none}>Nodule →</button></div></div>
<div id="viewer" tabindex="0" role="group" aria-label="Scan: arrow keys turn over the slices" aria-describedby="keys">
<canvas id="canvas" role="img" aria-label="CT slice"></canvas></div>
<input type="range" id="slice" min="1" max="{slices}" value="1" aria-label="Slice, from the feet to the head">
<div class="reading"><output id="where" aria-live="off"></output><output id="reading"></output></div>
<details id="keys"><summary>Keys and gestures</summary>{page.pairs(_KEYS)}</details>
</section>
"""


def _patient(report: Mapping[str, Any]) -> str:
    patient = report["patient"]
    if patient["probability"] is None:
        said = '<p class="big">-</p><p>This model gives no probability for the patient.</p>'
    else:
        said = f'<p class="big">{100 * patient["probability"]:.0f} %</p><p>{_MEANING}</p>'
        if patient["calibration"] is None:
            said += "<p>It has not been calibrated: read it as an order, not as a share of patients.</p>"
        else:
            said += f"<h3>Calibration</h3>{page.pairs(patient['calibration'])}"
    return f'<section><h2>The patient</h2>{said}<p class="soft">{_LIMITS}</p></section>\n'


def _found(report: Mapping[str, Any]) -> str:
    nodules, candidates = report["nodules"], report["candidates"]
    threshold = page.number(report["threshold"], ".2f")
    legend = (
        f'<p class="soft">Score: how sure the model is that there is a nodule; those from {threshold} on are outlined. '
        "Malignancy: as above, of one nodule. Slices are counted from the lowest, which is 1.</p>"
    )
    if nodules:
        here = page.table("Nodules", _COLUMNS, [_row(one, index) for index, one in enumerate(nodules)]) + legend
    else:
        here = f"<p>No nodule was found{' in what was read' if report['refused'] else ''}.</p>"
    if candidates:
        rows = [_row(one, len(nodules) + index) for index, one in enumerate(candidates)]
        below = page.table("Candidates below the threshold", _COLUMNS, rows)
        here += (
            f"<details><summary>{len(candidates)} below the threshold of {threshold}, dashed rings</summary>{below}"
            "</details>"
        )
    return f"<section><h2>Nodules</h2>{here}</section>\n"


def _row(one: Mapping[str, Any], index: int) -> list[str]:
    number, (first, last) = page.text(one["number"]), one["slices"]
    size = f"{page.number(one['longest_mm'], '.1f')} x {page.number(one['perpendicular_mm'], '.1f')}"
    centre = "-" if one["centre_mm"] is None else ", ".join(f"{mm:.1f}" for mm in one["centre_mm"])
    kind = "nodule" if one["score"] is None else f"nodule, score {one['score']:.2f}"
    return [
        f'<button type="button" data-mark="{index}" aria-label="Show {kind} {number} in the scan">{number}</button>',
        f"{round(one['centre_voxel'][0]) + 1} ({first + 1} to {last + 1})",
        page.number(one["score"], ".2f"),
        page.number(one["malignancy"], ".2f"),
        size,
        page.number(one["volume_mm3"], ",.0f"),
        page.number(one["mean_hu"], ".0f"),
        centre,
    ]


def _origin(report: Mapping[str, Any]) -> str:
    model, scan = report["model"], report["scan"]
    made_by = {
        "model": model["name"],
        "task": model["task"],
        "step": model["step"],
        "trained on": model["trained_on"],
        "split": model["split_digest"],
        "intensity": model["intensity"],
        "window": f"{model['window_hu']} HU" if model["window_hu"] else None,
        "lungjax": report["lungjax"],
        "made": report["made"],
    }
    spacing_mm = ["unknown" if mm is None else f"{mm:.3f}" for mm in scan["spacing_mm"]]
    read = {
        "patient": scan["patient_id"],
        "series": scan["series_uid"],
        "source": scan["source"],
        "size": " x ".join(str(size) for size in scan["shape"]) + " voxels: slices, rows, columns",
        "spacing": " x ".join(spacing_mm) + " mm",
    }
    return (
        f"<section><h2>What model found it</h2>{page.pairs(made_by)}</section>\n"
        f"<section><h2>The scan</h2>{page.pairs(read)}</section>\n"
    )
