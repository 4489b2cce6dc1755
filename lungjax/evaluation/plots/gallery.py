"""Sheets of nodule patches, with the readers' ratings and a network's predictions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lungjax.evaluation.plots import training_plots
from lungjax.evaluation.plots.overlay import BLUE

_WINDOW_HU = (-1000.0, 400.0)
_COLUMNS = 4
_PANEL_INCHES = 2.4


def draw_patches(
    hu: np.ndarray,
    readers: np.ndarray,
    probability: np.ndarray,
    malignancy: np.ndarray,
    titles: Sequence[str],
    path: Path,
) -> None:
    """Draws a sheet of nodules, four in a row: the readers' outlines, the predicted probability, the readers' ratings.

    Args:
      hu: (nodules, rows, columns) HU, shown from -1000 to 400.
      readers: uint8, the readers' bits (nodules, rows, columns); 0 where no outline is known.
      probability: (nodules,) in [0, 1], of malignancy.
      malignancy: (nodules, readers), each reader's rating, 0 where there is none.
      titles: (nodules,).
      path: the PNG; its folder is made if it does not exist.
    """
    rows = -(-len(hu) // _COLUMNS)
    figure = training_plots.canvas(_COLUMNS * _PANEL_INCHES, rows * (_PANEL_INCHES + 0.5) + 0.4)
    panels = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
    for axes in panels:
        axes.set_axis_off()
    each = zip(panels, hu, readers, probability, malignancy, titles, strict=False)
    for axes, patch, bits, likely, ratings, title in each:
        axes.imshow(patch, cmap="gray", vmin=_WINDOW_HU[0], vmax=_WINDOW_HU[1], interpolation="nearest")
        for slot in range(8):
            mask = (bits >> slot) & 1
            if mask.any():
                axes.contour(mask, levels=[0.5], colors=[BLUE], linewidths=0.8)
        rated = " ".join(str(rating) for rating in ratings if rating) or "none"
        axes.set_title(f"{title}\nP {likely:.2f}, readers {rated}", fontsize=8, parse_math=False)
    figure.suptitle("Predicted probability of malignancy, and the readers' ratings from 1 to 5", fontsize=10)
    training_plots.save(figure, path)


def draw_stacks(hu: np.ndarray, probability: np.ndarray, label: np.ndarray, titles: Sequence[str], path: Path) -> None:
    """Draws one sheet of candidates, a row each: the planes of the stack, the probability, and the label.

    Args:
      hu: (candidates, planes, rows, columns) HU, shown from -1000 to 400.
      probability: (candidates,) in [0, 1], of being a nodule.
      label: (candidates,) 1 or 0.
      titles: (candidates,).
      path: the PNG; its folder is made where missing.
    """
    figure = training_plots.canvas(hu.shape[1] * _PANEL_INCHES, len(hu) * (_PANEL_INCHES + 0.3) + 0.4)
    rows = figure.subplots(len(hu), hu.shape[1], squeeze=False)
    for panels, planes, likely, is_nodule, title in zip(rows, hu, probability, label, titles, strict=True):
        for axes, plane in zip(panels, planes, strict=True):
            axes.imshow(plane, cmap="gray", vmin=_WINDOW_HU[0], vmax=_WINDOW_HU[1], interpolation="nearest")
            axes.set_axis_off()
        text = f"{title}\nP {likely:.2f}, {'nodule' if is_nodule else 'none'}"
        panels[len(panels) // 2].set_title(text, fontsize=8, parse_math=False)
    figure.suptitle("Probability that a candidate is a nodule", fontsize=10)
    training_plots.save(figure, path)


def draw_bags(
    hu: np.ndarray,
    inside: np.ndarray,
    attention: np.ndarray,
    probability: np.ndarray,
    titles: Sequence[str],
    path: Path,
) -> None:
    """Draws a sheet of patients, a row for each: nodules by falling attention, which the bar above each nodule shows.

    Args:
      hu: (patients, nodules, rows, columns) HU.
      inside: (patients, nodules), 0 where the bag is padded.
      attention: (patients, nodules), of sum 1.
      probability: (patients,) in [0, 1], of cancer.
      titles: (patients,).
      path: the PNG; its folder is made if it does not exist.
    """
    columns = max(1, min(int(inside.sum(axis=1).max()), 2 * _COLUMNS))
    figure = training_plots.canvas(columns * 1.7 + 0.6, len(hu) * 2.2 + 0.5)
    rows = figure.subplots(len(hu), columns, squeeze=False)
    each = zip(rows, hu, inside, attention, probability, titles, strict=True)
    for panels, patches_hu, known, weights, likely, title in each:
        order = [int(place) for place in np.argsort(-weights, kind="stable") if known[place] > 0]
        for axes, place in zip(panels, order, strict=False):
            axes.imshow(patches_hu[place], cmap="gray", vmin=_WINDOW_HU[0], vmax=_WINDOW_HU[1], interpolation="nearest")
            axes.set_title(f"{weights[place]:.0%}", fontsize=8, color=BLUE)
            side = patches_hu.shape[-1]
            axes.plot([0, weights[place] * (side - 1)], [-1.5, -1.5], color=BLUE, lw=3, clip_on=False)
        for axes in panels:
            axes.set_axis_off()
        panels[0].text(
            -0.06,
            0.5,
            f"{title}\nP {likely:.2f}",
            parse_math=False,
            transform=panels[0].transAxes,
            rotation=90,
            ha="right",
            va="center",
            fontsize=8,
        )
    figure.suptitle("Predicted probability of cancer, and each nodule's share of the attention", fontsize=10)
    training_plots.save(figure, path)
