"""What an encoder's features know: a map of slices by two principal components, and each slice's nearest neighbours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.colors import LogNorm

from lungjax.evaluation.plots import training_plots

_WINDOW_HU = (-1000.0, 400.0)
_PATIENTS = 8
"""Patients with a colour of their own: those with the most slices."""
_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#000000")
NEIGHBOURS = 5


def draw_map(features: np.ndarray, patients: Sequence[str], numbers: Mapping[str, np.ndarray], path: Path) -> Path:
    """Draws slices by the first two principal components of their features, a panel for each colouring.

    Args:
      features: (slices, channels); their length is left out, as a contrastive loss leaves it out.
      patients: (slices,).
      numbers: by title, (slices,) that colour a panel; NaN for unknown, in grey. What is above 0 and spans more than a
        factor of 20 is coloured by its logarithm.
      path: the PNG.

    Returns:
      `path`.
    """
    unit = _unit(features)
    centred = unit - unit.mean(axis=0)
    _, sizes, axes_ = np.linalg.svd(centred, full_matrices=False)
    share = sizes**2 / max(np.sum(sizes**2), 1e-12)
    place = centred @ axes_[:2].T
    figure = training_plots.canvas(3.9 * (len(numbers) + 1), 3.9)
    panels = figure.subplots(1, len(numbers) + 1, squeeze=False)[0]
    for axes, (title, values) in zip(panels, numbers.items(), strict=False):
        known = np.isfinite(values)
        axes.scatter(*place[~known].T, s=4, color="0.85")
        if known.any():
            low, high = values[known].min(), values[known].max()
            norm = LogNorm(low, high) if low > 0 and high > 20 * low else None
            dots = axes.scatter(*place[known].T, s=5, c=values[known], cmap="viridis", norm=norm)
            figure.colorbar(dots, ax=axes, shrink=0.8)
        axes.set_title(title, fontsize=10)
    names, counts = np.unique(np.asarray(patients, dtype=str), return_counts=True)
    several = names[np.argsort(-counts, kind="stable")][:_PATIENTS]
    own = [np.asarray(patients) == name for name in several]
    panels[-1].scatter(*place[~np.any(own, axis=0)].T, s=4, color="0.85")
    for mine, colour in zip(own, _COLOURS, strict=False):
        panels[-1].scatter(*place[mine].T, s=6, color=colour)
    panels[-1].set_title(f"{len(several)} patients, a colour each", fontsize=10)
    for axes in panels:
        axes.set(xticks=[], yticks=[])
        axes.set_xlabel(f"first component, {100 * share[0]:.0f} % of the variance", fontsize=8)
        axes.set_ylabel(f"second, {100 * share[1:2].sum():.0f} %", fontsize=8)
    figure.suptitle(f"Features of {len(unit):,} validation slices", fontsize=11)
    return training_plots.save(figure, path)


def nearest(features: np.ndarray, patients: Sequence[str], queries: np.ndarray) -> np.ndarray:
    """(queries, at most `NEIGHBOURS`): for each slice numbered in `queries`, the slices of other patients whose
    features have the greatest cosine, nearest first; of one patient the nearest slice alone."""
    unit, people = _unit(features), np.unique(np.asarray(patients, dtype=str), return_inverse=True)[1]
    cosine = unit[queries] @ unit.T
    found = []
    for own, row in zip(people[queries], cosine, strict=True):
        order = np.argsort(-row, kind="stable")
        order = order[people[order] != own]
        first = np.sort(np.unique(people[order], return_index=True)[1])
        found.append(order[first][:NEIGHBOURS])
    return np.array(found)


def draw_neighbours(hu: np.ndarray, titles: Sequence[Sequence[str]], path: Path) -> Path:
    """Draws a sheet: in each row a slice, then its nearest neighbours.

    Args:
      hu: (rows, 1 + neighbours, height, width), shown from -1000 to 400 HU.
      titles: for each row, one for each slice.
      path: the PNG.

    Returns:
      `path`.
    """
    figure = training_plots.canvas(1.7 * hu.shape[1], 1.95 * hu.shape[0] + 0.4)
    for row, panels in enumerate(figure.subplots(*hu.shape[:2], squeeze=False)):
        for column, axes in enumerate(panels):
            axes.imshow(hu[row, column], cmap="gray", vmin=_WINDOW_HU[0], vmax=_WINDOW_HU[1])
            axes.set(xticks=[], yticks=[])
            axes.set_title(titles[row][column], fontsize=7, parse_math=False)
    figure.suptitle("Validation slices, and beside each the nearest of other patients", fontsize=11)
    return training_plots.save(figure, path)


def _unit(features: np.ndarray) -> np.ndarray:
    features = features.astype(np.float64)
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
