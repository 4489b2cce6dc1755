"""Nodules of one scan: the lungs, the network over them, findings, which of them are nodules."""

from __future__ import annotations

import dataclasses
from typing import Protocol

import numpy as np

from lungjax.ct import lungs, morphology
from lungjax.ct.lungs import Lungs
from lungjax.ct.scan import Scan
from lungjax.prediction import candidates, input_checks
from lungjax.prediction.candidates import Candidate
from lungjax.prediction.input_checks import TrainedRange
from lungjax.train.trained import Trained

THRESHOLD = 0.83
"""Score from which a finding is a nodule. The highest, to two digits, that keeps the three nodules of LIDC-IDRI-0003
that four readers marked, with each shipped network: chosen by one scan, for no network has been tried on many.
"""
MOST_NODULES = 255
"""A mask has one byte a voxel."""
WALL_MM = 6.0
"""So far beyond the lungs it is looked, too: nodules at the pleura reach into what is taken for the wall."""


class Network(Protocol):
    """What `lungjax.prediction.sliding_window.Segmenter` does."""

    def volume(self, hu: np.ndarray, region: np.ndarray) -> np.ndarray: ...


@dataclasses.dataclass(frozen=True, eq=False)
class Detection:
    """What was found in a scan.

    Attributes:
      refused: why nothing was looked for, or None.
      nodules, candidates: findings above the threshold, and the rest; by score.
      warnings: what must be known of the scan.
      mask: (slices, rows, columns) uint8, the number of the nodule, from 1 in the order of `nodules`.
    """

    refused: str | None
    nodules: list[Candidate]
    candidates: list[Candidate]
    warnings: list[str]
    mask: np.ndarray


def detect(scan: Scan, trained: Trained, network: Network) -> Detection:
    """Looks for nodules in one scan.

    Args:
      scan: from `lungjax.prediction.sources.read`.
      trained: what the network was trained on.
      network: the network.
    """
    refused, warnings, found = input_checks.refusal(scan, TrainedRange.by(trained)), [], []
    if refused is None:
        seen = lungs.find(scan.voxels, scan.spacing_mm)
        warnings = input_checks.warnings(scan, seen, trained)
        refused = input_checks.no_chest(seen)
        if refused is None:
            probability = network.volume(scan.voxels, _with_wall(seen).mask())
            found = candidates.find(probability, scan.voxels, seen.mask(), scan.spacing_mm)
    count = min(sum(one.score >= THRESHOLD for one in found), MOST_NODULES)
    mask = np.zeros(scan.voxels.shape, np.uint8)
    for number, one in enumerate(found[:count], start=1):
        mask[tuple(one.voxels.T)] = number
    return Detection(refused, found[:count], found[count:], warnings, mask)


def _with_wall(found: Lungs) -> Lungs:
    """The lungs and, in each slice, `WALL_MM` around them."""
    grid = found.grid
    for _ in range(round(WALL_MM / lungs.GRID_MM)):
        grid = morphology.grown(grid, 1, 2)
    return dataclasses.replace(found, grid=grid)
