"""A sheet of nodules: each reader's outline above, the candidates below."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D
from matplotlib.patheffects import Normal, Stroke

from lungjax.ct import windows
from lungjax.evaluation.plots import mask_edges, training_plots
from lungjax.evaluation.plots.overlay import READER_COLOURS, VERMILLION

MOST = 12
"""The greatest number of nodules on a sheet."""
_COLUMNS = 4
_INCHES = 2.5
_CANDIDATE = "#F0E442"
_SCALE_MM = 10
_RIM = [Stroke(linewidth=4.5, foreground="#202020"), Normal()]
"""A dark rim for white lines, which would otherwise vanish on bright tissue."""


@dataclasses.dataclass(frozen=True, eq=False)
class NoduleView:
    """A reference nodule, in the slice in which its readers marked most; the arrays have the same shape.

    Attributes:
      hu: int16 (rows, columns).
      readers: uint8, the readers' bits.
      nodules: bool, candidates above the operating point.
      candidates: bool, the other candidates.
      pixel_mm: between pixel centres.
      figures: its entry in `ScoredScan.nodules`.
    """

    hu: np.ndarray
    readers: np.ndarray
    nodules: np.ndarray
    candidates: np.ndarray
    pixel_mm: float
    figures: dict[str, Any]


def draw_sheet(views: Sequence[NoduleView], path: Path, *, threshold: float) -> None:
    """Writes the sheet of the first `MOST` nodules.

    Args:
      views: at least one.
      path: the PNG.
      threshold: the operating point, the score from which a candidate is a nodule.
    """
    shown = views[:MOST]
    columns, bands = min(len(shown), _COLUMNS), math.ceil(len(shown) / _COLUMNS)
    figure = training_plots.canvas(max(columns * _INCHES, 7.5), bands * 2 * (_INCHES + 0.35) + 0.7)
    panels = figure.subplots(2 * bands, columns, squeeze=False)
    for axes in panels.ravel():
        axes.axis("off")
    for place, view in enumerate(shown):
        band, column = divmod(place, columns)
        _draw_readers(panels[2 * band, column], view)
        _draw_candidates(panels[2 * band + 1, column], view)
    handles = [
        *(Line2D([], [], color=colour, lw=2, label=f"reading {n}") for n, colour in enumerate(READER_COLOURS, 1)),
        Line2D([], [], color=VERMILLION, lw=2, label=f"nodule: score from {threshold:.3g} on"),
        Line2D([], [], color=_CANDIDATE, lw=2, ls="--", label="candidate below that"),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=6, frameon=False, fontsize=7)
    training_plots.save(figure, path)


def _draw_readers(axes: Axes, view: NoduleView) -> None:
    nodule = view.figures
    readers = "1 reader" if nodule["readers"] == 1 else f"{nodule['readers']} readers"
    place = f"{nodule['patient_id']}, slice {nodule['middle_slice'] + 1}"
    _show(axes, view.hu, f"{place}\n{readers}, {nodule['diameter_mm']:g} mm")
    for slot in range(8):  # The wider lines are drawn first: where outlines coincide, every colour still shows.
        _outline(axes, view.readers >> slot & 1, READER_COLOURS[slot % 4], width=2.6 - 0.6 * (slot % 4))
    if view.pixel_mm > 0:
        rows, columns = view.hu.shape
        start, below = 0.05 * columns, 0.95 * rows
        axes.plot([start, start + _SCALE_MM / view.pixel_mm], [below, below], color="white", lw=2.5, path_effects=_RIM)
        text = axes.annotate(f"{_SCALE_MM} mm", (start, below - 0.03 * rows), color="white", fontsize=7, va="bottom")
        text.set_path_effects([Stroke(linewidth=2, foreground="#202020"), Normal()])


def _draw_candidates(axes: Axes, view: NoduleView) -> None:
    nodule = view.figures
    title = (
        "no candidate's centre in it"
        if nodule["rank"] is None
        else f"candidate {nodule['rank']}, score {nodule['score']:.2f}"
    )
    _show(axes, view.hu, f"{title}\nDice {nodule['dice']:.2f} in 3-D")
    _outline(axes, view.candidates, _CANDIDATE, width=1.2, style="--")
    _outline(axes, view.nodules, VERMILLION, width=1.8)


def _show(axes: Axes, hu: np.ndarray, title: str) -> None:
    low, high = windows.ends(windows.LUNG_HU)
    axes.imshow(hu, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
    axes.set_title(title, fontsize=8, parse_math=False)  # Names may hold what is a formula elsewhere.


def _outline(axes: Axes, mask: np.ndarray, colour: str, *, width: float, style: str = "-") -> None:
    axes.add_collection(LineCollection(list(mask_edges.edges(mask)), colors=colour, linewidths=width, linestyles=style))
