"""`lungjax evaluate` of a candidate classifier: how well it tells nodules from the detector's other candidates.

How well nodules are then found in whole scans is a matter of `lungjax evaluate --whole-scans`.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lungjax.data import shards
from lungjax.data.candidates import Stacks
from lungjax.errors import InputError
from lungjax.evaluation.classification import binary_scores
from lungjax.evaluation.plots import classification_report
from lungjax.evaluation.stats import calibration
from lungjax.tasks import sift
from lungjax.train import calibrate, mesh
from lungjax.train.trained import Trained

UNIT = "candidates"
POSITIVE = "nodules"
NOTE = "a nodule is what at least two of four readers outlined; candidates on the marks of one reader are left out"


@dataclasses.dataclass(frozen=True, eq=False)
class CandidateScores:
    """Candidates with their labels and the model's predictions; arrays are (candidates,).

    Attributes:
      index: a row for each candidate, from the data set's index.
      label: 1 nodule, 0 none.
      logit, probability: of being a nodule; the probability is calibrated.
    """

    index: pd.DataFrame
    label: np.ndarray
    logit: np.ndarray
    probability: np.ndarray


def score_split(model: Trained, dataset: shards.Dataset, *, split: str) -> CandidateScores:
    """Scores every candidate of a split; splits are those of `run_nodule_classifier.score_split`.

    Raises:
      InputError: the data are no candidates, or none of them is of this split.
    """
    stacks = Stacks(dataset)
    patients = dataset.index["patient_id"]
    splits = patients.map(lambda patient: model.patients.get(patient, "test")).to_numpy()
    rows = np.flatnonzero(~np.isnan(stacks.label) & ((splits == split) if split != "all" else True))
    if not len(rows):
        raise InputError(f"{dataset.path}: no candidate of split {split}; the model was trained on the others.")
    config = model.config
    task = sift.make(config, intensity="hu", readers=dataset.readers, mesh=mesh.make_mesh(config.data.batch_size))
    predicted, label = calibrate.predictions(task, model.variables, stacks, rows, config.data.batch_size)
    return CandidateScores(
        index=dataset.index.iloc[rows],
        label=label,
        logit=predicted["logit"],
        probability=calibrate.probability(predicted["logit"], model.calibration),
    )


def score_figures(scores: CandidateScores, against: CandidateScores | None = None) -> dict[str, Any]:
    """Figures ready for JSON, as `run_nodule_classifier.score_figures`, without readers and ratings."""
    if against is not None and not scores.index.equals(against.index):
        raise InputError("the two models were trained on different patients, so no candidates are new to both.")
    labels, patients = scores.label > 0.5, scores.index["patient_id"].tolist()
    uncalibrated = calibrate.probability(scores.logit, {})
    others = {} if against is None else {"against": against.logit}
    report = binary_scores.classification_figures(
        labels=labels, probability=scores.probability, patients=patients, others=others
    )
    before = binary_scores.classification_figures(labels=labels, probability=uncalibrated, patients=patients, others={})
    report["before"] = {name: before[name] for name in binary_scores.CALIBRATION}
    report["curve"] = calibration.reliability_curve(labels, scores.probability)
    report["curve_before"] = calibration.reliability_curve(labels, uncalibrated)
    report["on_fewer"] = {}
    return report


def draw_charts(scores: CandidateScores, report: dict[str, Any], out: Path) -> list[Path]:
    """Draws the ROC curve and reliability, named after the report's file `out`; returns the files written."""
    roc_file, reliability_file = out.with_suffix(".roc.png"), out.with_suffix(".reliability.png")
    labels = scores.label > 0.5
    if labels.any() and not labels.all():
        classification_report.roc_chart(labels, {"model": (scores.logit, report["roc_auc"])}, roc_file)
    classification_report.reliability_chart(report, reliability_file, unit=UNIT)
    return [path for path in (roc_file, reliability_file) if path.is_file()]


def write_predictions(scores: CandidateScores, path: Path) -> None:
    """Writes a CSV with a line for each candidate."""
    columns = scores.index[["patient_id", "series_uid", "sop_uid", "z_mm", "readers_marked"]].copy()
    columns["probability"] = scores.probability
    columns.to_csv(path, index=False, na_rep="nan", float_format="%.6g", lineterminator="\n")
