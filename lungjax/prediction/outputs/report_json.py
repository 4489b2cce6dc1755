"""`report.json` and `nodules.csv`: what is predicted of one scan, for programs to read.

report.json, schema 4; schema 3 lacks `candidate_classifier`, `operating_point`, `lungs`, `lung_rads`, the patient's
`prevalence` and, of a nodule, all from mean_mm on:

    schema, lungjax, made, notice   4; version; ISO 8601 time; what it must not be used for
    model       the segmenter: name, path, task, step, trained_on, split_digest, intensity (of the training data),
                window_hu (centre, width)
    candidate_classifier   the same of the candidate classifier, with its calibration; null where none was used
    nodule_classifier   the same of the nodule classifier, with its calibration; null where none was used
    scan        patient_id, series_uid, source, shape [slices, rows, columns], spacing_mm (the same order),
                affine_lps: 4 x 4, from (column, row, slice, 1) to mm to the patient's left, back and head
    refused     null, or one sentence why the scan was not looked at
    warnings    sentences that must be known to read the rest
    lungs       null where it was refused, else what was measured of the lungs to notice consolidation, effusion and
                other diffuse disease: volume_ml, median_hu, dense_share, missing_share, right_share, nodules,
                nodules_ml (see lungjax.prediction.diffuse_disease), unusual (sentences; where there are any, the
                patient's probability is withheld, and one of the warnings tells why)
    voxel_threshold   a voxel above this probability is part of a candidate
    threshold   candidates with at least this score are nodules
    operating_point   where the threshold comes from: threshold; false_positives_a_scan, for which it was fitted, or
                null; source (a sentence)
    nodules     by falling score: number (from 1; its voxels' value in mask.nii.gz), centre_voxel [slice, row, column],
                centre_mm [x, y, z] (left, back, head), volume_mm3, longest_mm, perpendicular_mm (RECIST), mean_hu,
                score, malignancy (probability or null), slices [first, last], counted from 0, the lowest; mean_mm,
                fleischner_mm (that to the nearest mm), type (solid, part-solid, ground glass, or null), solid_mean_mm
                (of a part-solid one, else null), side (left, right, or null), zone (upper, middle, lower, or null),
                pleura_mm (or null), lung_rads (1, 2, 3, 4A, 4B, or null), lung_rads_reason, ratings (by name: expected,
                standard_deviation (or null), probabilities of 1, 2 ...; empty without a nodule classifier)
    candidates  those below the threshold, likewise, numbered on
    lung_rads   of the scan, the highest of its nodules', as of a baseline scan: category (or null), reason, note (what
                it is and what it leaves out)
    patient     of the whole patient, from the nodules of this scan and, where a candidate classifier gave their
                probability, from its candidates:
                probability (or null), reason (null, or one sentence why there is no probability), calibration (slope
                and offset on the logit; null where it was not calibrated), attention
                (number and attention of each nodule that the model looked at, those of the highest score, of sum 1),
                prevalence (name: lidc, screening or stated; share of positive patients that the probability holds for;
                fitted, that of the patients the model was trained and calibrated on; null without a model),
                meaning (a sentence), limits (sentences), model (the patient classifier, as above; null where none was
                used)
"""

from __future__ import annotations

import csv
import dataclasses
import datetime
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lungjax.ct.scan import RATING_NAMES, Scan
from lungjax.data import splits
from lungjax.prediction import lung_rads
from lungjax.prediction.candidates import VOXEL_THRESHOLD
from lungjax.prediction.diffuse_disease import LungCheck
from lungjax.prediction.operating_point import OperatingPoint
from lungjax.prediction.predicted import PredictedNodule, PredictedPatient
from lungjax.prediction.prevalence import Prevalence
from lungjax.train.trained import Trained
from lungjax.version import VERSION

SCHEMA = 4
READABLE = (3, SCHEMA)
"""Schemas of reports that later steps still read."""
NOTICE = "Research software, not a medical device. Not for diagnosis or treatment."


def affine_of(scan: Scan) -> np.ndarray:
    """(4, 4) float64, `Scan.affine_lps`; where that is lost, from the first voxel, as an axial CT lies.

    A spacing that is lost counts as 1 mm.
    """
    if scan.affine_lps is not None:
        return scan.affine_lps
    affine = np.diag([*np.where(np.isfinite(scan.spacing_mm), scan.spacing_mm, 1.0)[::-1], 1.0])
    affine[2, 3] = scan.z_mm[0] if np.isfinite(scan.z_mm[0]) else 0.0
    return affine


