"""What is stored of each scored slice: counts and sums, never the probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lungjax.ct.scan import READERS
from lungjax.evaluation.segmentation import disagreement, overlap_matrix, reliability, surface
from lungjax.evaluation.segmentation.nodules_3d import Nodules, Place
from lungjax.evaluation.segmentation.units import Units


class Tally:
    """A model's scored slices, added batch by batch; the slices of a series must be added one after another.

    Args:
      readers: the number of readers of each scan.

    Attributes:
      slices: the slices so far.
      nodules: the nodules of the finished series.
    """

    def __init__(self, *, readers: int = READERS):
        self.readers = readers
        self.slices = Units(readers)
        self.nodules = Nodules(readers=readers)
        self._pairs = overlap_matrix.pairs_of(readers).all
        self._reliability: list[np.ndarray] = []
        self._ged: list[np.ndarray] = []

    def add(
        self,
        probability: np.ndarray,
        prediction: np.ndarray,
        bits: np.ndarray,
        places: Sequence[Place],
        samples: np.ndarray | None = None,
    ) -> None:
        """Adds slices.

        Args:
          probability: float (slices, rows, columns) in [0, 1].
          prediction: bool, the mask that is scored.
          bits: uint8, the readers' bits.
          places: (slices,), where they come from.
          samples: bool (100, slices, rows, columns), masks drawn from the model; None for a deterministic model.
        """
        masks = overlap_matrix.masks(prediction, bits, readers=self.readers)
        overlaps = overlap_matrix.overlaps(masks)
        for number, place in enumerate(places):
            self.slices.add(
                place.patient,
                overlaps=overlaps[number],
                pixels=bits[number].size,
                surfaces=surface.compare_pairs(list(masks[:, number]), self._pairs, place.spacing_mm[1:]),
            )
            self.nodules.add(prediction[number], bits[number], place)
        self._reliability.append(reliability.bin_sums(probability, bits, readers=self.readers))
        if samples is not None:
            self._ged.append(disagreement.ged2_of_samples(samples, bits, readers=self.readers))

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
