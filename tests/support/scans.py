"""Made-up series with nodules, readers and a model, for tests: whole volumes, and the same slice by slice."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from lungjax.evaluation.segmentation.nodules_3d import Place
from lungjax.evaluation.segmentation.tally import Tally

SHAPE = (5, 14, 16)
SPACING_MM = (1.5, 0.7, 0.8)


@dataclasses.dataclass(frozen=True)
class Series:
    """One nodule in the left half of every slice and one in the right: all fields (slices, rows, columns).

    Attributes:
      patient, name: ids.
      marks: bool (2, 4, slices, rows, columns), of each nodule each reader's.
      prediction: bool.
      probability: float.
    """

    patient: str
    name: str
    marks: np.ndarray
    prediction: np.ndarray
    probability: np.ndarray

    @property
    def readers(self) -> np.ndarray:
        """bool (4, slices, rows, columns): what each marked, of either nodule."""
        return self.marks[0] | self.marks[1]

    @property
    def bits(self) -> np.ndarray:
        """uint8, a bit a reader."""
        return np.packbits(self.readers, axis=0, bitorder="little")[0]

    def nodules(self, number: int) -> tuple[dict[str, Any], ...]:
        """Those of one slice, as a record has them."""
        found = []
        for index, readers in enumerate(self.marks[:, :, number]):
            readings = tuple({"slot": slot, "box": _box(mask)} for slot, mask in enumerate(readers) if mask.any())
            if readings:
                found.append({"index": index, "readings": readings})
        return tuple(found)

    def place(self, number: int, spacing_mm: tuple[float, float, float], corner: tuple[int, int] = (0, 0)) -> Place:
        return Place(self.patient, self.name, number, corner, spacing_mm, self.nodules(number))


def _box(mask: np.ndarray) -> tuple[int, ...]:
    row, column = np.nonzero(mask)
    return int(row.min()), int(row.max()), int(column.min()), int(column.max())


def series(patient: str, name: str, rng: np.random.Generator) -> Series:
    """Balls that readers and the model see alike but for noise; a reader or the model may miss one."""
    where = np.indices(SHAPE).astype(float)
    balls = np.zeros((2, 5, *SHAPE), bool)  # The model's is the last of each.
    for nodule in range(2):
        centre = np.array([2, 7, 3.5 + 8 * nodule]) + rng.uniform(-0.8, 0.8, 3)
        radius = rng.uniform(0.8, 2.6) + rng.normal(0, 0.5, 5)
        radius[rng.random(5) < 0.25] = 0
        for rater in range(5):
            away = where - (centre + rng.normal(0, 0.3, 3)).reshape(3, 1, 1, 1)
            balls[nodule, rater] = np.sqrt((away**2).sum(axis=0)) < radius[rater]
    balls[0, :, :, :, 8:], balls[1, :, :, :, :8] = False, False  # Each keeps to its half.
    prediction = balls[0, 4] | balls[1, 4]
    probability = np.clip(0.7 * prediction + rng.uniform(0, 0.3, SHAPE), 0, 1)
    return Series(patient, name, balls[:, :4], prediction, probability)


def several(number: int, *, patients: int, seed: int = 0) -> list[Series]:
    rng = np.random.default_rng(seed)
    return [series(f"P{rng.integers(patients)}", f"S{n}", rng) for n in range(number)]


def tally_of(
    some: list[Series],
    *,
    spacing_mm: tuple[float, float, float] = SPACING_MM,
    readers: int = 4,
    thresholds: np.ndarray | None = None,
) -> Tally:
    """Every slice, three at a time."""
    tally = Tally(readers=readers, thresholds=thresholds)
    slices = [(one, number) for one in some for number in range(SHAPE[0])]
    for start in range(0, len(slices), 3):
        batch = slices[start : start + 3]
        tally.add(
            np.stack([one.probability[n] for one, n in batch]),
            np.stack([one.prediction[n] for one, n in batch]),
            np.stack([one.bits[n] & np.uint8((1 << readers) - 1) for one, n in batch]),
            [one.place(n, spacing_mm) for one, n in batch],
        )
    tally.finish()
    return tally
