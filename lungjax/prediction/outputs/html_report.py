"""`report.html`: a scan to scroll through, with its predicted nodules, in one file that fetches nothing.

The viewer is our own, under 300 lines (`viewer.js`), for NiiVue does not fit one file made by `pip install`: PyPI has
it only within ipyniivue (2.4.4, BSD-2-Clause), whose 5.0 MB bundle exports a Jupyter widget and not NiiVue itself, and
brings anywidget along; from npm it would need Node.js wherever lungjax is built. It would also unpack a whole NIfTI
file (about 48 MB as base64 for 140 slices, where this page has 29) before the first picture, where this page unpacks a
slice when it is looked at; and it needs WebGL2.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from lungjax.ct import windows
from lungjax.evaluation.plots import html_page
from lungjax.prediction.outputs import html_sections, html_voxels, report_json

WINDOWS_HU = {
    "Lung": windows.ends(windows.LUNG_HU),
    "Soft tissue": windows.ends(windows.SOFT_TISSUE_HU),
    "Bone": windows.ends(windows.BONE_HU),
}
_SIDES = (("R", "L"), ("A", "P"), ("F", "H"))
"""Towards less and towards more of x, y, z in DICOM's patient coordinates."""
_AXIAL = 0.8
"""Least cosine between the normal of axial slices and the body."""
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
    return html_page.write(
        path, title=f"{report['scan']['patient_id']}: lungjax", body=_body(hu, mask, report), script=_script()
    )


def _script() -> str:
    return resources.files("lungjax.prediction.outputs").joinpath("viewer.js").read_text(encoding="utf-8")


def _body(hu: np.ndarray, mask: np.ndarray, report: Mapping[str, Any]) -> Iterator[str]:
    yield html_sections.header(report)
    yield '<main class="columns">\n'
    yield _viewer(report)
    yield f"<div>\n{html_sections.patient_section(report)}{html_sections.nodules_section(report)}"
    yield f"{html_sections.origin_section(report)}</div>\n</main>\n"
    yield f'<footer class="soft"><p>{html_page.text(report["notice"])}</p></footer>\n'
    box = html_voxels.box(hu)
    yield html_page.data("scan", _for_viewer(report, box))
    for number, (plane, marks) in enumerate(zip(hu, mask, strict=True)):
        part = np.ascontiguousarray(plane[box[0] : box[1], box[2] : box[3]])
        yield f'<script type="text/plain" id="v{number}">{html_voxels.pack(part)}</script>\n'
        if marks.any():
            yield f'<script type="text/plain" id="m{number}">{html_voxels.pack_bytes(marks.tobytes())}</script>\n'


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
<details id="keys"><summary>Keys and gestures</summary>{html_page.pairs(_KEYS)}</details>
</section>
"""
