"""A trained nodule classifier on patches that somebody has: arrays in, probabilities and ratings out."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import numpy as np

from lungjax.ct.scan import RATING_NAMES
from lungjax.errors import InputError
from lungjax.prediction import arrays, rating_distribution
from lungjax.prediction.arrays import Forward
from lungjax.tasks import classify
from lungjax.train import calibrate
from lungjax.train.trained import Trained

BATCH = 32
"""Patches that are put through at a time."""


@dataclasses.dataclass(frozen=True, eq=False)
class NodulePrediction:
    """What a nodule classifier predicts of n nodules.

    Attributes:
      probability: (n,) float64, that the readers' median rating of malignancy would be above 3, not below; calibrated
        where the run had validation patients to calibrate it on.
      ratings: (n, 9) float32, the ratings that a reader is expected to give, in the order of `rating_names`.
      rating_probabilities: (n, 9, 6) float64, the probability that a reader gives 1, 2, ... 6; 0 above the highest
        rating of a name, of sum 1 along the last axis. None where the network was exported as StableHLO or ONNX.
    """

    probability: np.ndarray
    ratings: np.ndarray
    rating_probabilities: np.ndarray | None = None
    rating_names: ClassVar[tuple[str, ...]] = RATING_NAMES


class NoduleClassifier:
    """A network of the task `classify`; opened by `lungjax.load`, and compiled once for patches of one size.

    Args:
      trained: the network.
      device: of `jax.devices()`, where it runs; the first by default.
      forward: the network itself, where it is no matter of `trained.variables`: (n, rows, columns) HU and (n,) mm ->
        calibrated probabilities and ratings, and the chances of being above each of `lungjax.tasks.classify.STEPS`,
        which exported networks lack.

    Attributes:
      trained: as above.

    Raises:
      InputError: a network of another task.
    """

    def __init__(self, trained: Trained, *, device: Any = None, forward: Forward | None = None):
        if trained.config.task != "classify":
            raise InputError(f"{trained.path}: is a network of the task {trained.config.task!r}, no nodule classifier.")
        self.trained = trained
        self._forward = forward or _forward(trained, device)

    def predict(self, hu: np.ndarray, pixel_mm: np.ndarray | float) -> NodulePrediction:
        """Malignancy and ratings of nodules, each in the middle of its patch.

        Args:
          hu: (n, rows, columns) Hounsfield units of axial patches, any number of them and any numeric dtype. What lies
            beyond a patch is mirrored if it is smaller than what the network looks at (`config.patch`, about 31 mm).
          pixel_mm: (n,) distance between pixel centres, or one number for all.

        Returns:
          Predictions of the n nodules. They do not depend on how many there are.

        Raises:
          InputError: the shapes disagree, a distance is not above 0, `hu` holds NaN or numbers that are no Hounsfield
            units; or the network was exported, as StableHLO or ONNX, for patches of another size.
        """
        hu = arrays.checked_hu(hu, "nodules", "rows", "columns")
        pixel_mm = arrays.checked_pixel_mm(pixel_mm, hu.shape[:1])
        if not len(hu):
            none = rating_distribution.probabilities(np.zeros((0, len(classify.STEPS))))
            return NodulePrediction(np.zeros(0), np.zeros((0, len(RATING_NAMES)), np.float32), none)
        outputs = arrays.in_batches(self._forward, [hu.astype(np.float32), pixel_mm], size=BATCH)
        probability, ratings, *above = outputs
        spread = rating_distribution.probabilities(above[0]) if above else None
        return NodulePrediction(probability.astype(np.float64), ratings, spread)


def _forward(trained: Trained, device: Any) -> Forward:
    classifier = jax.jit(classify.make_nodule_classifier(trained.config))
    variables = jax.device_put(trained.variables, device)

    def forward(hu: np.ndarray, pixel_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        given = jax.device_put((hu, pixel_mm), device)
        outputs = classifier(variables["params"], variables["model_state"], *given)
        probability = calibrate.probability(np.asarray(outputs["logit"]), trained.calibration)
        return probability, np.asarray(outputs["ratings"]), np.asarray(outputs["above"])

    return forward
