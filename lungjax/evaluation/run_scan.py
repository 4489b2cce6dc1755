"""One whole scan: its candidates compared with its readers' outlines."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from lungjax import metrics
from lungjax.ct import lungs
from lungjax.ct.scan import Scan
from lungjax.evaluation.detection import reference
from lungjax.evaluation.detection.narrowing import Narrowed, rank_slices
from lungjax.evaluation.detection.reference import ReferenceNodule
from lungjax.evaluation.plots.nodule_sheet import NoduleView
from lungjax.prediction import detection, nodule_type
from lungjax.prediction.candidate_classifier import CandidateClassifier
from lungjax.prediction.candidates import Candidate
from lungjax.prediction.detection import Network
from lungjax.prediction.outputs import report_json
from lungjax.train.trained import Trained

VIEW_MM = 60.0
"""Side of the view around a nodule that is kept for a picture."""


@dataclasses.dataclass(frozen=True, eq=False)
class ScoredScan:
    """The figures of one scan, and the pictures of its nodules.

    Attributes:
      key: a unique name for the scan.
      patient_id: the patient's ID.
      refused: why the segmenter refused the scan, or None.
      centres_mm: float64 (candidates, 3), the centre of each candidate: to the patient's left, back and head.
      scores: float64 (candidates,), in descending order.
      nodules: a dict for each reference nodule, for JSON, see `_nodule_as_json`.
      narrowed: its slices, for `lungjax.evaluation.detection.narrowing`.
      views: a view of each reference nodule.
    """

    key: str
    patient_id: str
    refused: str | None
    centres_mm: np.ndarray
    scores: np.ndarray
    nodules: list[dict[str, Any]]
    narrowed: Narrowed
    views: list[NoduleView]


def score_scan(
    scan: Scan,
    key: str,
    trained: Trained,
    network: Network,
    *,
    classifier: CandidateClassifier | None,
    threshold: float,
    least_readers: int,
) -> ScoredScan:
    """Detects nodules in a scan whose readers' outlines are known, and scores them.

    Args:
      scan: with its `nodules`.
      key: a unique name for the scan.
      trained, network, classifier, threshold: as for `lungjax.prediction.detection.detect`.
      least_readers: how many readers must have outlined a nodule for it to be a reference nodule.
    """
    detected = detection.detect(scan, trained, network, classifier=classifier, threshold=threshold)
    candidates = [*detected.nodules, *detected.candidates]  # Nodules are the candidates above the operating point.
    labels = np.zeros(scan.voxels.shape, np.uint16)  # The number of the candidate at each voxel, from 1; 0 for none.
    for label, candidate in enumerate(candidates, start=1):
        labels[tuple(candidate.voxels.T)] = label
    affine = report_json.affine_of(scan)
    centres_mm = np.array([_to_mm(candidate.centre_voxel, affine) for candidate in candidates]).reshape(-1, 3)
    scores = np.array([candidate.score for candidate in candidates], np.float64)
    references = reference.reference_nodules(scan)
    as_json = [
        {
            "scan": key,
            "patient_id": scan.patient_id,
            **_nodule_as_json(nodule, _to_mm(nodule.centre_voxel, affine), centres_mm, scores),
            "wanted": nodule.wanted(least_readers),
            "dice": _best_dice(nodule, labels, candidates),
        }
        for nodule in references
    ]
    kept = len(detected.nodules)
    return ScoredScan(
        key,
        scan.patient_id,
        detected.refused,
        centres_mm,
        scores,
        as_json,
        _narrowed(scan, detected.refused, candidates, kept, references),
        [_view(scan, nodule, labels, kept, figures) for nodule, figures in zip(references, as_json, strict=True)],
    )


def _to_mm(voxel: np.ndarray, affine: np.ndarray) -> np.ndarray:
    return (affine @ (*voxel[::-1], 1.0))[:3]


def _nodule_as_json(
    nodule: ReferenceNodule, centre_mm: np.ndarray, candidates_mm: np.ndarray, scores: np.ndarray
) -> dict[str, Any]:
    """A nodule, and the `rank` of the best candidate whose centre lies within its radius: from 1, or None."""
    distances_mm = np.linalg.norm(candidates_mm - centre_mm, axis=1)
    hits = np.flatnonzero(distances_mm < nodule.diameter_mm / 2)
    return {
        "index": nodule.index,
        "readers": nodule.readers,
        "centre_mm": [round(float(mm), 2) for mm in centre_mm],
        "diameter_mm": round(nodule.diameter_mm, 1),
        "type": None if nodule.texture is None else nodule_type.of_readers(nodule.texture),
        "middle_slice": nodule.middle,
        "rank": int(hits[0]) + 1 if len(hits) else None,
        "score": round(float(scores[hits[0]]), 4) if len(hits) else None,
    }


def _best_dice(nodule: ReferenceNodule, labels: np.ndarray, candidates: Sequence[Candidate]) -> float:
    """3-D Dice of the candidate that overlaps a nodule most, against the majority of the readers who outlined the
    nodule; 0 where no candidate overlaps it, or where no two of these readers agree on a voxel.
    """
    majority = metrics.majority_of_votes(nodule.votes, readers=nodule.readers)
    shared = np.bincount(labels[nodule.box][majority], minlength=1)
    shared[0] = 0
    best = int(shared.argmax())
    if not shared[best]:
        return 0.0
    return round(float(metrics.dice(shared[best], len(candidates[best - 1].voxels) + majority.sum())), 3)


def _narrowed(
    scan: Scan,
    refused: str | None,
    candidates: Sequence[Candidate],
    kept: int,
    references: Sequence[ReferenceNodule],
) -> Narrowed:
    """The first `kept` candidates are nodules."""
    count = len(scan.voxels)
    lung_mm2 = np.zeros(count) if refused else lungs.find_lungs(scan.voxels, scan.spacing_mm).area_mm2()
    with_candidate, with_nodule = np.zeros(count, bool), np.zeros(count, bool)
    for place, candidate in enumerate(candidates):
        first, last = candidate.slices
        with_candidate[first : last + 1] = True
        with_nodule[first : last + 1] |= place < kept
    return Narrowed(
        rank=rank_slices(
            np.array([candidate.score for candidate in candidates]),
            np.array([candidate.slices for candidate in candidates], np.int64).reshape(-1, 2),
            np.array([candidate.widest for candidate in candidates], np.int64),
            lung_mm2,
        ),
        stages={
            "all": np.ones(count, bool),
            "lungs": lung_mm2 > 0,
            "candidates": with_candidate,
            "nodules": with_nodule,
        },
        marked=np.array([nodule.in_slices(count) for nodule in references], bool).reshape(-1, count),
        centre=np.array([nodule.middle for nodule in references], np.int64),
        readers=np.array([nodule.readers for nodule in references], np.int64),
    )


def _view(scan: Scan, nodule: ReferenceNodule, labels: np.ndarray, kept: int, figures: dict[str, Any]) -> NoduleView:
    """The middle slice of a nodule, cropped; `labels` up to `kept` are those of nodules."""
    pixel_mm = scan.spacing_mm[1]
    half_px = round(VIEW_MM / 2 / pixel_mm) if np.isfinite(pixel_mm) else scan.voxels.shape[1]
    centre_px = nodule.centre_voxel[1:].tolist()
    box = tuple(slice(max(round(at) - half_px, 0), round(at) + half_px + 1) for at in centre_px)
    shown = labels[nodule.middle][box]
    return NoduleView(
        hu=scan.voxels[nodule.middle][box].copy(),
        readers=scan.slice_reader_bits(nodule.middle)[box],
        nodules=(shown > 0) & (shown <= kept),
        candidates=shown > kept,
        pixel_mm=float(pixel_mm),
        figures=figures,
    )
