"""`lungjax evaluate` of a patient classifier, compared with two baselines: the patient's largest nodule diameter, and
the highest malignancy of a single nodule.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.special

from lungjax.data import bags, nodules, shards
from lungjax.errors import InputError
from lungjax.evaluation.classification import binary_scores
from lungjax.evaluation.plots import classification_report, gallery
from lungjax.evaluation.stats import calibration
from lungjax.tasks import diagnose
from lungjax.train import calibrate, mesh
from lungjax.train.trained import Trained

UNIT = "patients"
POSITIVE = "malignant"
NOTE = "malignant is what the readers judged, not pathology"
SHOWN = 8
"""The number of patients on the sheet of attention."""
_ARRAYS = ("index", "logit", "probability", "highest", "diameter_mm", "attention")


@dataclasses.dataclass(frozen=True, eq=False)
class PatientScores:
    """Patients with their labels and the model's predictions; all arrays are (patients, ...).

    Attributes:
      index: `patient_id`, `nodules` and `label` (1 or 0) of each patient.
      logit, probability: of cancer; the probability is calibrated.
      highest: the highest malignancy logit of the patient's nodules, by the same network.
      diameter_mm: the patient's largest diameter; NaN where an outline is not known.
      attention: (patients, nodules of a bag), 0 where the bag is padded.
      bag: for pictures, the reader of bags and the patients' rows in it; None for pooled scores.
    """

    index: pd.DataFrame
    logit: np.ndarray
    probability: np.ndarray
    highest: np.ndarray
    diameter_mm: np.ndarray
    attention: np.ndarray
    bag: tuple[bags.Bags, np.ndarray] | None

    def only(self, which: np.ndarray) -> PatientScores:
        """The patients for which `which` (patients,) is True."""
        arrays = {name: getattr(self, name)[which] for name in _ARRAYS}
        return PatientScores(**arrays, bag=None if self.bag is None else (self.bag[0], self.bag[1][which]))


def pooled(parts: Sequence[PatientScores]) -> PatientScores:
    """All patients of several scores, without `bag`."""
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _ARRAYS if name != "index"}
    return PatientScores(index=pd.concat([part.index for part in parts]), **arrays, bag=None)


def score_split(model: Trained, dataset: shards.Dataset, *, split: str) -> PatientScores:
    """Classifies every patient of a split who has a label; splits are those of `run_nodule_classifier.score_split`.

    Raises:
      InputError: the data are not patches of nodules, or no patient of this split has a label.
    """
    config = model.config
    reader = bags.Bags(dataset, nodules=config.data.nodules, labels=config.data.labels)
    splits = np.array([model.patients.get(patient, "test") for patient in reader.patients])
    rows = np.flatnonzero(~np.isnan(reader.patient_label) & ((splits == split) if split != "all" else True))
    if not len(rows):
        raise InputError(
            f"{dataset.path}: no patient of split {split} has a label; the model was trained on the others."
        )
    task = diagnose.make(config, intensity="hu", readers=dataset.readers, mesh=mesh.make_mesh(config.data.batch_size))
    predicted, label = calibrate.predictions(task, model.variables, reader, rows, config.data.batch_size)
    members = [reader.members[row] for row in rows]
    return PatientScores(
        index=pd.DataFrame({"patient_id": reader.patients[rows], "nodules": list(map(len, members)), "label": label}),
        logit=predicted["logit"],
        probability=calibrate.probability(predicted["logit"], model.calibration),
        highest=predicted["nodule_logit"].max(axis=1),
        diameter_mm=np.array([nodules.diameters_mm(reader, patches).max() for patches in members]),
        attention=predicted["attention"],
        bag=(reader, rows),
    )


def score_figures(scores: PatientScores, against: PatientScores | None = None) -> dict[str, Any]:
    """Figures of patients, as `run_nodule_classifier.score_figures`: compared with the highest malignancy of a nodule,
    and with the largest diameter.
    """
    if against is not None and not scores.index.equals(against.index):
        raise InputError("the two models were trained on different patients, so no patients are new to both.")
    labels, patients = scores.index["label"].to_numpy() > 0.5, scores.index["patient_id"].to_numpy()
    uncalibrated = calibrate.probability(scores.logit, {})
    others = {"highest nodule": scores.highest} | ({} if against is None else {"against": against.logit})

    def figures_of(which: np.ndarray, probability: np.ndarray, compared: dict[str, np.ndarray]) -> dict[str, Any]:
        return binary_scores.classification_figures(
            labels=labels[which],
            probability=probability[which],
            patients=patients[which].tolist(),
            others={name: score[which] for name, score in compared.items()},
        )

    everyone = np.ones(len(labels), bool)
    report, before = figures_of(everyone, scores.probability, others), figures_of(everyone, uncalibrated, {})
    report["before"] = {name: before[name] for name in binary_scores.CALIBRATION}
    report["curve"] = calibration.reliability_curve(labels, scores.probability)
    report["curve_before"] = calibration.reliability_curve(labels, uncalibrated)
    outlined = ~np.isnan(scores.diameter_mm)
    compared = {"largest diameter": scores.diameter_mm}
    report["on_fewer"] = {"outlined": figures_of(outlined, scores.probability, compared)} if outlined.any() else {}
    return report


def write_predictions(scores: PatientScores, path: Path) -> None:
    """Writes a CSV with a line for each patient."""
    columns = scores.index.assign(probability=scores.probability, largest_diameter_mm=scores.diameter_mm)
    columns["highest_nodule"] = scipy.special.expit(scores.highest)
    columns.to_csv(path, index=False, na_rep="nan", float_format="%.6g", lineterminator="\n")


def draw_charts(scores: PatientScores, report: dict[str, Any], out: Path) -> list[Path]:
    """Draws ROC curves, reliability, and the attention that the nodules of some patients got; returns the files
    written.
    """
    roc_file, reliability_file, attention_file = (
        out.with_suffix(f".{name}.png") for name in ("roc", "reliability", "attention")
    )
    labels = scores.index["label"].to_numpy() > 0.5
    written = [reliability_file]
    if labels.any() and not labels.all():
        curves = {
            "model": (scores.logit, report["roc_auc"]),
            "highest nodule": (scores.highest, report["others"]["highest nodule"]["roc_auc"]),
        }
        classification_report.roc_chart(labels, curves, roc_file)
        written.insert(0, roc_file)
    classification_report.reliability_chart(report, reliability_file, unit=UNIT)
    if scores.bag is None:
        return written
    # The patients with most nodules: where there is one nodule, it has all the attention.
    shown = np.argsort(-scores.index["nodules"].to_numpy(), kind="stable")[:SHOWN]
    reader, rows = scores.bag
    batch = reader.batch(rows[shown])
    titles = [
        f"{scores.index['patient_id'].iloc[place]}, {'positive' if labels[place] else 'negative'}" for place in shown
    ]
    gallery.draw_bags(
        batch["image"], batch["inside"], scores.attention[shown], scores.probability[shown], titles, attention_file
    )
    return [*written, attention_file]
