"""Neighbouring slices as channels (2.5-D): which slices a network is shown together with a slice."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from lungjax.errors import InputError

if TYPE_CHECKING:  # They take long to import, and who predicts does without.
    import pandas as pd

    from lungjax.data.shards import Dataset

WHOLE_SCANS = ("lidc", "luna16", "nifti", "unmarked")
"""Formats of sources with all slices of each scan; the others hold crops around nodules, or a selection of slices."""
_MOST_MARKED_TO_THE_ENDS = 0.5
"""Share of the marked scans whose first and last slices may both be marked: in a whole scan, lungs end in between."""


@dataclasses.dataclass(frozen=True)
class Context:
    """What `config.data.context` and `config.data.context_mm` say.

    Attributes:
      slices: how many slices above, and how many below, are shown with each slice.
      step_mm: how far apart; the nearest slice is taken. 0: neighbouring slices, whatever their distance.
    """

    slices: int = 0
    step_mm: float = 0.0

    @classmethod
    def of(cls, config: Any) -> Context:
        """Of a configuration; those of tasks without context, and of older versions, have none."""
        data = config.get("data", {})
        return cls(int(data.get("context", 0)), float(data.get("context_mm", 0.0)))

    @property
    def planes(self) -> int:
        """Channels of the network's input: the slice itself is the middle one."""
        return 2 * self.slices + 1

    def in_scan(self, count: int, slice_mm: float | None) -> np.ndarray:
        """int64 (count, planes): for each slice of a scan those that are shown, from the lowest; at the scan's ends,
        its last slice is repeated.

        Args:
          count: of the scan's slices, in ascending order.
          slice_mm: distance between them; only needed with a `step_mm`.

        Raises:
          InputError: it is needed, and is not a number above 0.
        """
        if self.slices and self.step_mm and not (slice_mm is not None and 0 < slice_mm < np.inf):
            raise InputError(
                f"The network is shown slices {self.step_mm:g} mm apart (config.data.context_mm), and the distance "
                "between those of hu is not known; give slice_mm, in mm."
            )
        places = np.arange(count)
        return _shown(places, np.full(count, count), self._steps(np.full(count, slice_mm or np.nan)))

    def in_index(self, dataset: Dataset) -> np.ndarray:
        """int64 (rows, planes): for each row of a data set's index the rows that are shown, as `in_scan` has them.

        Raises:
          InputError: the data set does not hold whole scans.
        """
        if self.slices:
            check_whole_scans(dataset)
        index = dataset.index
        slice_mm = index["slice_spacing_mm"].to_numpy(np.float64)
        if self.step_mm and not (slice_mm > 0).all():
            raise InputError(
                f"{dataset.path}: has slices of unknown distance, so that none can be found config.data.context_mm "
                "away; set config.data.context_mm=0 for neighbouring slices."
            )
        scan, place, count = _places(index)
        order = np.lexsort((place, scan))
        first = np.searchsorted(scan[order], scan)  # Where each row's scan begins.
        return order[first[:, None] + _shown(place, count, self._steps(slice_mm))]

    def _steps(self, slice_mm: np.ndarray) -> np.ndarray:
        """int64 (n, planes): how many slices further each plane lies, by the distance (n,) between slices."""
        planes = np.arange(-self.slices, self.slices + 1)
        if not self.step_mm:
            return np.tile(planes, (len(slice_mm), 1))
        return np.rint(planes * self.step_mm / slice_mm[:, None]).astype(np.int64)


NO_CONTEXT = Context()
"""Each slice by itself."""


def check_whole_scans(dataset: Dataset) -> None:
    """Raises InputError where a data set's stacks are crops or selections of slices: where they end is where the marks
    end, so that a network could tell from a repeated slice what it is to find in the image."""
    name = dataset.manifest["source"]["format"]
    advice = "set config.data.context=0, or give whole scans"
    if name not in WHOLE_SCANS:
        raise InputError(
            f"{dataset.path}: has the format {name}, without the slices around those that were marked, and a network "
            f"with config.data.context needs them; {advice} ({', '.join(WHOLE_SCANS)})."
        )
    index = dataset.index
    scan, place, count = _places(index)
    marked = index["readers_marked"].to_numpy() > 0
    first, last = scan[marked & (place == 0)], scan[marked & (place == count - 1)]
    cut, of = len(np.intersect1d(first, last)), len(np.unique(scan[marked]))
    if cut > _MOST_MARKED_TO_THE_ENDS * of:
        raise InputError(
            f"{dataset.path}: {cut} of {of} marked scans are marked in their first and last slice, so they are crops "
            f"around nodules, whose ends would tell a network with config.data.context where these end; {advice}."
        )


def channels(images: Any) -> Any:
    """Images (batch, height, width), or (batch, planes, height, width), as networks take them: planes last."""
    return images[..., None] if images.ndim == 3 else images.transpose(0, 2, 3, 1)


def middle(images: Any) -> Any:
    """(batch, height, width): of images with planes the slice itself."""
    return images if images.ndim == 3 else images[:, images.shape[1] // 2]


def _places(index: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(rows,) each: the number of a row's scan, its place in it from 0, and how many slices the scan has."""
    scan = index.groupby(["patient_id", "series_uid"], sort=False).ngroup().to_numpy()
    order = np.lexsort((index["slice_index"].to_numpy(), scan))
    count = np.bincount(scan)
    place = np.empty(len(index), np.int64)
    place[order] = np.arange(len(index)) - np.searchsorted(scan[order], scan[order])
    return scan, place, count[scan]


def _shown(place: np.ndarray, count: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """(n, planes): places of the slices that are shown with that at `place` (n,) of a scan of `count` (n,) slices."""
    return np.clip(place[:, None] + steps, 0, count[:, None] - 1)