def voxel_of(scan: Scan, place_mm: Sequence[float] | np.ndarray) -> np.ndarray:
    """(3,) float64 slice, row and column of a place in mm, (x, y, z), by `affine_of`."""
    return (np.linalg.inv(affine_of(scan)) @ (*place_mm, 1.0))[2::-1]


def describe_model(trained: Trained) -> dict[str, Any]:
    """What a report says of a network: `model`, `nodule_classifier`, and the `model` of `patient`."""
    view = trained.config.augment if trained.config.task == "segment" else trained.config.patch
    patients = sum(split == "train" for split in trained.patients.values())
    return {
        "name": trained.path.resolve().name,
        "path": str(trained.path),
        "task": trained.config.task,
        "step": int(trained.step),
        "trained_on": f"{trained.intensity} slices of {patients} patients",
        "split_digest": splits.digest(trained.patients),
        "intensity": trained.intensity,
        "window_hu": [float(value) for value in view.window_hu],
        # A segmenter's is for samples of readers, and does not enter its nodules.
        **({"calibration": trained.calibration} if "slope" in trained.calibration else {}),
    }


def describe_prevalence(prevalence: Prevalence | None) -> dict[str, Any] | None:
    """What a report says of the prevalence that a patient's probability is for."""
    return None if prevalence is None else dataclasses.asdict(prevalence)


def now() -> str:
    """The time, ISO 8601, for `made`."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def as_dict(
    scan: Scan,
    *,
    models: Mapping[str, Any],
    nodules: Sequence[PredictedNodule],
    candidates: Sequence[PredictedNodule],
    patient: PredictedPatient,
    refused: str | None,
    warnings: Sequence[str],
    operating_point: OperatingPoint,
    lungs: LungCheck | None,
    made: str,
) -> dict[str, Any]:
    """All that report.json holds, see above, as plain Python values.

    Args:
      scan: that was looked at.
      models: `model`, `candidate_classifier`, `nodule_classifier`, `patient_classifier`, each by `describe_model` or
        None.
      nodules, candidates, patient, refused, warnings, lungs, operating_point: as in
        `lungjax.prediction.result.Prediction`.
      made: by `now`.
    """
    return {
        "schema": SCHEMA,
        "lungjax": VERSION,
        "made": made,
        "notice": NOTICE,
        "model": models["model"],
        "candidate_classifier": models["candidate_classifier"],
        "nodule_classifier": models["nodule_classifier"],
        "scan": {
            "patient_id": scan.patient_id,
            "series_uid": scan.series_uid,
            "source": scan.source,
            "shape": list(scan.voxels.shape),
            "spacing_mm": [float(mm) if np.isfinite(mm) else None for mm in scan.spacing_mm],
            "affine_lps": affine_of(scan).tolist(),
        },
        "refused": refused,
        "warnings": list(warnings),
        "lungs": None if lungs is None else _lungs(lungs),
        "voxel_threshold": VOXEL_THRESHOLD,
        "threshold": operating_point.threshold,
        "operating_point": dataclasses.asdict(operating_point),
        "nodules": [_rounded(nodule) for nodule in nodules],
        "candidates": [_rounded(candidate) for candidate in candidates],
        "lung_rads": {**dataclasses.asdict(assessment(nodules, models, refused)), "note": lung_rads.NOTE},
        "patient": {**_patient(patient), "model": models["patient_classifier"]},
    }


def check(report: Mapping[str, Any]) -> None:
    """Raises an error of any kind where what is read back of a report is not as `as_dict` makes it."""
    patient, prevalence = report["patient"], report["patient"].get("prevalence")
    known = [
        report["refused"] is None or isinstance(report["refused"], str),
        all(isinstance(warning, str) for warning in report["warnings"]),
        isinstance(report["nodules"], list) and all(isinstance(nodule, dict) for nodule in report["nodules"]),
        isinstance(report["threshold"], int | float),
        isinstance(report["scan"]["series_uid"], str),
        patient["probability"] is None or isinstance(patient["probability"], int | float),
        patient["probability"] is None or (prevalence["name"], prevalence["share"]) != (None, None),
        patient["reason"] is None or isinstance(patient["reason"], str),
    ]
    if not all(known):
        raise ValueError("a value in it is of another kind")


def assessment(
    nodules: Sequence[PredictedNodule], models: Mapping[str, Any], refused: str | None
) -> lung_rads.Assessment:
    """The scan's Lung-RADS category, or why there is none; arguments as in `as_dict`."""
    if refused is not None:
        return lung_rads.Assessment(None, "the scan was not looked at")
    if models["nodule_classifier"] is None:
        return lung_rads.Assessment(None, "no nodule classifier told the types of nodules")
    return lung_rads.scan_category(
        (nodule.number, lung_rads.Assessment(nodule.lung_rads, nodule.lung_rads_reason)) for nodule in nodules
    )


