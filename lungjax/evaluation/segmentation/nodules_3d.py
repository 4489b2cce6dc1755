"""Nodules in 3-D: which pixels of a slice are of which nodule, and their slices put together again."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from lungjax.evaluation.segmentation import overlap_matrix, surface
from lungjax.evaluation.segmentation.units import Units

CONVENTIONS = (
    "A nodule is what a source calls one, put together from the slices in which a reader marked it: pixels are "
    "counted over them, then scored; averaged over nodules. In a slice of several nodules every pixel, predicted or "
    "marked, is of the nodule whose marks are nearest to it; where marks of two nodules lie in one another's boxes, "
    "of the smaller. A prediction in a slice without marks is of no nodule; a nodule that a crop leaves out is "
    "missing from that slice."
)


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a scored slice comes from.

    Attributes:
      patient, series: ids.
      slice_index: place in the series.
      corner: (row, column) in the slice of the upper left pixel of what was scored.
      spacing_mm: (slice, row, column); NaN where unknown.
      nodules: those of the slice, as `lungjax.data.records.SliceRecord` has them.
    """

    patient: str
    series: str
    slice_index: int
    corner: tuple[int, int]
    spacing_mm: tuple[float, float, float]
    nodules: Sequence[Mapping[str, Any]]


def territories(bits: np.ndarray, place: Place) -> dict[int, np.ndarray]:
    """Each nodule's part of a slice: the parts are disjoint and together all of it.

    Args:
      bits: uint8 (rows, columns), the readers' bits.
      place: where the slice comes from.

    Returns:
      Of the index of each nodule with a mark here: bool (rows, columns).
    """
    readings = [
        (_area(reading["box"]), nodule["index"], reading["slot"], _inside(reading["box"], place.corner))
        for nodule in place.nodules
        for reading in nodule["readings"]
        if reading["box"] is not None  # One without a pixel.
    ]
    of = np.full(bits.shape, -1)
    for _, index, slot, box in sorted(readings, key=lambda reading: -reading[0]):  # The smallest has the last word.
        of[box][bits[box] >> np.uint8(slot) & 1 != 0] = index
    here = sorted({index for _, index, _, box in readings if (of[box] == index).any()})
    if len(here) < 2:
        return {index: np.ones(bits.shape, bool) for index in here}
    nearest = ndimage.distance_transform_edt(of < 0, return_distances=False, return_indices=True)
    of = of[tuple(np.asarray(nearest))]
    return {index: of == index for index in here}


class Nodules:
    """Adds up slices nodule by nodule; slices of one series must follow each other.

    Attributes:
      units: the nodules of the series that are finished.
      names: series and index of each.
    """

    def __init__(self, *, readers: int):
        self.units = Units(readers)
        self.names: list[tuple[str, int]] = []
        self._readers = readers
        self._pairs = overlap_matrix.pairs_of(readers).all
        self._open: dict[int, list[_View]] = {}
        self._series: str | None = None

    def add(self, prediction: np.ndarray, bits: np.ndarray, place: Place) -> None:
        """One slice: the prediction, bool, and the readers' bits, both (rows, columns)."""
        if place.series != self._series:
            self.finish()
            self._series = place.series
        for index, part in territories(bits, place).items():
            self._open.setdefault(index, []).append(_view(prediction & part, bits * part, place))

    def finish(self) -> None:
        """Closes the nodules of the last series."""
        for index, views in sorted(self._open.items()):
            place = views[0].place
            masks = overlap_matrix.masks(*_volumes(views), readers=self._readers)  # (masks, slices, rows, columns)
            self.names.append((place.series, index))
            self.units.add(
                place.patient,
                # One slice at a time, for the matrices are of float32.
                overlaps=np.sum(
                    [overlap_matrix.overlaps(masks[:, n : n + 1])[0] for n in range(masks.shape[1])], axis=0
                ),
                pixels=sum(view.pixels for view in views),
                surfaces=surface.compare_pairs(list(masks), self._pairs, place.spacing_mm),
            )
        self._open = {}


@dataclasses.dataclass(frozen=True)
class _View:
    """A nodule in one slice: what is predicted or marked there, cut to its box, which begins at `start`."""

    place: Place
    start: tuple[int, int]
    prediction: np.ndarray
    bits: np.ndarray
    pixels: int


def _view(prediction: np.ndarray, bits: np.ndarray, place: Place) -> _View:
    rows, columns = ndimage.find_objects((prediction | (bits != 0)).astype(np.int8))[0]
    start = (place.corner[0] + rows.start, place.corner[1] + columns.start)
    return _View(place, start, prediction[rows, columns], bits[rows, columns], bits.size)


def _volumes(views: Sequence[_View]) -> tuple[np.ndarray, np.ndarray]:
    """Prediction and bits (slices, rows, columns), from the first slice to the last, each view at its place."""
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
    """A reading's box (row_min, row_max, column_min, column_max) as a part of what was cut from the slice."""
    ends = [(box[2 * axis] - corner[axis], box[2 * axis + 1] + 1 - corner[axis]) for axis in range(2)]
    return slice(*(max(end, 0) for end in ends[0])), slice(*(max(end, 0) for end in ends[1]))
