"""`lungjax evaluate` of a nodule classifier: its figures on the rated nodules of a split."""

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
from lungjax.evaluation.classification import binary_scores, kind_agreement, one_reader
from lungjax.evaluation.plots import classification_report
from lungjax.evaluation.stats import bootstrap, calibration, figures
from lungjax.prediction import nodule_type, rating_distribution
from lungjax.prediction.nodule_type import NoduleType
from lungjax.tasks import classify
from lungjax.train import calibrate, mesh
from lungjax.train.trained import Trained

UNIT = "nodules"
POSITIVE = "malignant"
NOTE = "malignant is what the readers judged, not pathology"
DIAMETER = "diameter"
"""Of the readers' outlines: the baseline to beat, because it alone predicts most of the readers' malignancy."""
SEVERAL_READERS = 3
"""Most publications on LIDC-IDRI leave out nodules that fewer readers than these rated."""
RATINGS = (
    "mean absolute difference of the expected rating from the mean of the readers who gave it; `constant`: that of "
    "always saying the mean of these nodules; `deviation`: root mean square of the standard deviation predicted of a "
    "reader's rating; `readers_off`: that of the readers' ratings from the expected one, which it should equal"
)
KINDS: tuple[NoduleType, ...] = ("solid", "part-solid", "ground glass")
TYPES = (
    "type by the expected texture against that by the median of the readers' textures; `one_reader`: each reader's "
    "against the median of the others, and `beside_one_reader` the model's against the same"
)

CALCIFICATION = "calcified as benign nodules are, by the model and by more than half of a nodule's readers"


@dataclasses.dataclass(frozen=True, eq=False)
class NoduleScores:
    """Nodules with the readers' ratings and the model's predictions; arrays are (nodules,) unless stated otherwise.

    Attributes:
      index: a row for each nodule, from the data set's index.
      label: 1 malignant, 0 benign, NaN neither.
      logit, probability: of malignancy; the probability is calibrated.
      expected: (nodules, 9), the expected ratings.
      deviation: (nodules, 9), the predicted standard deviation of a reader's rating.
      benign_calcification: bool, whether it is predicted to be calcified as benign nodules are.
      ratings: (nodules, readers, 9), 0 where a reader gave none.
      diameter_mm: of a circle with the area that a reader marked, mean over readers; NaN where no outline is known.
    """

    index: pd.DataFrame
    label: np.ndarray
    logit: np.ndarray
    probability: np.ndarray
    expected: np.ndarray
    deviation: np.ndarray
    benign_calcification: np.ndarray
    ratings: np.ndarray
    diameter_mm: np.ndarray

    def only(self, which: np.ndarray) -> NoduleScores:
        """The nodules for which `which` (nodules,) is True."""
        return NoduleScores(**{field.name: getattr(self, field.name)[which] for field in dataclasses.fields(self)})


def pooled(parts: Sequence[NoduleScores]) -> NoduleScores:
    """All nodules of several scores, for instance of the folds of a cross-validation."""
    names = [field.name for field in dataclasses.fields(NoduleScores) if field.name != "index"]
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return NoduleScores(index=pd.concat([part.index for part in parts]), **arrays)


def score_split(model: Trained, dataset: shards.Dataset, *, split: str) -> NoduleScores:
    """Classifies every rated nodule of a split.

    A patient's split is the one recorded with the model; a patient whom the model's data did not contain counts as
    `test`.

    Raises:
      InputError: the data are not patches of nodules, or have no rated nodule of this split.
    """
    patches = nodules.Patches(dataset)
    rows = nodules.rows_for(dataset, model.patients, split)
    config = model.config
    task = classify.make(config, intensity="hu", readers=dataset.readers, mesh=mesh.make_mesh(config.data.batch_size))
    predicted, label = calibrate.predictions(task, model.variables, patches, rows, config.data.batch_size)
    spread = rating_distribution.probabilities(predicted["above"])
    return NoduleScores(
        index=dataset.index.iloc[rows],
        label=label,
        logit=predicted["logit"],
        probability=calibrate.probability(predicted["logit"], model.calibration),
        expected=predicted["ratings"],
        deviation=rating_distribution.standard_deviation(spread),
        benign_calcification=nodule_type.is_benign_calcification(spread[:, RATING_NAMES.index("calcification")]),
        ratings=patches.ratings[rows],
        diameter_mm=nodules.diameters_mm(patches, rows),
    )