def _rounded(nodule: PredictedNodule) -> dict[str, Any]:
    return {
        "number": nodule.number,
        "centre_voxel": [round(value, 2) for value in nodule.centre_voxel],
        "centre_mm": [round(value, 2) for value in nodule.centre_mm],
        "volume_mm3": round(nodule.volume_mm3, 1),
        "longest_mm": round(nodule.longest_mm, 1),
        "perpendicular_mm": round(nodule.perpendicular_mm, 1),
        "mean_hu": round(nodule.mean_hu, 1),
        "score": round(nodule.score, 4),
        "malignancy": _maybe_rounded(nodule.malignancy, 4),
        "slices": list(nodule.slices),
        "mean_mm": round(nodule.mean_mm, 2),  # Of two with one decimal: a second one is not lost.
        "fleischner_mm": nodule.fleischner_mm,
        "type": nodule.type,
        "solid_mean_mm": _maybe_rounded(nodule.solid_mean_mm, 2),
        "side": nodule.side,
        "zone": nodule.zone,
        "pleura_mm": _maybe_rounded(nodule.pleura_mm, 1),
        "lung_rads": nodule.lung_rads,
        "lung_rads_reason": nodule.lung_rads_reason,
        "ratings": {
            name: {
                "expected": round(rating.expected, 2),
                "standard_deviation": _maybe_rounded(rating.standard_deviation, 2),
                "probabilities": [round(probability, 3) for probability in rating.probabilities],
            }
            for name, rating in nodule.ratings.items()
        },
    }


def _maybe_rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def _lungs(lungs: LungCheck) -> dict[str, Any]:
    return {
        "volume_ml": round(lungs.volume_ml, 1),
        "median_hu": round(lungs.median_hu, 1),
        "dense_share": round(lungs.dense_share, 4),
        "missing_share": round(lungs.missing_share, 4),
        "right_share": round(lungs.right_share, 4),
        "nodules": lungs.nodules,
        "nodules_ml": round(lungs.nodules_ml, 2),
        "unusual": list(lungs.unusual),
    }


def _patient(patient: PredictedPatient) -> dict[str, Any]:
    calibration = patient.calibration
    return {
        "probability": None if patient.probability is None else round(patient.probability, 4),
        "reason": patient.reason,
        "calibration": None if calibration is None else {name: round(value, 4) for name, value in calibration.items()},
        "attention": [{"number": number, "attention": round(share, 4)} for number, share in patient.attention.items()],
        "prevalence": describe_prevalence(patient.prevalence),
        "meaning": patient.meaning,
        "limits": list(patient.limits),
    }


CSV_COLUMNS = (
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
    "mean_mm",
    "fleischner_mm",
    "type",
    "solid_mean_mm",
    "side",
    "zone",
    "pleura_mm",
    "lung_rads",
    *(f"{what}_{name}" for name in RATING_NAMES for what in ("expected", "deviation")),
)


def csv_row(nodule: Mapping[str, Any]) -> list[Any]:
    """Values of `CSV_COLUMNS`, of a nodule of a report, or of the fields of a `PredictedNodule`."""
    values = [nodule[name] for name in CSV_COLUMNS[7:13]]
    later = [nodule[name] for name in CSV_COLUMNS[15:23]]
    ratings = [nodule["ratings"].get(name, {}) for name in RATING_NAMES]
    rated = [rating.get(what) for rating in ratings for what in ("expected", "standard_deviation")]
    own = [nodule["number"], *nodule["centre_voxel"], *nodule["centre_mm"], *values, *nodule["slices"]]
    return [*own, *later, *rated]


def nodules_csv(nodules: Sequence[Mapping[str, Any]]) -> str:
    """The text of nodules.csv: a head, and a line for each nodule of a report."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    writer.writerows(csv_row(nodule) for nodule in nodules)
    return text.getvalue()
