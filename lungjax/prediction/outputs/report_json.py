"""`report.json` and `nodules.csv`: what is said of one scan.

report.json, schema 2:

    schema, lungjax, made, notice   2; version; ISO 8601 time; what it must not be used for
    model       name, path, task, step, trained_on, split_digest, intensity (of the training data), window_hu
                (centre, width)
    grader      likewise of the network that graded the nodules, with its calibration; null where none did
    scan        patient_id, series_uid, source, shape [slices, rows, columns], spacing_mm (the same order),
                affine_lps: 4 x 4, from (column, row, slice, 1) to mm to the patient's left, back and head
    refused     null, or one sentence why nothing was looked for
    warnings    sentences
    voxel_threshold   a voxel above this probability is part of a finding
    threshold   findings with at least this score are nodules, the others candidates
    nodules     by score: number (from 1; its voxels' value in mask.nii.gz), centre_voxel [slice, row, column],
                centre_mm [x, y, z] (left, back, head), volume_mm3, longest_mm, perpendicular_mm (RECIST), mean_hu,
                score, malignancy (probability or null), slices [first, last], counted from 0, the lowest
    candidates  the rest, likewise, numbered on
    patient     the answer for the whole patient, from the nodules of this scan:
                probability (or null), reason (null, or one sentence why there is no probability; there is none where
                no finding is a nodule, for the model knows only patients who have one, and candidates are mostly
                vessels), calibration (slope and offset on the logit; null where it was not calibrated), attention
                (number and attention of each nodule it was given, the ones of the highest score, of sum 1), meaning
                (a sentence), limits (sentences), model (as above, with its calibration; null where none was asked)
"""

from __future__ import annotations

import csv
import datetime
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

import lungjax
from lungjax.ct.scan import Scan
from lungjax.data import splits
from lungjax.prediction import patient_classifier
from lungjax.prediction.candidates import VOXEL_THRESHOLD, Candidate
from lungjax.prediction.detection import Detection
from lungjax.train.trained import Trained

SCHEMA = 2
NOTICE = "Research software, not a medical device. Not for diagnosis or treatment."
_CSV_COLUMNS = (
    "number",
    "centre_slice",
    "centre_row",
    "centre_column",
    "x_mm",
    "y_mm",
    "z_mm",
    "volume_mm3",
    "longest_mm",
    "perpendicular_mm",
    "mean_hu",
    "score",
    "malignancy",
    "first_slice",
    "last_slice",
)


def affine_of(scan: Scan) -> np.ndarray:
    """(4, 4) float64, `Scan.affine_lps`; where that is lost, from the first voxel, as an axial CT lies.

    A spacing that is lost counts as 1 mm.
    """
    if scan.affine_lps is not None:
        return scan.affine_lps
    affine = np.diag([*np.where(np.isfinite(scan.spacing_mm), scan.spacing_mm, 1.0)[::-1], 1.0])
    affine[2, 3] = scan.z_mm[0] if np.isfinite(scan.z_mm[0]) else 0.0
    return affine


def describe_model(trained: Trained) -> dict[str, Any]:
    """The `model` of a report, its `grader`, or that of its `patient`."""
    seen = trained.config.augment if trained.config.task == "segment" else trained.config.patch
    patients = sum(split == "train" for split in trained.patients.values())
    return {
        "name": trained.path.resolve().name,
        "path": str(trained.path),
        "task": trained.config.task,
        "step": int(trained.step),
        "trained_on": f"{trained.intensity} slices of {patients} patients",
        "split_digest": splits.digest(trained.patients),
        "intensity": trained.intensity,
        "window_hu": [float(value) for value in seen.window_hu],
        # Of a segmenter it is for samples of readers, not for what is found.
        **({"calibration": trained.calibration} if "slope" in trained.calibration else {}),
    }


def report(scan: Scan, source: str, model: dict[str, Any], found: Detection, *, threshold: float) -> dict[str, Any]:
    """The whole of report.json, see above; plain Python values."""
    affine = affine_of(scan)
    every = [*found.nodules, *found.candidates]
    described = [_describe(number, one, affine) for number, one in enumerate(every, start=1)]
    return {
        "schema": SCHEMA,
        "lungjax": lungjax.__version__,
        "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "notice": NOTICE,
        "model": model,
        "grader": None,
        "scan": {
            "patient_id": scan.patient_id,
            "series_uid": scan.series_uid,
            "source": source,
            "shape": list(scan.voxels.shape),
            "spacing_mm": [float(mm) if np.isfinite(mm) else None for mm in scan.spacing_mm],
            "affine_lps": affine.tolist(),
        },
        "refused": found.refused,
        "warnings": list(found.warnings),
        "voxel_threshold": VOXEL_THRESHOLD,
        "threshold": threshold,
        "nodules": described[: len(found.nodules)],
        "candidates": described[len(found.nodules) :],
        "patient": patient_classifier.unanswered("No model was asked for an answer."),
    }


def add_grades(report: dict[str, Any], malignancy: Sequence[float]) -> None:
    """Adds the probability of each nodule, then of each candidate, to a report."""
    for one, probability in zip([*report["nodules"], *report["candidates"]], malignancy, strict=True):
        one["malignancy"] = round(float(probability), 4)


def _describe(number: int, finding: Candidate, affine: np.ndarray) -> dict[str, Any]:
    centre = finding.centre_voxel
    return {
        "number": number,
        "centre_voxel": [round(float(value), 2) for value in centre],
        "centre_mm": [round(float(value), 2) for value in (affine @ (*centre[::-1], 1))[:3]],
        "volume_mm3": round(finding.volume_mm3, 1),
        "longest_mm": round(finding.longest_mm, 1),
        "perpendicular_mm": round(finding.perpendicular_mm, 1),
        "mean_hu": round(finding.mean_hu, 1),
        "score": round(finding.score, 4),
        "malignancy": None,
        "slices": list(finding.slices),
    }


def table(nodules: Sequence[dict[str, Any]]) -> str:
    """nodules.csv: a line for each nodule of a report."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_CSV_COLUMNS)
    for one in nodules:
        values = [one[name] for name in _CSV_COLUMNS[7:13]]
        writer.writerow([one["number"], *one["centre_voxel"], *one["centre_mm"], *values, *one["slices"]])
    return text.getvalue()
