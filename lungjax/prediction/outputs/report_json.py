"""`report.json` and `nodules.csv`: what is predicted of one scan, for programs to read.

report.json, schema 4:

    schema, lungjax, made, notice   4; version; ISO 8601 time; what it must not be used for
    model       the segmenter: name, path, task, step, trained_on, split_digest, intensity (of the training data),
                window_hu (centre, width)
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
    nodules     by falling score: number (from 1; its voxels' value in mask.nii.gz), centre_voxel [slice, row, column],
                centre_mm [x, y, z] (left, back, head), volume_mm3, longest_mm, perpendicular_mm (RECIST), mean_hu,
                score, malignancy (probability or null), slices [first, last], counted from 0, the lowest
    candidates  those below the threshold, likewise, numbered on
    patient     of the whole patient, from the nodules of this scan:
                probability (or null), reason (null, or one sentence why there is no probability; there is none where
                no candidate is a nodule, for the model knows only patients who have one, and candidates are mostly
                vessels), calibration (slope and offset on the logit; null where it was not calibrated), attention
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

import lungjax
from lungjax.ct.scan import Scan
from lungjax.data import splits
from lungjax.prediction.candidates import VOXEL_THRESHOLD
from lungjax.prediction.diffuse_disease import LungCheck
from lungjax.prediction.predicted import PredictedNodule, PredictedPatient
from lungjax.prediction.prevalence import Prevalence
from lungjax.train.trained import Trained

SCHEMA = 4
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
    lungs: LungCheck | None,
    threshold: float,
    made: str,
) -> dict[str, Any]:
    """All that report.json holds, see above, as plain Python values.

    Args:
      scan: that was looked at.
      models: `model`, `nodule_classifier` and `patient_classifier`, each by `describe_model`, or None.
      nodules, candidates, patient, refused, warnings, lungs, threshold: as in `lungjax.prediction.result.Prediction`.
      made: by `now`.
    """
    return {
        "schema": SCHEMA,
        "lungjax": lungjax.__version__,
        "made": made,
        "notice": NOTICE,
        "model": models["model"],
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
        "threshold": threshold,
        "nodules": [_rounded(nodule) for nodule in nodules],
        "candidates": [_rounded(candidate) for candidate in candidates],
        "patient": {**_patient(patient), "model": models["patient_classifier"]},
    }


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
        "malignancy": None if nodule.malignancy is None else round(nodule.malignancy, 4),
        "slices": list(nodule.slices),
    }


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
)


def csv_row(nodule: Mapping[str, Any]) -> list[Any]:
    """Values of `CSV_COLUMNS`, of a nodule of a report, or of the fields of a `PredictedNodule`."""
    values = [nodule[name] for name in CSV_COLUMNS[7:13]]
    return [nodule["number"], *nodule["centre_voxel"], *nodule["centre_mm"], *values, *nodule["slices"]]


def nodules_csv(nodules: Sequence[Mapping[str, Any]]) -> str:
    """The text of nodules.csv: a head, and a line for each nodule of a report."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    writer.writerows(csv_row(nodule) for nodule in nodules)
    return text.getvalue()
