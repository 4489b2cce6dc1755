"""Readers' outlines to clusters, masks and consensus: what pylidc 0.2.3 computes, without importing it.

LIDC's readers drew along the pixels just outside a nodule, so the outline itself is no part of the mask.
Reference: M. C. Hancock and J. F. Magnan, J. Med. Imaging 3(4), 2016, and the package's own code.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from matplotlib.path import Path as Polygon
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from lungjax.ct.scan import READERS, Nodule

_SHRINK = 0.9
_SMALLEST_TOLERANCE = 0.1


@dataclasses.dataclass(frozen=True)
class Outline:
    """One closed curve that one reader drew on one slice.

    Attributes:
      annotation_id: id in pylidc's database: one reader's view of one nodule.
      nodule: index of the nodule in its scan, as `Nodule.index`.
      ratings: nine integers in the order of `RATING_NAMES`.
      z_mm: position of the slice; `slice_index` counts the scan's slices upwards from 0.
      points: (points, 2) int64 (row, column) on the scanner's 512x512 grid.
      inclusion: False where the curve cuts a hole.
    """

    annotation_id: int
    nodule: int
    ratings: tuple[int, ...]
    z_mm: float
    slice_index: int
    points: np.ndarray
    inclusion: bool


def indices(outlines: Sequence[Outline]) -> np.ndarray:
    """(points, 3) int64: row, column and slice of every point of some outlines."""
    slices = np.repeat([one.slice_index for one in outlines], [len(one.points) for one in outlines])
    return np.column_stack([np.concatenate([one.points for one in outlines]), slices])


def cluster(points: Sequence[np.ndarray], tolerance: float) -> list[list[int]]:
    """Which annotations show the same nodule: pylidc's `Scan.cluster_annotations` with its defaults.

    Annotations within the tolerance of each other are joined; while a group has more than four, the
    tolerance shrinks, down to 0.1. Fourteen groups of the database stay larger (up to eight): nodules that
    touch, or that a reader drew twice.

    Args:
      points: for each annotation (points, 3) integers (row, column, slice).
      tolerance: to begin with. pylidc passes the slice thickness in mm and measures distances in voxel
        indices; so does this.

    Returns:
      Groups of positions in `points`, by increasing mean slice; ascending within a group.
    """
    if not points:
        return []
    labels = _labels(points, tolerance)[-1]
    groups = [np.flatnonzero(labels == label).tolist() for label in range(labels.max() + 1)]
    return sorted(groups, key=lambda group: np.mean([points[member][:, 2].mean() for member in group]))


def crowded(points: Sequence[np.ndarray], tolerance: float) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Sizes of the groups of more than four annotations: of `cluster` before its tolerance shrinks, and after."""
    if not points:
        return (), ()
    labels = _labels(points, tolerance)
    before, after = (np.sort(np.bincount(one)) for one in (labels[0], labels[-1]))
    return tuple(before[before > READERS].tolist()), tuple(after[after > READERS].tolist())


def rasterise(outlines: Sequence[Outline]) -> tuple[np.ndarray, tuple[int, int, int]]:
    """The voxels inside one annotation's outlines: pylidc's `Annotation.boolean_mask`.

    Returns:
      mask: bool (slices, rows, columns), the box around the outlines.
      origin: (slice, row, column) of `mask[0, 0, 0]`.
    """
    low = np.min([(one.slice_index, *one.points.min(axis=0)) for one in outlines], axis=0)
    high = np.max([(one.slice_index, *one.points.max(axis=0)) for one in outlines], axis=0)
    mask = np.zeros(high - low + 1, bool)
    # Holes last. Outlines go off one by one: a later inside may turn an earlier outline on again.
    for one in sorted(outlines, key=lambda one: not one.inclusion):
        start = one.points.min(axis=0)
        inside = _inside(one.points - start)
        row, column = start - low[1:]
        part = mask[one.slice_index - low[0], row : row + inside.shape[0], column : column + inside.shape[1]]
        part[inside] = one.inclusion
        part[tuple((one.points - start).T)] = False
    return mask, tuple(low.tolist())


