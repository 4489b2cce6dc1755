"""A trained patient classifier on all nodules of a patient: arrays in, a probability for the patient out."""

from __future__ import annotations

import dataclasses
import heapq
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from scipy import special

from lungjax.errors import InputError
from lungjax.prediction import arrays
from lungjax.prediction.arrays import Forward
from lungjax.prediction.predicted import PredictedPatient
from lungjax.prediction.prevalence import Prevalence
from lungjax.tasks import diagnose
from lungjax.train import calibrate
from lungjax.train.trained import Trained

_MEANING = {
    True: "The probability that LIDC-IDRI's readers would call at least one of this patient's nodules malignant: an "
    "opinion from the pictures, not pathology.",
    False: "The probability that this patient's label, as the model's training data has labels, is that of cancer.",
}
"""Of a model that learnt from the readers' ratings, and of one that learnt from a CSV of labels."""
_INPUTS = {
    True: "The model was trained on nodules that readers had marked. Here it is given candidates of a network, each of "
    "which counts by its probability to be a nodule; a nodule without a candidate does not count. How much that costs "
    "has not been measured.",
    False: "The model is given the nodules that a network predicts. It can be trusted as far as its training data were "
    "like that: predictions of the same network, false ones among them, as `lungjax gather` makes them, and not only "
    "nodules that readers had marked.",
}
"""Likewise."""
_MOST_SETS = 256
"""See `_likely_sets`; of eight patches, as many as the bundled network looks at, there are no more sets."""
_CERTAIN = 1e-12
"""From 0 and from 1, for probabilities and shares of attention: those that are closer count as this one."""
_LIMITS = (
    "LIDC-IDRI's patients were chosen for their nodules: at their prevalence, the default, the probability is too high "
    "for other people.",
    "It is of this scan alone; each scan of a patient has a probability of its own.",
)


@dataclasses.dataclass(frozen=True, eq=False)
class PatientPrediction:
    """What a patient classifier predicts.

    Attributes:
      probability: (patients,) float64, that a patient has a malignant nodule, by LIDC-IDRI's readers or by the labels
        that it was trained on; calibrated where the run had validation patients to calibrate it on.
      attention: (patients, nodules) float64, the share of each nodule in its patient's probability, if there is any; a
        patient's sum to 1. It is 0 for nodules that are not there, and for those beyond the number that the network
        looks at.
    """

    probability: np.ndarray
    attention: np.ndarray


