"""`lungjax evaluate` of a patient's answer, beside the largest diameter and the highest grade of a nodule alone."""

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
SHOWN = 8
"""Patients on the sheet of attention."""
_ARRAYS = ("index", "logit", "probability", "highest", "diameter_mm", "attention")


@dataclasses.dataclass(frozen=True, eq=False)
class PatientScores:
    """Patients, what is true of them and what was said; all (patients,).

    Attributes:
      index: `patient_id`, `nodules`, `label` (1 or 0), a line each.
      logit, probability: of cancer; the probability is calibrated.
      highest: the highest of the nodules' own logits, by the same network.
      diameter_mm: the largest; NaN where an outline is not known.
      attention: (patients, nodules of a bag), 0 where a bag is only filled up.
      bag: what was looked at, for a picture: the reader of bags, and the patients' numbers in it; None of several runs.
    """

    index: pd.DataFrame
    logit: np.ndarray
    probability: np.ndarray
    highest: np.ndarray
    diameter_mm: np.ndarray
    attention: np.ndarray
    bag: tuple[bags.Bags, np.ndarray] | None

    def only(self, which: np.ndarray) -> PatientScores:
        """Those for which `which` (patients,) is True."""
        arrays = {name: getattr(self, name)[which] for name in _ARRAYS}
        return PatientScores(**arrays, bag=None if self.bag is None else (self.bag[0], self.bag[1][which]))


def pooled(parts: Sequence[PatientScores]) -> PatientScores:
    """All patients of several, without what a picture of attention needs."""
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _ARRAYS if name != "index"}
    return PatientScores(index=pd.concat([part.index for part in parts]), **arrays, bag=None)


def grade(model: Trained, dataset: shards.Dataset, *, split: str) -> PatientScores:
    """The answer for every patient of a split who has a label; splits as in `run_nodule_classifier.grade`.

    Raises:
      InputError: the data are no patches, or there is no such patient.
    """
    config = model.config
    read = bags.Bags(dataset, nodules=config.data.nodules, labels=config.data.labels)
    of = np.array([model.patients.get(patient, "test") for patient in read.patients])
    rows = np.flatnonzero(~np.isnan(read.patient_label) & ((of == split) if split != "all" else True))
    if not len(rows):
        raise InputError(
            f"{dataset.path}: no patient of split {split} has a label; the model was trained on the others."
        )
    task = diagnose.make(config, intensity="hu", readers=dataset.readers, mesh=mesh.make_mesh(config.data.batch_size))
    predicted, label = calibrate.predictions(task, model.variables, read, rows, config.data.batch_size)
    members = [read.members[row] for row in rows]
    return PatientScores(
        index=pd.DataFrame({"patient_id": read.patients[rows], "nodules": list(map(len, members)), "label": label}),
        logit=predicted["logit"],
        probability=calibrate.probability(predicted["logit"], model.calibration),
        highest=predicted["nodule_logit"].max(axis=1),
        diameter_mm=np.array([nodules.diameters_mm(read, one).max() for one in members]),
        attention=predicted["attention"],
        bag=(read, rows),
    )


def report(found: PatientScores, against: PatientScores | None = None) -> dict[str, Any]:
    """As `run_nodule_classifier.report`, of patients: compared with the highest grade of a nodule, and the diameter."""
    if against is not None and not found.index.equals(against.index):
        raise InputError("the two models were trained on other patients, so there is nobody new to both.")
    labels, patients = found.index["label"].to_numpy() > 0.5, found.index["patient_id"].to_numpy()
    raw = calibrate.probability(found.logit, {})
    others = {"highest nodule": found.highest} | ({} if against is None else {"against": against.logit})

    def of(which: np.ndarray, probability: np.ndarray, compared: dict[str, np.ndarray]) -> dict[str, Any]:
        return binary_scores.classification_figures(
            labels=labels[which],
            probability=probability[which],
            patients=patients[which].tolist(),
            others={name: score[which] for name, score in compared.items()},
        )

    everyone = np.ones(len(labels), bool)
    said, before = of(everyone, found.probability, others), of(everyone, raw, {})
    said["before"] = {name: before[name] for name in binary_scores.CALIBRATION}
    said["curve"], said["curve_before"] = (calibration.curve(labels, one) for one in (found.probability, raw))
    outlined = ~np.isnan(found.diameter_mm)
    compared = {"largest diameter": found.diameter_mm}
    said["on_fewer"] = {"outlined": of(outlined, found.probability, compared)} if outlined.any() else {}
    return said


def write_predictions(found: PatientScores, path: Path) -> None:
    """A CSV with a line for each patient."""
    columns = found.index.assign(probability=found.probability, largest_diameter_mm=found.diameter_mm)
    columns["highest_nodule"] = scipy.special.expit(found.highest)
    columns.to_csv(path, index=False, na_rep="nan", float_format="%.6g", lineterminator="\n")


def draw(found: PatientScores, said: dict[str, Any], out: Path) -> list[Path]:
    """ROC curves, reliability, and which nodules the answers of some patients came from; returns the files written."""
    roc, reliable, attention = (out.with_suffix(f".{name}.png") for name in ("roc", "reliability", "attention"))
    labels = found.index["label"].to_numpy() > 0.5
    written = [reliable]
    if labels.any() and not labels.all():
        scores = {
            "model": (found.logit, said["roc_auc"]),
            "highest nodule": (found.highest, said["others"]["highest nodule"]["roc_auc"]),
        }
        classification_report.roc_chart(labels, scores, roc)
        written.insert(0, roc)
    classification_report.reliability_chart(said, reliable, unit=UNIT)
    if found.bag is None:
        return written
    several = np.argsort(-found.index["nodules"].to_numpy(), kind="stable")[:SHOWN]  # One nodule has all attention.
    read, rows = found.bag
    batch = read.batch(rows[several])
    titles = [
        f"{found.index['patient_id'].iloc[place]}, {'positive' if labels[place] else 'negative'}" for place in several
    ]
    shown = found.attention[several], found.probability[several]
    gallery.bags(batch["image"], batch["inside"], *shown, titles, attention)
    return [*written, attention]