def score_figures(scores: NoduleScores, against: NoduleScores | None = None) -> dict[str, Any]:
    """Figures of the nodules that are malignant or benign, ready for JSON.

    Returns:
      What `binary_scores.classification_figures` returns, and `before`, the calibration figures of the uncalibrated
      probability; `curve` and `curve_before`, their reliability curves; `on_fewer`, the figures of fewer nodules:
      `outlined`, those whose outlines are known, compared with their diameter, and `several_readers`, those of them
      that at least three readers rated; `readers`, from `one_reader.reader_figures`; `ratings`; `type`, see `TYPES`;
      `calcification`, see `CALCIFICATION`; `indeterminate`, the number of nodules that are neither malignant nor
      benign.

    Raises:
      InputError: no nodule is malignant or benign, or the two models did not score the same nodules.
    """
    if against is not None and not scores.index.equals(against.index):
        raise InputError("the two models were trained on different patients, so no nodules are new to both.")
    known = ~np.isnan(scores.label)
    if not known.any():
        raise InputError("no nodule here has a median malignancy rating above or below 3, so nothing can be scored.")
    labels = scores.label > 0.5
    patients = scores.index["patient_id"].to_numpy()
    uncalibrated = calibrate.probability(scores.logit, {})

    def figures_of(which: np.ndarray, probability: np.ndarray, others: dict[str, np.ndarray]) -> dict[str, Any]:
        return binary_scores.classification_figures(
            labels=labels[which],
            probability=probability[which],
            patients=patients[which].tolist(),
            others={name: score[which] for name, score in others.items()},
        )

    report = figures_of(known, scores.probability, {} if against is None else {"against": against.logit})
    before = figures_of(known, uncalibrated, {})
    report["before"] = {name: before[name] for name in binary_scores.CALIBRATION}
    report["curve"] = calibration.reliability_curve(labels[known], scores.probability[known])
    report["curve_before"] = calibration.reliability_curve(labels[known], uncalibrated[known])
    outlined = known & ~np.isnan(scores.diameter_mm)
    several = outlined & ((scores.ratings[:, :, -1] > 0).sum(axis=1) >= SEVERAL_READERS)
    diameter = {DIAMETER: scores.diameter_mm}
    report["on_fewer"] = {}
    if outlined.any():
        report["on_fewer"]["outlined"] = figures_of(outlined, scores.probability, diameter)
    if several.any():
        report["on_fewer"]["several_readers"] = figures_of(several, scores.probability, diameter)
    report["readers"] = one_reader.reader_figures(scores.ratings[:, :, -1], scores.probability, patients.tolist())
    report["ratings"] = _rating_figures(scores, patients)
    report["type"] = _type_figures(scores, patients)
    report["calcification"] = _calcification_figures(scores, patients)
    report["indeterminate"] = int((~known).sum())
    return report


def _rating_figures(scores: NoduleScores, patients: np.ndarray) -> dict[str, Any]:
    """For each rating, how far the expected rating is from the readers' mean, with an interval."""
    report: dict[str, Any] = {"what": RATINGS}
    for place, name in enumerate(RATING_NAMES):
        given = scores.ratings[:, :, place]
        number = (given > 0).sum(axis=1)
        rated = number > 0
        mean = given.sum(axis=1)[rated] / number[rated]
        if not rated.any():
            continue
        errors = np.stack([np.abs(scores.expected[rated, place] - mean), np.ones(rated.sum())], axis=1)
        sums = bootstrap.patient_sums(errors, patients[rated].tolist())
        low, high = bootstrap.interval(sums, lambda s: s[..., 0] / s[..., 1])
        figure = {
            "value": float(errors[:, 0].mean()),
            "low": figures.finite_or_none(float(low)),
            "high": figures.finite_or_none(float(high)),
        }
        own = given > 0
        off = (given - scores.expected[:, [place]])[own]
        spread = np.broadcast_to(scores.deviation[:, [place]], given.shape)[own]
        report[name] = {
            **figure,
            "constant": float(np.abs(mean - mean.mean()).mean()),
            "deviation": float(np.sqrt(np.mean(spread**2))),
            "readers_off": float(np.sqrt(np.mean(off**2))),
        }
    return report