class PatientClassifier:
    """A network of the task `diagnose`; opened by `lungjax.load`, and compiled once for patches of one size.

    Args:
      trained: the network.
      device: of `jax.devices()`, where it runs; the first by default.
      forward: the network itself, where it is no matter of `trained.variables`: (1, most_nodules, rows, columns) HU,
        (1, most_nodules) mm, and whether each is there -> the calibrated probability, and attention.

    Attributes:
      trained: as above.
      most_nodules: of how many nodules of a patient the network looks at: the first ones.

    Raises:
      InputError: a network of another task.
    """

    def __init__(self, trained: Trained, *, device: Any = None, forward: Forward | None = None):
        if trained.config.task != "diagnose":
            raise InputError(
                f"{trained.path}: is a network of the task {trained.config.task!r}, no patient classifier."
            )
        self.trained = trained
        self.most_nodules = int(trained.config.data.nodules)
        self._forward = forward or _forward(trained, device)

    def predict(
        self, hu: np.ndarray, pixel_mm: np.ndarray | float, present: np.ndarray | None = None
    ) -> PatientPrediction:
        """A probability for each patient.

        Where it is not certain which patches show nodules, it is the mean over what may be there: the sum, over sets of
        patches, of the probability that these and no others are nodules, times what the network predicts of them; 0 of
        none. Of more than 256 sets the likeliest 256 count.

        Args:
          hu: (patients, nodules, rows, columns) Hounsfield units of axial patches with a nodule in the middle of each,
            the surest first: of each patient the first `most_nodules` are looked at. Any number of patients and
            nodules, any numeric dtype.
          pixel_mm: (patients, nodules) distance between pixel centres, or one number for all.
          present: (patients, nodules), bool or from 0 to 1: 0 for patches that only fill up the array, because another
            patient has more nodules; 1 for nodules; in between the probability that it is a nodule, whatever the others
            are. By default all are nodules. Each patient has one patch at least.

        Returns:
          Predictions of the patients. They do not depend on how many there are, nor on what fills up the array.

        Raises:
          InputError: the shapes disagree, a patient has no nodule, a distance is not above 0, `hu` holds NaN or numbers
            that are no Hounsfield units; or the network was exported, as StableHLO or ONNX, for patches of another
            size.
        """
        hu = arrays.checked_hu(hu, "patients", "nodules", "rows", "columns")
        pixel_mm = arrays.checked_pixel_mm(pixel_mm, hu.shape[:2])
        certainty = np.ones(hu.shape[:2]) if present is None else np.asarray(present, np.float64)
        if certainty.shape != hu.shape[:2]:
            raise InputError(f"present has shape {certainty.shape}; it must have shape {hu.shape[:2]}, as hu.")
        if not ((certainty >= 0) & (certainty <= 1)).all():
            raise InputError("present holds numbers that are not from 0 to 1.")
        there = certainty > 0
        if not there.any(axis=1).all():
            raise InputError(f"patient {int(there.any(axis=1).argmin())} of hu has no nodule; each must have one.")
        probability, attention = np.zeros(len(hu)), np.zeros(hu.shape[:2])
        for patient in range(len(hu)):  # One after the other: so none depends on another.
            chosen = np.flatnonzero(there[patient])[: self.most_nodules]
            filled = chosen[np.arange(self.most_nodules) % len(chosen)]
            given = hu[patient, filled].astype(np.float32)[None], pixel_mm[patient, filled][None]
            own = certainty[patient, chosen]
            logits, shares = self._each(*given, len(chosen))
            for weight, inside in _likely_sets(own):
                attended = np.where(inside, shares, 0) / shares[inside].sum()
                probability[patient] += weight * special.expit(attended @ logits)
                attention[patient, chosen] += weight * attended
            probability[patient] *= 1 - np.prod(1 - own)
        return PatientPrediction(probability, attention)

    def _each(self, hu: np.ndarray, pixel_mm: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The calibrated logit of each of the first `count` nodules, were it the only one, and its share of attention.

        They tell what the network predicts of any set of them: attention is a softmax, so that shares within a set are
        as those of all, and the last layer and the calibration are linear, so that a set's logit is the mean of theirs.
        """
        inside = np.zeros((count + 1, 1, self.most_nodules), np.float32)
        inside[0, 0, :count] = 1
        inside[1:, 0, :count] = np.eye(count)
        outputs = [self._forward(hu, pixel_mm, inside_one) for inside_one in (inside if count > 1 else inside[:1])]
        alone = np.array([probability[0] for probability, _ in outputs[-count:]], np.float64)
        return special.logit(alone.clip(_CERTAIN, 1 - _CERTAIN)), outputs[0][1][0, :count].clip(_CERTAIN)


def _likely_sets(certainty: np.ndarray) -> list[tuple[float, np.ndarray]]:
    """Which patches may be nodules while the others are none, if any is: (weight, bool (patches,)).

    The likeliest first, `_MOST_SETS` at most, of weights that sum to 1. They are found in that order, by flipping more
    and more of the likeliest set, from the patch that is closest to 0.5 on, so that their number does not double with
    each patch.
    """
    likeliest = certainty > 0.5
    with np.errstate(divide="ignore"):
        costs = np.abs(np.log(certainty) - np.log1p(-certainty)).tolist()  # Infinite for what is sure.
    order = [place for place in np.argsort(costs, kind="stable").tolist() if costs[place] < math.inf]
    sets: list[tuple[float, np.ndarray]] = []
    heap: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]  # The cost of a set, and the places in `order` it flips.
    while heap and len(sets) < _MOST_SETS:
        cost, flips = heapq.heappop(heap)
        inside = likeliest.copy()
        inside[[order[flip] for flip in flips]] ^= True
        if inside.any():
            sets.append((float(np.where(inside, certainty, 1 - certainty).prod()), inside))
        after = flips[-1] + 1 if flips else 0
        if after < len(order):
            heapq.heappush(heap, (cost + costs[order[after]], (*flips, after)))
            if flips:
                heapq.heappush(heap, (cost + costs[order[after]] - costs[order[after - 1]], (*flips[:-1], after)))
    total = sum(weight for weight, _ in sets)
    return [(weight / total, inside) for weight, inside in sets]


def _forward(trained: Trained, device: Any) -> Forward:
    classifier = jax.jit(diagnose.make_patient_classifier(trained.config))
    variables = jax.device_put(trained.variables, device)

    def forward(hu: np.ndarray, pixel_mm: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        given = jax.device_put((hu, pixel_mm, inside), device)
        outputs = classifier(variables["params"], variables["model_state"], *given)
        logit, attention = (np.asarray(outputs[name], np.float64) for name in ("logit", "attention"))
        return calibrate.probability(logit, trained.calibration), attention

    return forward


def describe(
    probability: float,
    attention: Sequence[float],
    numbers: Sequence[int],
    model: Trained,
    *,
    patient_id: str,
    kept: int,
    prevalence: Prevalence,
) -> PredictedPatient:
    """A probability with what it means and what limits it.

    Args:
      probability: of a patient, by `PatientClassifier.predict`.
      attention: of each nodule that it was given.
      numbers: of these nodules.
      model: which predicted it.
      patient_id: whose nodules they are.
      kept: how many of them reach the threshold.
      prevalence: for which the probability is asked; it is moved there.
    """
    used, of_readers = min(len(numbers), int(model.config.data.nodules)), not model.config.data.labels
    limits = []
    if len(numbers) > used:
        limits.append(f"Of {len(numbers)} nodules and candidates it looked at the {used} with the highest score.")
    if not kept:
        limits.append(
            "No candidate reached the threshold: the probability is that of candidates below it. Nodules are missed, "
            "so it is no sign of health."
        )
    if model.patients.get(patient_id) in ("train", "val"):
        limits.append(f"{patient_id} is one of the patients that the model was trained on, or that it was chosen with.")
    return PredictedPatient(
        probability=prevalence.shifted(probability),
        reason=None,
        meaning=_MEANING[of_readers],
        limits=(*limits, prevalence.sentence(), _INPUTS[of_readers], *_LIMITS),
        attention={number: float(share) for number, share in zip(numbers[:used], attention, strict=False)},
        calibration=dict(model.calibration) or None,
        prevalence=prevalence,
    )
