"""One whole scan: what was found in it beside what its readers outlined."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from lungjax import metrics
from lungjax.ct import lungs
from lungjax.ct.scan import Scan
from lungjax.evaluation.detection import reference
from lungjax.evaluation.detection.narrowing import Narrowed, rank
from lungjax.evaluation.detection.reference import ReferenceNodule
from lungjax.evaluation.plots.nodule_sheet import NoduleView
from lungjax.prediction import detection
from lungjax.prediction.candidate_classifier import CandidateClassifier
from lungjax.prediction.candidates import Candidate
from lungjax.prediction.detection import Network
from lungjax.prediction.outputs import report_json
from lungjax.train.trained import Trained

VIEW_MM = 60.0
"""Side of the view around a nodule that is kept for a picture."""


@dataclasses.dataclass(frozen=True, eq=False)
class ScoredScan:
    """What is kept of a scan.

    Attributes:
      key: names it, unique.
      patient_id: whose it is.
      refused: why nothing was looked for, or None.
      at_mm: float64 (candidates, 3) centre of each candidate: to the patient's left, back and head.
      scores: float64 (candidates,), falling.
      nodules: a dict for each nodule, for JSON, see `_told`.
      narrowed: its slices, for `lungjax.evaluation.detection.narrowing`.
      views: of each nodule.
    """

    key: str
    patient_id: str
    refused: str | None
    at_mm: np.ndarray
    scores: np.ndarray
    nodules: list[dict[str, Any]]
    narrowed: Narrowed
    views: list[NoduleView]


def score(
    scan: Scan,
    key: str,
    trained: Trained,
    network: Network,
    *,
    classifier: CandidateClassifier | None,
    threshold: float,
    least_readers: int,
) -> ScoredScan:
    """Looks for nodules in a scan whose readers' outlines are known.

    Args:
      scan: with its `nodules`.
      key: a name for it.
      trained, network, classifier, threshold: as for `lungjax.prediction.detection.detect`.
      least_readers: who must have outlined a nodule that is to be found.
    """
    found = detection.detect(scan, trained, network, classifier=classifier, threshold=threshold)
    every = [*found.nodules, *found.candidates]
    number = np.zeros(scan.voxels.shape, np.uint16)  # Of the candidate, from 1.
    for at, one in enumerate(every, start=1):
        number[tuple(one.voxels.T)] = at
    affine = report_json.affine_of(scan)
    at_mm = np.array([_to_mm(one.centre_voxel, affine) for one in every]).reshape(-1, 3)
    scores = np.array([one.score for one in every], np.float64)
    marked = reference.reference_nodules(scan)
    told = [
        {
            "scan": key,
            "patient_id": scan.patient_id,
            **_told(one, _to_mm(one.centre_voxel, affine), at_mm, scores),
            "wanted": one.wanted(least_readers),
            "dice": _dice(one, number, every),
        }
        for one in marked
    ]
    return ScoredScan(
        key,
        scan.patient_id,
        found.refused,
        at_mm,
        scores,
        told,
        _narrowed(scan, found.refused, every, len(found.nodules), marked),
        [_view(scan, one, number, len(found.nodules), said) for one, said in zip(marked, told, strict=True)],
    )


def _to_mm(voxel: np.ndarray, affine: np.ndarray) -> np.ndarray:
    return (affine @ (*voxel[::-1], 1.0))[:3]


def _told(one: ReferenceNodule, centre_mm: np.ndarray, at_mm: np.ndarray, scores: np.ndarray) -> dict[str, Any]:
    """A nodule, and the `rank` of the best candidate whose centre lies within its radius: from 1, or None."""
    apart_mm = np.linalg.norm(at_mm - centre_mm, axis=1)
    hits = np.flatnonzero(apart_mm < one.diameter_mm / 2)
    return {
        "index": one.index,
        "readers": one.readers,
        "centre_mm": [round(float(mm), 2) for mm in centre_mm],
        "diameter_mm": round(one.diameter_mm, 1),
        "middle_slice": one.middle,
        "rank": int(hits[0]) + 1 if len(hits) else None,
        "score": round(float(scores[hits[0]]), 4) if len(hits) else None,
    }


def _dice(one: ReferenceNodule, number: np.ndarray, every: Sequence[Candidate]) -> float:
    """3-D Dice of the majority of the readers who outlined a nodule and the candidate that has most of it; 0 where no
    candidate has any of it, also where the readers agree on no voxel.
    """
    majority = metrics.majority_of_votes(one.votes, readers=one.readers)
    shared = np.bincount(number[one.box][majority], minlength=1)
    shared[0] = 0
    best = int(shared.argmax())
    if not shared[best]:
        return 0.0
    return round(float(metrics.dice(shared[best], len(every[best - 1].voxels) + majority.sum())), 3)


def _narrowed(
    scan: Scan, refused: str | None, every: Sequence[Candidate], nodules: int, marked: Sequence[ReferenceNodule]
) -> Narrowed:
    count = len(scan.voxels)
    lung_mm2 = np.zeros(count) if refused else lungs.find_lungs(scan.voxels, scan.spacing_mm).area_mm2()
    touched, sure = np.zeros(count, bool), np.zeros(count, bool)
    for place, one in enumerate(every):
        first, last = one.slices
        touched[first : last + 1] = True
        sure[first : last + 1] |= place < nodules
    return Narrowed(
        rank=rank(
            np.array([one.score for one in every]),
            np.array([one.slices for one in every], np.int64).reshape(-1, 2),
            np.array([one.widest for one in every], np.int64),
            lung_mm2,
        ),
        stages={"all": np.ones(count, bool), "lungs": lung_mm2 > 0, "findings": touched, "nodules": sure},
        marked=np.array([one.in_slices(count) for one in marked], bool).reshape(-1, count),
        centre=np.array([one.middle for one in marked], np.int64),
        readers=np.array([one.readers for one in marked], np.int64),
    )


def _view(scan: Scan, one: ReferenceNodule, number: np.ndarray, nodules: int, told: dict[str, Any]) -> NoduleView:
    pixel_mm = scan.spacing_mm[1]
    half_px = round(VIEW_MM / 2 / pixel_mm) if np.isfinite(pixel_mm) else scan.voxels.shape[1]
    box = tuple(slice(max(round(at) - half_px, 0), round(at) + half_px + 1) for at in one.centre_voxel[1:].tolist())
    labels = number[one.middle][box]
    return NoduleView(
        hu=scan.voxels[one.middle][box].copy(),
        readers=scan.slice_reader_bits(one.middle)[box],
        found=(labels > 0) & (labels <= nodules),
        candidates=labels > nodules,
        pixel_mm=float(pixel_mm),
        told=told,
    )
