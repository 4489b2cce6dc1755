"""The patient's answer, from the nodules that were found in one scan."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from lungjax.errors import InputError
from lungjax.tasks import diagnose
from lungjax.train import calibrate
from lungjax.train.trained import Trained

_MEANING = {
    True: "The probability that LIDC-IDRI's readers would call at least one of this patient's nodules malignant: an "
    "opinion from the pictures, not pathology.",
    False: "The probability that this patient's label, as the model's training data has labels, is that of cancer.",
}
"""Of a model that learnt from the readers' ratings, and of one that learnt from a CSV of labels."""
_GIVEN = {
    True: "The model was trained on nodules that readers had marked. Here it is given what was found by a network: a "
    "false finding counts like a nodule, and a nodule that was missed does not count. How much worse that makes the "
    "answer has not been measured.",
    False: "It is given what was found by a network, and is as good as its training data were like that: findings of "
    "the same network, false ones among them, as `lungjax gather` makes them, or only nodules that readers had marked.",
}
"""Likewise."""
_LIMITS = (
    "LIDC-IDRI's patients were chosen for their nodules: in other people it is too high.",
    "It answers for this scan alone; each scan of a patient has an answer of its own.",
)


@dataclasses.dataclass(frozen=True, eq=False)
class PatientPrediction:
    """What a network says of a patient.

    Attributes:
      probability: calibrated where its run had validation patients for that.
      attention: (n,) float64 of sum 1, of the n nodules it looked at, the first ones it was given.
    """

    probability: float
    attention: np.ndarray


class PatientClassifier:
    """A network of the task `diagnose`; compiled once for patches of one size.

    Args:
      model: from `lungjax.train.trained.open_trained`; also an attribute.

    Raises:
      InputError: a network of another task.
    """

    def __init__(self, model: Trained):
        if model.config.task != "diagnose":
            what = "which gives no answer for a patient"
            raise InputError(f"{model.path}: is a network of the task {model.config.task!r}, {what}.")
        self.model = model
        self._classify = jax.jit(diagnose.make_patient_classifier(model.config))

    def __call__(self, hu: np.ndarray, spacing_mm: np.ndarray) -> PatientPrediction:
        """Answers for the patient whose nodules these are.

        Args:
          hu: (n, rows, columns) HU, a nodule in the middle of each, the surest first: of more than the network takes
            (`config.data.nodules`), it looks at the first ones.
          spacing_mm: (n,) between pixel centres.

        Raises:
          ValueError: there is no nodule, the shapes disagree, or a spacing is not above 0.
        """
        size = self.model.config.data.nodules
        hu, spacing_mm = np.asarray(hu)[:size], np.asarray(spacing_mm, np.float32)[:size]
        if hu.ndim != 3 or not len(hu) or spacing_mm.shape != hu.shape[:1] or not (spacing_mm > 0).all():
            wanted = "patches (n, rows, columns), one at least, and spacings (n,) above 0 wanted"
            raise ValueError(f"{wanted}, got {hu.shape}, {spacing_mm}")
        filled = np.arange(size) % len(hu)
        inside = (np.arange(size) < len(hu)).astype(np.float32)
        variables = self.model.variables
        given = hu[filled].astype(np.float32)[None], spacing_mm[filled][None], inside[None]
        predicted = self._classify(variables["params"], variables["model_state"], *given)
        probability = calibrate.probability(np.asarray(predicted["logit"], np.float64), self.model.calibration)
        return PatientPrediction(float(probability[0]), np.asarray(predicted["attention"], np.float64)[0, : len(hu)])


def unanswered(reason: str) -> dict[str, Any]:
    """The `patient` of a report without an answer, and one sentence why."""
    return {
        "probability": None,
        "reason": reason,
        "calibration": None,
        "attention": [],
        "meaning": None,
        "limits": [],
        "model": None,
    }


def answered(answer: PatientPrediction, numbers: Sequence[int], model: Trained, *, patient_id: str) -> dict[str, Any]:
    """The `patient` of a report, but for its `model`.

    Args:
      answer: of `model`.
      numbers: of all nodules, in the order in which they were given.
      model: which has answered.
      patient_id: whose nodules they are.
    """
    used, of_readers = len(answer.attention), not model.config.data.labels
    more = [f"Of {len(numbers)} nodules it looked at the {used} with the highest score."] if len(numbers) > used else []
    if model.patients.get(patient_id) in ("train", "val"):
        more.append(f"{patient_id} is one of the patients that the model was trained with or chosen by.")
    return unanswered("") | {
        "probability": round(answer.probability, 4),
        "reason": None,
        "calibration": {name: round(value, 4) for name, value in model.calibration.items()} or None,
        "attention": [
            {"number": number, "attention": round(float(share), 4)}
            for number, share in zip(numbers, answer.attention, strict=False)
        ],
        "meaning": _MEANING[of_readers],
        "limits": [*more, _GIVEN[of_readers], *_LIMITS],
    }