def coarsen(mask: np.ndarray, origin: tuple[int, int, int], block: int) -> tuple[np.ndarray, tuple[int, int, int]]:
    """The mask on a grid of `block` times larger pixels: on where at least half of the block is.

    A mask that vanishes becomes one empty voxel at its centre, for the reader did mark the nodule.
    """
    low = np.array(origin[1:]) // block
    high = -(-(np.array(origin[1:]) + mask.shape[1:]) // block)
    before = np.array(origin[1:]) - low * block
    after = high * block - origin[1:] - mask.shape[1:]
    padded = np.pad(mask, [(0, 0), *zip(before, after, strict=True)])
    rows, columns = high - low
    shares = padded.reshape(len(mask), rows, block, columns, block).mean(axis=(2, 4))
    if not (shares >= 0.5).any():
        centre = (origin[0] + len(mask) // 2, *((low + high) // 2).tolist())
        return np.zeros((1, 1, 1), bool), centre
    return shares >= 0.5, (origin[0], *low.tolist())


def consensus(nodule: Nodule, level: float = 0.5) -> tuple[np.ndarray, tuple[int, int, int]]:
    """The voxels that at least the share `level` of a nodule's readers marked: pylidc's `utils.consensus`.

    Returns:
      mask: bool (slices, rows, columns), the box around all readings.
      origin: (slice, row, column) of `mask[0, 0, 0]`.
    """
    low = np.min([reading.origin for reading in nodule.readings], axis=0)
    high = np.max([np.add(reading.origin, reading.mask.shape) for reading in nodule.readings], axis=0)
    votes = np.zeros(high - low, np.int64)
    for reading in nodule.readings:
        start = np.array(reading.origin) - low
        votes[tuple(map(slice, start, start + reading.mask.shape))] += reading.mask
    return votes / len(nodule.readings) >= level, tuple(low.tolist())


def _inside(points: np.ndarray) -> np.ndarray:
    """bool (rows, columns): pixels inside the closed polygon; `points` begin at row 0 and column 0."""
    shape = points.max(axis=0) + 1
    if (points[0] != points[-1]).any():
        points = np.vstack([points, points[:1]])
    pixels = np.indices(shape).reshape(2, -1).T
    return Polygon(points, closed=True).contains_points(pixels).reshape(shape)


def _labels(points: Sequence[np.ndarray], tolerance: float) -> list[np.ndarray]:
    """(annotations,) number of each one's group, for each tolerance tried; the last is the one that counts."""
    distances = _distances(points, tolerance)
    labels = [connected_components(distances <= tolerance, directed=False)[1]]
    while np.bincount(labels[-1]).max() > READERS and tolerance * _SHRINK >= _SMALLEST_TOLERANCE:
        tolerance *= _SHRINK
        labels.append(connected_components(distances <= tolerance, directed=False)[1])
    return labels


def _distances(points: Sequence[np.ndarray], tolerance: float) -> np.ndarray:
    """(annotations, annotations) smallest distance between points; infinite where beyond the tolerance."""
    low = np.array([one.min(axis=0) for one in points])
    high = np.array([one.max(axis=0) for one in points])
    gaps = np.maximum(low[:, None] - high[None], low[None] - high[:, None]).max(axis=-1)
    distances = np.full((len(points), len(points)), np.inf)
    trees = [KDTree(one) for one in points]
    beyond = np.nextafter(tolerance, np.inf)  # No need to look further.
    for first, second in np.argwhere(np.triu(gaps <= tolerance, 1)).tolist():
        nearest_px, _ = trees[first].query(points[second], distance_upper_bound=beyond)
        distances[first, second] = distances[second, first] = nearest_px.min()
    np.fill_diagonal(distances, 0)
    return distances
