"""Pictures of a training run: curves over its steps, predictions next to the readers' outlines, SimCLR's pairs.

Everything is drawn on `Figure` objects, without pyplot's global state, so it can run in any thread.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from lungjax.ct.scan import READERS
from lungjax.evaluation.plots import overlay
from lungjax.evaluation.plots.overlay import BLUE, VERMILLION

CURVES = ("loss", "accuracy", "precision", "dice", "auc")
_DPI = 110
_PANEL_INCHES = 3.4


def curves(metrics_jsonl: Path, folder: Path) -> list[Path]:
    """Draws loss, accuracy, precision, Dice and AUC over the steps, a figure each, with training and validation.

    Args:
      metrics_jsonl: lines like `{"step": 100, "train/loss": 0.3, "val/dice": 0.6}`. An incomplete line, as a killed
        process leaves it, is ignored; of two lines for the same step, the later one counts.
      folder: made if it does not exist; `loss.png`, `accuracy.png`, `precision.png`, `dice.png` and `auc.png` are
        written into it, each only if its quantity was logged.

    Returns:
      The files written.
    """
    logged = series(metrics_jsonl)
    contrastive = bool(logged["train/alignment"] or logged["val/alignment"])
    written = []
    for quantity in CURVES:
        lines = {part: logged[f"{part}/{quantity}"] for part in ("train", "val")}
        if not any(lines.values()):
            continue
        label = _label(quantity, contrastive=contrastive)
        written.append(save(_curve(lines, label, best=min if quantity == "loss" else max), folder / f"{quantity}.png"))
    return written


def _label(quantity: str, *, contrastive: bool) -> str:
    if contrastive:
        return {"loss": "NT-Xent loss (nats)", "accuracy": "contrastive top-1 accuracy"}.get(quantity, quantity)
    return {"accuracy": "accuracy (share of pixels)", "dice": "Dice", "auc": "ROC AUC"}.get(quantity, quantity)


def series(metrics_jsonl: Path) -> defaultdict[str, dict[int, float]]:
    """Each figure's finite values by step, by its name, for instance `val/dice`; lines are read as in `curves`."""
    logged: defaultdict[str, dict[int, float]] = defaultdict(dict)
    for line in metrics_jsonl.read_text(errors="replace").splitlines():
        try:
            figures = json.loads(line)
        except json.JSONDecodeError:
            continue
        for name, value in figures.items() if isinstance(figures, dict) and "step" in figures else ():
            if isinstance(value, int | float) and math.isfinite(value):
                logged[name][figures["step"]] = value
    return logged


def _curve(lines: dict[str, dict[int, float]], label: str, *, best) -> Figure:
    figure = canvas(6.4, 4.0)
    axes = figure.subplots()
    if points := sorted(lines["train"].items()):
        steps, values = np.array(points).T
        crowded = len(points) > 60
        axes.plot(steps, values, color=BLUE, lw=1, alpha=0.3 if crowded else 1, label=None if crowded else "train")
        if crowded:
            axes.plot(steps, _running_mean(values, 21), color=BLUE, lw=1.8, label="train (mean of 21 points)")
    if points := sorted(lines["val"].items()):
        steps, values = np.array(points).T
        axes.plot(steps, values, color=VERMILLION, lw=1.5, marker="o", ms=4, label="validation")
        step, value = best(points, key=lambda point: point[1])
        label_of_best = f"best: {value:.4g} at step {step:,.0f}"
        axes.plot(step, value, "o", ms=10, mfc="none", mec="black", label=label_of_best)
    axes.set(xlabel="training step", ylabel=label, title=f"{label[0].upper()}{label[1:]}")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure


def _running_mean(values: np.ndarray, width: int) -> np.ndarray:
    """The centred mean of `width` points; of fewer at the ends."""
    ones = np.ones(width)
    return np.convolve(values, ones, "same") / np.convolve(np.ones_like(values), ones, "same")


