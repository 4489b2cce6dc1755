"""`lungjax evaluate` of a grader: its figures on the patients that it was not trained on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lungjax.ct.scan import RATING_NAMES
from lungjax.data import nodules, shards
from lungjax.errors import InputError
from lungjax.evaluation.classification import binary_scores, one_reader
from lungjax.evaluation.plots import classification_report
from lungjax.evaluation.stats import bootstrap, calibration, figures
from lungjax.tasks import classify
from lungjax.train import calibrate, mesh
from lungjax.train.trained import Trained

UNIT = "nodules"
DIAMETER = "diameter"
"""Of the readers' outlines: what is to be beaten, for it alone tells most."""
SEVERAL = 3
"""Readers; most of what is published on LIDC leaves out nodules that fewer of them rated."""
RATINGS = (
    "mean absolute difference of the expected rating from the mean of the readers who gave it; `constant`: that of "
    "always saying the mean of these nodules"
)


@dataclasses.dataclass(frozen=True, eq=False)
class NoduleScores:
    """Nodules, what is true of them and what was said; all (nodules,) but where told otherwise.

    Attributes:
      index: of the data set, a line each.
      label: 1 malignant, 0 benign, NaN neither.
      logit, probability: of malignancy; the probability is calibrated.
      expected: (nodules, 9) ratings.
      ratings: (nodules, readers, 9), 0 where a reader gave none.
      diameter_mm: of the circle of the area that readers marked, their mean; NaN where no outline is known.
    """

    index: pd.DataFrame
    label: np.ndarray
    logit: np.ndarray
    probability: np.ndarray
    expected: np.ndarray
    ratings: np.ndarray
    diameter_mm: np.ndarray

    def only(self, which: np.ndarray) -> NoduleScores:
        """Those for which `which` (nodules,) is True."""
        return NoduleScores(**{field.name: getattr(self, field.name)[which] for field in dataclasses.fields(self)})


def pooled(parts: Sequence[NoduleScores]) -> NoduleScores:
    """All nodules of several."""
    names = [field.name for field in dataclasses.fields(NoduleScores) if field.name != "index"]
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return NoduleScores(index=pd.concat([part.index for part in parts]), **arrays)


def grade(model: Trained, dataset: shards.Dataset, *, split: str) -> NoduleScores:
    """Grades every rated nodule of a split.

    A patient's split is that of the model's own training; who was not there was never seen, and counts as `test`.

    Raises:
      InputError: the data are no patches, or no rated nodule of this split is there.
    """
    patches = nodules.Patches(dataset)
    rows = nodules.rows_for(dataset, model.patients, split)
    config = model.config
    task = classify.make(config, intensity="hu", readers=dataset.readers, mesh=mesh.make_mesh(config.data.batch_size))
    predicted, label = calibrate.predictions(task, model.variables, patches, rows, config.data.batch_size)
    return NoduleScores(
        index=dataset.index.iloc[rows],
        label=label,
        logit=predicted["logit"],
        probability=calibrate.probability(predicted["logit"], model.calibration),
        expected=predicted["ratings"],
        ratings=patches.ratings[rows],
        diameter_mm=nodules.diameters_mm(patches, rows),
    )


