"""Patches of nodules with what readers and a network said of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lungjax.evaluate import plots
from lungjax.evaluate.overlay import BLUE

_WINDOW_HU = (-1000.0, 400.0)
_COLUMNS = 4
_PANEL_INCHES = 2.4


def patches(
    hu: np.ndarray,
    readers: np.ndarray,
    probability: np.ndarray,
    malignancy: np.ndarray,
    titles: Sequence[str],
    path: Path,
) -> None:
    """One sheet of nodules, four in a row: outlines of the readers, the probability given and their own ratings.

    Args:
      hu: (nodules, rows, columns) HU, shown from -1000 to 400.
      readers: uint8 bits (nodules, rows, columns); no outline where none is known.
      probability: (nodules,) in [0, 1], of malignancy.
      malignancy: (nodules, readers), each reader's rating, 0 where there is none.
      titles: (nodules,).
      path: the PNG; its folder is made where missing.
    """
    rows = -(-len(hu) // _COLUMNS)
    figure = plots.canvas(_COLUMNS * _PANEL_INCHES, rows * (_PANEL_INCHES + 0.5) + 0.4)
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
        said = " ".join(str(rating) for rating in ratings if rating) or "none"
        axes.set_title(f"{title}\nP {likely:.2f}, readers {said}", fontsize=8)
    figure.suptitle("Probability of malignancy beside the readers' ratings, 1 to 5", fontsize=10)
    plots.save(figure, path)
