"""Nodules of one scan: the lungs, the network over them, candidates, their scores, and which are nodules."""

from __future__ import annotations

import dataclasses
from typing import Protocol

import numpy as np

from lungjax.ct import lungs, morphology
from lungjax.ct.lungs import Lungs
from lungjax.ct.scan import Scan
from lungjax.prediction import candidates, input_checks, patches
from lungjax.prediction.candidate_classifier import CandidateClassifier
from lungjax.prediction.candidates import Candidate
from lungjax.prediction.input_checks import TrainedRange
from lungjax.train.trained import Trained

MOST_NODULES = 255
"""A mask has one byte a voxel."""
WALL_MM = 6.0
"""The network looks this far beyond the lungs, too: nodules at the pleura reach into what is taken for the wall."""


class Network(Protocol):
    """What `lungjax.prediction.sliding_window.Segmenter` does."""

    def volume(self, hu: np.ndarray, region: np.ndarray, *, slice_mm: float | None = None) -> np.ndarray: ...


@dataclasses.dataclass(frozen=True, eq=False)
class Detection:
    """Nodules and candidates of a scan.

    Attributes:
      refused: why the scan was not looked at, or None.
      nodules, candidates: the candidates from the threshold on, and the rest; by falling score.
      warnings: sentences that must be known to read the rest.
      mask: (slices, rows, columns) uint8, the number of the nodule, from 1 in the order of `nodules`.
      lungs: that were looked at; None where the scan was refused.
    """

    refused: str | None
    nodules: list[Candidate]
    candidates: list[Candidate]
    warnings: list[str]
    mask: np.ndarray
    lungs: Lungs | None


def detect(
    scan: Scan,
    trained: Trained,
    network: Network,
    *,
    classifier: CandidateClassifier | None,
    threshold: float,
) -> Detection:
    """Looks for nodules in one scan.

    Args:
      scan: from `lungjax.prediction.sources.read`.
      trained: what the network was trained on.
      network: the network, which proposes candidates.
      classifier: gives each its score; without one, the score is the mean probability of a candidate's voxels.
      threshold: the score from which a candidate is a nodule.
    """
    refused, warnings, ranked = input_checks.refusal(scan, TrainedRange.by(trained)), [], []
    lung = None
    if refused is None:
        lung = lungs.find_lungs(scan.voxels, scan.spacing_mm)
        warnings = input_checks.warnings(scan, lung, trained)
        refused = input_checks.no_chest(lung)
        if refused is None:
            probability = network.volume(scan.voxels, with_wall(lung).mask(), slice_mm=scan.spacing_mm[0])
            ranked = candidates.ranked_candidates(probability, scan.voxels, lung.mask(), scan.spacing_mm)
            if classifier is not None:
                ranked = _rescored(ranked, scan, classifier)
    count = min(sum(candidate.score >= threshold for candidate in ranked), MOST_NODULES)
    mask = np.zeros(scan.voxels.shape, np.uint8)
    for number, nodule in enumerate(ranked[:count], start=1):
        mask[tuple(nodule.voxels.T)] = number
    return Detection(refused, ranked[:count], ranked[count:], warnings, mask, None if refused else lung)


def _rescored(proposed: list[Candidate], scan: Scan, classifier: CandidateClassifier) -> list[Candidate]:
    """The candidates with the classifier's probability as their score, by falling score."""
    slice_mm, row_mm, _ = scan.spacing_mm
    stacks = patches.cut_stacks(scan.voxels, proposed, slice_mm)
    probability = classifier.predict(stacks, np.full(len(proposed), row_mm)).tolist()
    rescored = [
        dataclasses.replace(candidate, score=score) for candidate, score in zip(proposed, probability, strict=True)
    ]
    return sorted(rescored, key=lambda candidate: -candidate.score)


def with_wall(lung: Lungs) -> Lungs:
    """The lungs and, in each slice, `WALL_MM` around them."""
    grid = lung.grid
    for _ in range(round(WALL_MM / lungs.GRID_MM)):
        grid = morphology.dilate(grid, 1, 2)
    return dataclasses.replace(lung, grid=grid)
