"""`overlay.png`: a contact sheet of a scan's nodules, each where it lies and from near."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lungjax.ct import windows
from lungjax.evaluation.plots import mask_edges

MOST = 12
"""Nodules on a sheet."""
CLOSE_MM = 50.0
_PAIRS_A_ROW = 3
_INCHES = 2.6
_COLOUR = "#D55E00"


def draw(path: Path, *, hu: np.ndarray, mask: np.ndarray, report: dict[str, Any]) -> None:
    """Writes the sheet; without nodules, the middle slice.

    Args:
      path: PNG.
      hu: (slices, rows, columns) int16.
      mask: uint8 of that shape, the number of the nodule.
      report: by `report_json.as_dict`.
    """
    shown: Sequence[dict[str, Any] | None] = report["nodules"][:MOST] or [None]
    rows = math.ceil(len(shown) / _PAIRS_A_ROW)
    columns = 2 * min(len(shown), _PAIRS_A_ROW)
    figure = Figure(figsize=(_INCHES * columns, _INCHES * rows * 1.15 + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels:
        axes.axis("off")
    for place, nodule in enumerate(shown):
        _pair(panels[2 * place : 2 * place + 2], nodule, hu, mask, report["scan"]["spacing_mm"][1])
    count = len(report["nodules"])
    summary = f"{count} nodules with a score of at least {report['threshold']:.3g}{f', {MOST} shown' * (count > MOST)}"
    title = f"{report['scan']['patient_id']}: {summary}\n{report['notice']}"
    figure.suptitle(title, fontsize=8, parse_math=False)  # Names may hold what is a formula elsewhere.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)  # Of fonts; report.html has the name.
        figure.savefig(path, dpi=110)


def _pair(panels: np.ndarray, nodule: dict[str, Any] | None, hu: np.ndarray, mask: np.ndarray, pixel_mm: float) -> None:
    if nodule is None:
        return _show(panels[0], hu[len(hu) // 2], f"slice {len(hu) // 2}")
    marked = mask == nodule["number"]
    first, last = nodule["slices"]
    number = first + int(marked[first : last + 1].sum(axis=(1, 2)).argmax())
    image, outline = hu[number], marked[number]
    side_px = round(CLOSE_MM / pixel_mm)
    top, bottom, left, right = mask_edges.window(outline, side_px=min(side_px, *image.shape), margin=1.0)
    _show(panels[0], image, f"{nodule['number']}: slice {number}")
    box = Rectangle((left - 0.5, top - 0.5), right - left, bottom - top, fill=False, color=_COLOUR, lw=1)
    panels[0].add_patch(box)
    size = f"{nodule['longest_mm']:g} x {nodule['perpendicular_mm']:g} mm"
    _show(panels[1], image, f"{size}, score {nodule['score']:.2f}")
    panels[1].add_collection(LineCollection(list(mask_edges.edges(outline)), colors=_COLOUR, linewidths=1.2))
    panels[1].set(xlim=(left - 0.5, right - 0.5), ylim=(bottom - 0.5, top - 0.5))


def _show(axes: Axes, image: np.ndarray, title: str) -> None:
    low, high = windows.ends(windows.LUNG_HU)
    axes.imshow(image, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
    axes.set_title(title, fontsize=7)
