"""What is stored of each scored slice: counts and sums, never the probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lungjax.ct.scan import READERS
from lungjax.evaluation.segmentation import disagreement, overlap_matrix, reliability, surface
from lungjax.evaluation.segmentation.nodules_3d import Nodules, Place, marked_box
from lungjax.evaluation.segmentation.units import Units


class Tally:
    """A model's scored slices, added batch by batch; the slices of a series must be added one after another.

    Args:
      readers: the number of readers of each scan.
      thresholds: of a model's samples, as for `disagreement.ged2_of_thresholds`; None for a deterministic model.

    Attributes:
      slices: the slices so far.
      nodules: the nodules of the finished series.
    """

    def __init__(self, *, readers: int = READERS, thresholds: np.ndarray | None = None):
        self.readers = readers
        self.slices = Units(readers)
        self.nodules = Nodules(readers=readers)
        self._thresholds = thresholds
        self._pairs = overlap_matrix.pairs_of(readers).all
        self._reliability: list[np.ndarray] = []
        self._ged: list[np.ndarray] = []

    def add(
        self,
        probability: np.ndarray,
        prediction: np.ndarray,
        bits: np.ndarray,
        places: Sequence[Place],
        drawn: np.ndarray | None = None,
    ) -> None:
        """Adds slices.

        Args:
          probability: float (slices, rows, columns) in [0, 1].
          prediction: bool, the mask that is scored.
          bits: uint8, the readers' bits.
          places: (slices,), where they come from.
          drawn: like `probability`, of which samples are what is above a threshold; `probability` itself by default.
        """
        overlaps = overlap_matrix.overlaps(prediction, bits, readers=self.readers)
        for number, place in enumerate(places):
            self.slices.add(
                place.patient,
                overlaps=overlaps[number],
                pixels=bits[number].size,
                surfaces=self._surfaces(prediction[number], bits[number], place),
            )
            self.nodules.add(prediction[number], bits[number], place)
        self._reliability.append(reliability.bin_sums(probability, bits, readers=self.readers))
        if self._thresholds is not None:
            sampled = probability if drawn is None else drawn
            ged = disagreement.ged2_of_thresholds(sampled, self._thresholds, bits, readers=self.readers)
            self._ged.append(ged)

    def _surfaces(self, prediction: np.ndarray, bits: np.ndarray, place: Place) -> np.ndarray:
        """`surface.compare_pairs` of a slice, from the box of what is predicted or marked."""
        box = marked_box(prediction, bits)
        masks = overlap_matrix.masks(prediction[box], bits[box], readers=self.readers)
        return surface.compare_pairs(masks, self._pairs, place.spacing_mm[1:], start=[side.start for side in box])

    def finish(self) -> None:
        """Must be called after the last slice."""
        self.nodules.finish()

    @property
    def reliability(self) -> np.ndarray:
        """float64 (slices, 3 * reliability.BINS)."""
        return np.concatenate(self._reliability)

    @property
    def ged(self) -> np.ndarray | None:
        """float64 (len(disagreement.SAMPLES), slices), GED^2 of the samples; None for a deterministic model."""
        return np.concatenate(self._ged, axis=1) if self._ged else None