def draw_slices(
    images: np.ndarray,
    readers: np.ndarray,
    probability: np.ndarray,
    titles: list[str],
    path: Path,
    *,
    threshold: float = 0.5,
    spacing_mm: Sequence[float] | None = None,
    slots: int = READERS,
) -> None:
    """Draws a sheet with a row for each slice: image | readers' outlines | prediction and majority, with their Dice.

    The first panel shows the whole image, or the 128 px around the marks where the image is larger. The other two
    panels show a part of it enlarged, which a dashed frame marks in the first.

    Args:
      images: float (slices, rows, columns) in [0, 1].
      readers: uint8 (slices, rows, columns), the readers' bits.
      probability: float (slices, rows, columns) in [0, 1].
      titles: (slices,), each row's title, for instance patient and slice.
      path: the PNG; its folder is made if it does not exist.
      threshold: a pixel is predicted to be nodule where its probability is above this.
      spacing_mm: (slices,), between pixel centres in a row, for a scale bar; NaN, or None for all, where it is unknown.
      slots: the number of readers of each scan; the majority of one reader is that reader's mask.

    Raises:
      ValueError: there is nothing to draw, or the numbers of slices differ.
    """
    if not len(images) == len(readers) == len(probability) == len(titles) > 0:
        lengths = (len(images), len(readers), len(probability), len(titles))
        raise ValueError(f"expected equal numbers of images, reader masks, probabilities and titles, got {lengths}")
    figure = canvas(3 * _PANEL_INCHES, len(images) * (_PANEL_INCHES + 0.25) + 0.6)
    rows = figure.subplots(len(images), 3, squeeze=False)
    known_mm = [math.nan] * len(images) if spacing_mm is None else spacing_mm
    for panels, image, bits, likely, title, mm in zip(
        rows, images, readers, probability, titles, known_mm, strict=True
    ):
        overlay.draw_row(panels, image, bits, likely, title=title, threshold=threshold, spacing_mm=mm, slots=slots)
    handles = overlay.legend(threshold, slots)
    figure.legend(handles=handles, loc="outside upper center", ncols=4, frameon=False, fontsize=9)
    save(figure, path)


def draw_pairs(views_a: np.ndarray, views_b: np.ndarray, path: Path, *, columns: int = 8) -> None:
    """Draws a sheet of SimCLR pairs: two rows of views; the views in a column are of the same slice.

    Args:
      views_a, views_b: float (slices, rows, columns), or with a last axis of one channel; all are shown with the same
        grey scale, from the smallest to the greatest value of both.
      path: the PNG; its folder is made if it does not exist.
      columns: the greatest number of pairs.
    """
    views = np.stack([views_a, views_b])[:, :columns]  # (2, pairs, rows, columns), perhaps with a channel
    views = views[..., 0] if views.ndim == 5 else views
    grey = {"cmap": "gray", "vmin": views.min(), "vmax": views.max(), "interpolation": "nearest"}
    figure = canvas(1.6 * views.shape[1] + 0.4, 3.8)
    for row, panels in enumerate(figure.subplots(2, views.shape[1], squeeze=False)):
        for pair, axes in enumerate(panels):
            axes.imshow(views[row, pair], **grey)
            axes.set(xticks=[], yticks=[])
            axes.set_title(f"pair {pair + 1}" if row == 0 else "", fontsize=9)
        panels[0].set_ylabel(f"view {'ab'[row]}")
    figure.suptitle("SimCLR pairs: two augmented views of each slice", fontsize=11)
    save(figure, path)


def canvas(width_inches: float, height_inches: float) -> Figure:
    """An empty figure with automatic layout."""
    figure = Figure(figsize=(width_inches, height_inches), dpi=_DPI)
    figure.set_layout_engine("constrained", h_pad=0.08)  # In inches; separates a caption from the title below it.
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: Path) -> Path:
    """Writes the PNG completely or not at all: whoever looks while a run writes sees the old picture or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        figure.savefig(temporary, format="png")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)  # The disk is full, say.
    return path
