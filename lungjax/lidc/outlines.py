"""Turns readers' outlines into clusters, masks and consensus, as pylidc 0.2.3 does, without importing it.

LIDC's readers drew along the pixels just outside a nodule, so the outline itself is not part of the mask.
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
      annotation_id: ID in pylidc's database of one reader's annotation of one nodule.
      nodule: index of the nodule in its scan, as `Nodule.index`.
      ratings: nine integers in the order of `RATING_NAMES`.
      z_mm: position of the slice.
      slice_index: number of the slice, counted upwards from 0.
      points: (points, 2) int64 (row, column) on the scanner's 512x512 grid.
      inclusion: False where the curve cuts out a hole.
    """

    annotation_id: int
    nodule: int
    ratings: tuple[int, ...]
    z_mm: float
    slice_index: int
    points: np.ndarray
    inclusion: bool


def indices(outlines: Sequence[Outline]) -> np.ndarray:
    """(points, 3) int64: row, column and slice of every point of the outlines."""
    slices = np.repeat([outline.slice_index for outline in outlines], [len(outline.points) for outline in outlines])
    return np.column_stack([np.concatenate([outline.points for outline in outlines]), slices])


def cluster(points: Sequence[np.ndarray], tolerance: float) -> list[list[int]]:
    """Groups annotations of the same nodule, as pylidc's `Scan.cluster_annotations` does with its defaults.

    Annotations within the tolerance of each other are joined. While a group has more than four, the tolerance is
    reduced, down to 0.1. In the database fourteen groups stay larger (up to eight): nodules that touch, or that a
    reader drew twice.

    Args:
      points: for each annotation (points, 3) integers (row, column, slice).
      tolerance: the initial value. Like pylidc, callers pass the slice thickness in mm, while distances are measured in
        voxel indices.

    Returns:
      Groups of positions in `points`, by increasing mean slice; ascending within a group.
    """
    if not points:
        return []
    labels = _labels(points, tolerance)[-1]
    groups = [np.flatnonzero(labels == label).tolist() for label in range(labels.max() + 1)]
    return sorted(groups, key=lambda group: np.mean([points[member][:, 2].mean() for member in group]))


def oversized_clusters(points: Sequence[np.ndarray], tolerance: float) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Sizes of the groups of more than four annotations, before and after `cluster` reduces its tolerance."""
    if not points:
        return (), ()
    labels = _labels(points, tolerance)
    before, after = (np.sort(np.bincount(numbers)) for numbers in (labels[0], labels[-1]))
    return tuple(before[before > READERS].tolist()), tuple(after[after > READERS].tolist())


def rasterise(outlines: Sequence[Outline]) -> tuple[np.ndarray, tuple[int, int, int]]:
    """The voxels inside one annotation's outlines, as pylidc's `Annotation.boolean_mask`.

    Returns:
      mask: bool (slices, rows, columns), the box around the outlines.
      origin: (slice, row, column) of `mask[0, 0, 0]`.
    """
    low = np.min([(outline.slice_index, *outline.points.min(axis=0)) for outline in outlines], axis=0)
    high = np.max([(outline.slice_index, *outline.points.max(axis=0)) for outline in outlines], axis=0)
    mask = np.zeros(high - low + 1, bool)
    # Holes come last. Each outline's own pixels are cleared in turn; the inside of a later one may set them again.
    for outline in sorted(outlines, key=lambda outline: not outline.inclusion):
        start = outline.points.min(axis=0)
        inside = _inside(outline.points - start)
        row, column = start - low[1:]
        part = mask[outline.slice_index - low[0], row : row + inside.shape[0], column : column + inside.shape[1]]
        part[inside] = outline.inclusion
        part[tuple((outline.points - start).T)] = False
    return mask, tuple(low.tolist())


def coarsen(mask: np.ndarray, origin: tuple[int, int, int], block: int) -> tuple[np.ndarray, tuple[int, int, int]]:
    """The mask on a grid of `block` times larger pixels, set where at least half of the block is set.

    A mask that vanishes becomes one empty voxel at its centre, because the reader did mark the nodule.
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
    """The voxels that at least the share `level` of a nodule's readers marked, as pylidc's `utils.consensus`.

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
    """For each tolerance tried, (annotations,): the number of each annotation's group. The last tolerance counts."""
    distances = _distances(points, tolerance)
    labels = [connected_components(distances <= tolerance, directed=False)[1]]
    while np.bincount(labels[-1]).max() > READERS and tolerance * _SHRINK >= _SMALLEST_TOLERANCE:
        tolerance *= _SHRINK
        labels.append(connected_components(distances <= tolerance, directed=False)[1])
    return labels


def _distances(points: Sequence[np.ndarray], tolerance: float) -> np.ndarray:
    """(annotations, annotations): smallest distance between points; infinite where beyond the tolerance."""
    low = np.array([annotation.min(axis=0) for annotation in points])
    high = np.array([annotation.max(axis=0) for annotation in points])
    gaps = np.maximum(low[:, None] - high[None], low[None] - high[:, None]).max(axis=-1)
    distances = np.full((len(points), len(points)), np.inf)
    trees = [KDTree(annotation) for annotation in points]
    beyond = np.nextafter(tolerance, np.inf)  # Larger distances are not needed.
    for first, second in np.argwhere(np.triu(gaps <= tolerance, 1)).tolist():
        nearest_px, _ = trees[first].query(points[second], distance_upper_bound=beyond)
        distances[first, second] = distances[second, first] = nearest_px.min()
    np.fill_diagonal(distances, 0)
    return distances
