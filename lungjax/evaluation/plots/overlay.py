"""One slice in three panels: the image, the readers' outlines, the prediction."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import Normal, Stroke

from lungjax import metrics
from lungjax.evaluation.plots import mask_edges

# From Okabe and Ito's palette, which colour-blind people can distinguish.
BLUE, VERMILLION = "#0072B2", "#D55E00"
READER_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7")
WHOLE_PX = 128
"""Images up to this size are shown whole."""
CLOSE_PX = 48
"""The smallest width of a close view: enough around a nodule of 10 px to see its surroundings."""
_SHADE = 0.45
_SCALE_MM = 10
_HALO = "#202020"
"""A dark rim for white lines, which would otherwise vanish on bright tissue."""


def draw_row(
    panels: Sequence[Axes],
    image: np.ndarray,
    readers: np.ndarray,
    probability: np.ndarray,
    *,
    title: str,
    threshold: float,
    spacing_mm: float,
    slots: int,
) -> None:
    """Draws one slice into three panels; arguments as in `training_plots.draw_slices`, but (rows, columns)."""
    image, readers, probability = np.asarray(image), np.asarray(readers), np.asarray(probability)
    prediction, majority = probability > threshold, metrics.majority(readers[None], readers=slots)[0]
    marked = (readers > 0) | prediction
    close = mask_edges.window(marked, side_px=CLOSE_PX, margin=1.0)
    whole = mask_edges.window(marked, side_px=max(WHOLE_PX, close[1] - close[0], close[3] - close[2]))
    dice = metrics.scores(metrics.confusion(prediction[None], majority[None]))["dice"][0]
    used = [slot for slot in range(8) if (readers >> slot & 1).any()]
    marked_by = {0: "no reader", 1: "1 reader"}.get(len(used), f"{len(used)} readers")
    _show(panels[0], image, whole, title)
    _show(panels[1], image, close, f"{marked_by} marked it")
    empty = "" if majority.any() else " (majority empty)" if slots > 1 else " (nothing to find)"
    _show(panels[2], image, close, f"Dice {dice:.2f}{empty}")
    for slot in used:  # The wider lines are drawn first: where outlines coincide, every colour still shows.
        _outline(panels[1], readers >> slot & 1, READER_COLOURS[slot % 4], 3.4 - 0.8 * (slot % 4))
    shade = np.zeros((*image.shape, 4))
    shade[..., :3], shade[..., 3] = to_rgb(BLUE), _SHADE * probability
    panels[2].imshow(shade, interpolation="nearest")
    _outline(panels[2], majority, _HALO, 4.4)
    _outline(panels[2], majority, "white", 2.6)
    _outline(panels[2], prediction, VERMILLION, 1.4)
    if close != whole:
        top, bottom, left, right = close
        corner, size = (left - 0.5, top - 0.5), (right - left, bottom - top)
        rim = [Stroke(linewidth=2.4, foreground=_HALO), Normal()]
        panels[0].add_patch(Rectangle(corner, *size, fill=False, color="white", ls="--", lw=0.8, path_effects=rim))
    if spacing_mm > 0:  # False for NaN, where the spacing is unknown.
        _scale(panels[0], whole, spacing_mm)
        _scale(panels[1], close, spacing_mm)


def _show(axes: Axes, image: np.ndarray, window: mask_edges.Window, title: str) -> None:
    top, bottom, left, right = window
    axes.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set(xlim=(left - 0.5, right - 0.5), ylim=(bottom - 0.5, top - 0.5), xticks=[], yticks=[])
    axes.set_title(title, fontsize=10, parse_math=False)  # Names may hold what is a formula elsewhere.
    axes.set_xlabel(f"{right - left} px wide", fontsize=8, labelpad=2)


def _scale(axes: Axes, window: mask_edges.Window, spacing_mm: float) -> None:
    """A scale bar of `_SCALE_MM` in the lower left corner."""
    _, bottom, left, right = window
    start, width = left + 0.04 * (right - left), _SCALE_MM / spacing_mm
    x, y = [start, start + width], [bottom - 0.06 * (right - left)] * 2
    rim = [Stroke(linewidth=5, foreground=_HALO), Normal()]
    axes.plot(x, y, color="white", lw=2.5, solid_capstyle="butt", path_effects=rim)
    axes.annotate(
        f"{_SCALE_MM} mm", (x[0], y[0]), xytext=(0, 5), textcoords="offset points", color="white", fontsize=8
    ).set_path_effects([Stroke(linewidth=2, foreground=_HALO), Normal()])


def _outline(axes: Axes, mask: np.ndarray, colour: str, width: float) -> None:
    sides = list(mask_edges.edges(mask))
    axes.add_collection(LineCollection(sides, colors=colour, linewidths=width, capstyle="projecting"))


def legend(threshold: float, slots: int) -> list[Artist]:
    """The legend of `draw_row`. A slot is a position in a nodule's list of readings, not a person: a colour is a
    reading.
    """
    rim = [Stroke(linewidth=4.4, foreground=_HALO), Normal()]
    reference = "majority (≥ 2 readers)" if slots > 1 else "the one reading"
    return [
        *(Line2D([], [], color=c, lw=2.5, label=f"reading {n}") for n, c in enumerate(READER_COLOURS[:slots], start=1)),
        Line2D([], [], color=VERMILLION, lw=2, label=f"prediction (probability > {threshold:g})"),
        Line2D([], [], color="white", lw=2.5, label=reference, path_effects=rim),
        Patch(color=BLUE, alpha=_SHADE, label="predicted probability (shade)"),
    ]
