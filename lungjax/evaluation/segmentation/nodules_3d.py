"""Nodules in 3-D: which pixels of a slice belong to which nodule, and a nodule's slices put together."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from lungjax.evaluation.segmentation import overlap_matrix, surface
from lungjax.evaluation.segmentation.units import Units

CONVENTIONS = (
    "A nodule is what the source calls a nodule, put together from the slices in which a reader marked it: pixels are "
    "counted over these slices, then scored; scores are averaged over nodules. In a slice with several nodules every "
    "pixel, predicted or marked, belongs to the nodule whose marks are nearest; where the boxes of two nodules' marks "
    "overlap, to the smaller one. A prediction in a slice without marks belongs to no nodule; a nodule outside the "
    "crop is missing from that slice."
)


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a scored slice comes from.

    Attributes:
      patient, series: ids.
      slice_index: its index in the series.
      corner: (row, column) of the scored crop's upper left pixel in the slice.
      spacing_mm: (slice, row, column); NaN where unknown.
      nodules: the slice's nodules, as `lungjax.data.records.SliceRecord` has them.
    """

    patient: str
    series: str
    slice_index: int
    corner: tuple[int, int]
    spacing_mm: tuple[float, float, float]
    nodules: Sequence[Mapping[str, Any]]


def territories(bits: np.ndarray, place: Place) -> dict[int, np.ndarray]:
    """Each nodule's part of a slice; the parts are disjoint and cover the whole slice.

    Args:
      bits: uint8 (rows, columns), the readers' bits.
      place: where the slice comes from.

    Returns:
      By the index of each nodule with a mark in this slice: bool (rows, columns).
    """
    readings = [
        (_area(reading["box"]), nodule["index"], reading["slot"], _inside(reading["box"], place.corner))
        for nodule in place.nodules
        for reading in nodule["readings"]
        if reading["box"] is not None  # None for a reading without a pixel.
    ]
    nodule_at = np.full(bits.shape, -1)
    # The smallest box comes last, so that it wins where boxes overlap.
    for _, index, slot, box in sorted(readings, key=lambda reading: -reading[0]):
        nodule_at[box][bits[box] >> np.uint8(slot) & 1 != 0] = index
    present = sorted({index for _, index, _, box in readings if (nodule_at[box] == index).any()})
    if len(present) < 2:
        return {index: np.ones(bits.shape, bool) for index in present}
    nearest = ndimage.distance_transform_edt(nodule_at < 0, return_distances=False, return_indices=True)
    nodule_at = nodule_at[tuple(np.asarray(nearest))]
    return {index: nodule_at == index for index in present}


class Nodules:
    """Collects slices nodule by nodule; the slices of a series must be added one after another.

    Attributes:
      units: the nodules of the finished series.
      names: series and index of each nodule.
    """

    def __init__(self, *, readers: int):
        self.units = Units(readers)
        self.names: list[tuple[str, int]] = []
        self._readers = readers
        self._pairs = overlap_matrix.pairs_of(readers).all
        self._open: dict[int, list[_View]] = {}
        self._series: str | None = None

    def add(self, prediction: np.ndarray, bits: np.ndarray, place: Place) -> None:
        """Adds a slice: the prediction, bool, and the readers' bits, uint8, both (rows, columns)."""
        if place.series != self._series:
            self.finish()
            self._series = place.series
        for index, part in territories(bits, place).items():
            self._open.setdefault(index, []).append(_view(prediction & part, bits * part, place))

    def finish(self) -> None:
        """Closes the nodules of the last series."""
        for index, views in sorted(self._open.items()):
            place = views[0].place
            prediction, bits = _volumes(views)
            masks = overlap_matrix.masks(prediction, bits, readers=self._readers)  # (masks, slices, rows, columns)
            self.names.append((place.series, index))
            self.units.add(
                place.patient,
                overlaps=overlap_matrix.overlaps(prediction[None], bits[None], readers=self._readers)[0],
                pixels=sum(view.pixels for view in views),
                surfaces=surface.compare_pairs(masks, self._pairs, place.spacing_mm),
            )
        self._open = {}


@dataclasses.dataclass(frozen=True)
class _View:
    """A nodule in one slice, cropped to the box of what is predicted or marked; the box begins at `start`."""

    place: Place
    start: tuple[int, int]
    prediction: np.ndarray
    bits: np.ndarray
    pixels: int


def marked_box(prediction: np.ndarray, bits: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns of what is predicted or marked in a slice; empty where nothing is."""
    boxes = ndimage.find_objects((prediction | (bits != 0)).astype(np.int8))
    return boxes[0] if boxes else (slice(0, 0), slice(0, 0))


def _view(prediction: np.ndarray, bits: np.ndarray, place: Place) -> _View:
    rows, columns = marked_box(prediction, bits)
    start = (place.corner[0] + rows.start, place.corner[1] + columns.start)
    return _View(place, start, prediction[rows, columns], bits[rows, columns], bits.size)


def _volumes(views: Sequence[_View]) -> tuple[np.ndarray, np.ndarray]:
    """Prediction and bits (slices, rows, columns), from the first slice to the last, each view in its position."""
    starts = np.array([(view.place.slice_index, *view.start) for view in views])
    stops = starts + [(1, *view.bits.shape) for view in views]
    first = starts.min(axis=0)
    prediction = np.zeros(stops.max(axis=0) - first, bool)
    bits = np.zeros(prediction.shape, np.uint8)
    for view, start, stop in zip(views, starts - first, stops - first, strict=True):
        box = tuple(slice(*ends) for ends in zip(start, stop, strict=True))
        prediction[box], bits[box] = view.prediction, view.bits
    return prediction, bits


def _area(box: Sequence[int]) -> int:
    return (box[1] - box[0] + 1) * (box[3] - box[2] + 1)


def _inside(box: Sequence[int], corner: tuple[int, int]) -> tuple[slice, slice]:
    """A reading's box (row_min, row_max, column_min, column_max) in the coordinates of the crop."""
    ends = [(box[2 * axis] - corner[axis], box[2 * axis + 1] + 1 - corner[axis]) for axis in range(2)]
    return slice(*(max(end, 0) for end in ends[0])), slice(*(max(end, 0) for end in ends[1]))