def report(graded: NoduleScores, against: NoduleScores | None = None) -> dict[str, Any]:
    """Figures of the nodules that are malignant or benign, ready for JSON.

    Returns:
      What `binary_scores.classification_figures` gives, and `before`, its figures of the probability before
      calibration; `curve` and `curve_before`; `on_fewer`, where `outlined` are the nodules whose outlines are known,
      compared with their diameter, and `several_readers` those that three readers rated; `readers`, of
      `one_reader.reader_figures`; `ratings`.

    Raises:
      InputError: no nodule is malignant or benign, or the two models did not grade the same ones.
    """
    if against is not None and not graded.index.equals(against.index):
        raise InputError("the two models were trained on other patients, so there are no nodules new to both.")
    known = ~np.isnan(graded.label)
    if not known.any():
        raise InputError("no nodule here has a median rating of malignancy above or below 3; nothing can be scored.")
    labels = graded.label > 0.5
    patients = graded.index["patient_id"].to_numpy()
    raw = calibrate.probability(graded.logit, {})

    def of(which: np.ndarray, probability: np.ndarray, others: dict[str, np.ndarray]) -> dict[str, Any]:
        return binary_scores.classification_figures(
            labels=labels[which],
            probability=probability[which],
            patients=patients[which].tolist(),
            others={name: score[which] for name, score in others.items()},
        )

    found = of(known, graded.probability, {} if against is None else {"against": against.logit})
    before = of(known, raw, {})
    found["before"] = {name: before[name] for name in binary_scores.CALIBRATION}
    found["curve"] = calibration.curve(labels[known], graded.probability[known])
    found["curve_before"] = calibration.curve(labels[known], raw[known])
    outlined = known & ~np.isnan(graded.diameter_mm)
    several = outlined & ((graded.ratings[:, :, -1] > 0).sum(axis=1) >= SEVERAL)
    found["on_fewer"] = {}
    if outlined.any():
        found["on_fewer"]["outlined"] = of(outlined, graded.probability, {DIAMETER: graded.diameter_mm})
    if several.any():
        found["on_fewer"]["several_readers"] = of(several, graded.probability, {DIAMETER: graded.diameter_mm})
    found["readers"] = one_reader.reader_figures(graded.ratings[:, :, -1], graded.probability, patients.tolist())
    found["ratings"] = _ratings(graded, patients)
    found["indeterminate"] = int((~known).sum())
    return found


def _ratings(graded: NoduleScores, patients: np.ndarray) -> dict[str, Any]:
    """Of each rating how far the expected one is from the readers', with its interval."""
    found: dict[str, Any] = {"what": RATINGS}
    for place, name in enumerate(RATING_NAMES):
        given = graded.ratings[:, :, place]
        number = (given > 0).sum(axis=1)
        rated = number > 0
        mean = given.sum(axis=1)[rated] / number[rated]
        if not rated.any():
            continue
        off = np.stack([np.abs(graded.expected[rated, place] - mean), np.ones(rated.sum())], axis=1)
        sums = bootstrap.patient_sums(off, patients[rated].tolist())
        low, high = bootstrap.interval(sums, lambda s: s[..., 0] / s[..., 1])
        figure = {
            "value": float(off[:, 0].mean()),
            "low": figures.number(float(low)),
            "high": figures.number(float(high)),
        }
        found[name] = {**figure, "constant": float(np.abs(mean - mean.mean()).mean())}
    return found


def draw(graded: NoduleScores, found: dict[str, Any], out: Path) -> list[Path]:
    """The ROC curves and the reliability, beside the report's file `out`; returns the files written."""
    written = out.with_suffix(".roc.png"), out.with_suffix(".reliability.png")
    known, beside = ~np.isnan(graded.label), found["on_fewer"].get("outlined")
    scores = {"model": (graded.logit, found["roc_auc"])}
    if beside is not None:
        known &= ~np.isnan(graded.diameter_mm)
        scores = {
            "model": (graded.logit, beside["roc_auc"]),
            "diameter of the readers' outlines": (graded.diameter_mm, beside["others"][DIAMETER]["roc_auc"]),
        }
    labels = graded.label[known] > 0.5
    if labels.any() and not labels.all():
        classification_report.roc_chart(
            labels, {name: (score[known], auc) for name, (score, auc) in scores.items()}, written[0]
        )
    classification_report.reliability_chart(found, written[1])
    return [path for path in written if path.is_file()]


def write_predictions(graded: NoduleScores, path: Path) -> None:
    """A CSV with a line for each nodule: who, where, what was said, and what the readers said."""
    columns = graded.index[["patient_id", "series_uid", "sop_uid", "z_mm", "malignancy_median"]].copy()
    columns["probability"] = graded.probability
    columns["diameter_mm"] = graded.diameter_mm
    for place, name in enumerate(RATING_NAMES):
        columns[f"expected_{name}"] = graded.expected[:, place]
    columns.to_csv(path, index=False, na_rep="nan", float_format="%.6g", lineterminator="\n")