def _type_figures(scores: NoduleScores, patients: np.ndarray) -> dict[str, Any] | None:
    """How often the type agrees with the readers'; None where nobody rated a texture."""
    place = RATING_NAMES.index("texture")
    expected = [nodule_type.of_expected(texture) for texture in scores.expected[:, place].tolist()]
    given = [each[each > 0] for each in scores.ratings[:, :, place]]
    rated = [number for number, each in enumerate(given) if len(each)]
    if not rated:
        return None
    pairs = [
        (
            number,
            nodule_type.of_readers(each[reader]),
            nodule_type.of_readers(float(np.median(np.delete(each, reader)))),
        )
        for number, each in enumerate(given)
        for reader in range(len(each))
        if len(each) > 1
    ]
    report: dict[str, Any] = {"what": TYPES} | kind_agreement.agreement_figures(
        [nodule_type.of_readers(float(np.median(given[number]))) for number in rated],
        [expected[number] for number in rated],
        KINDS,
        patients[rated].tolist(),
    )
    if pairs:
        numbers, own, others = zip(*pairs, strict=True)
        who = patients[list(numbers)].tolist()
        report["one_reader"] = kind_agreement.agreement_figures(others, own, KINDS, who)
        report["beside_one_reader"] = kind_agreement.agreement_figures(
            others, [expected[number] for number in numbers], KINDS, who
        )
    return report


def _calcification_figures(scores: NoduleScores, patients: np.ndarray) -> dict[str, Any] | None:
    """How often benign calcification agrees with the readers'; None where nobody rated calcification."""
    given = scores.ratings[:, :, RATING_NAMES.index("calcification")]
    number = (given > 0).sum(axis=1)
    rated = number > 0
    if not rated.any():
        return None
    shares = np.stack([(given[rated] == value).sum(axis=1) for value in range(1, 7)], axis=1) / number[rated, None]
    named = np.array(["other", "benign"])
    return {"what": CALCIFICATION} | kind_agreement.agreement_figures(
        named[nodule_type.is_benign_calcification(shares).astype(int)].tolist(),
        named[scores.benign_calcification[rated].astype(int)].tolist(),
        ("benign", "other"),
        patients[rated].tolist(),
    )


def draw_charts(scores: NoduleScores, report: dict[str, Any], out: Path) -> list[Path]:
    """Draws ROC curves and reliability, named after the report's file `out`; returns the files written."""
    written = out.with_suffix(".roc.png"), out.with_suffix(".reliability.png")
    shown, outlined = ~np.isnan(scores.label), report["on_fewer"].get("outlined")
    curves = {"model": (scores.logit, report["roc_auc"])}
    if outlined is not None:
        shown &= ~np.isnan(scores.diameter_mm)
        curves = {
            "model": (scores.logit, outlined["roc_auc"]),
            "diameter of the readers' outlines": (scores.diameter_mm, outlined["others"][DIAMETER]["roc_auc"]),
        }
    labels = scores.label[shown] > 0.5
    if labels.any() and not labels.all():
        classification_report.roc_chart(
            labels, {name: (score[shown], auc) for name, (score, auc) in curves.items()}, written[0]
        )
    classification_report.reliability_chart(report, written[1])
    return [path for path in written if path.is_file()]


def write_predictions(scores: NoduleScores, path: Path) -> None:
    """Writes a CSV with a line for each nodule: patient, position, predictions, and the readers' median malignancy."""
    columns = scores.index[["patient_id", "series_uid", "sop_uid", "z_mm", "malignancy_median"]].copy()
    columns["probability"] = scores.probability
    columns["diameter_mm"] = scores.diameter_mm
    for place, name in enumerate(RATING_NAMES):
        columns[f"expected_{name}"] = scores.expected[:, place]
    columns.to_csv(path, index=False, na_rep="nan", float_format="%.6g", lineterminator="\n")
