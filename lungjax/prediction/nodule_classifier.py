"""A trained grader on patches that somebody has: arrays in, probabilities and ratings out."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np

from lungjax.ct.scan import RATING_NAMES
from lungjax.errors import InputError
from lungjax.tasks import classify
from lungjax.train import calibrate
from lungjax.train.trained import Trained

BATCH = 32
"""Patches graded at a time; a smaller number is filled up, so that one program does for all."""


@dataclasses.dataclass(frozen=True, eq=False)
class Grades:
    """What a network says of nodules.

    Attributes:
      probability: (n,) float64 that the readers' median of malignancy would be above 3, not below; calibrated on the
        validation patients of the run, where it had such.
      ratings: (n, 9) float32, expected ratings in the order of `lungjax.ct.scan.RATING_NAMES`.
    """

    probability: np.ndarray
    ratings: np.ndarray


class NoduleClassifier:
    """A network of the task `classify`; compiled once for patches of one size.

    Args:
      model: from `lungjax.train.trained.open_trained`; also an attribute.

    Raises:
      InputError: a network of another task.
    """

    def __init__(self, model: Trained):
        if model.config.task != "classify":
            raise InputError(f"{model.path}: is a network of the task {model.config.task!r}, which grades no nodules.")
        self.model = model
        self._classify = jax.jit(classify.make_nodule_classifier(model.config))

    def __call__(self, hu: np.ndarray, spacing_mm: np.ndarray) -> Grades:
        """Grades patches with a nodule in the middle of each.

        Args:
          hu: (n, rows, columns) HU; of at least the side that the network sees (`config.patch`), in mm, else mirrored.
          spacing_mm: (n,) between pixel centres.

        Raises:
          ValueError: the shapes disagree, or a spacing is not above 0.
        """
        hu, spacing_mm = np.asarray(hu), np.asarray(spacing_mm, np.float32)
        if hu.ndim != 3 or spacing_mm.shape != hu.shape[:1] or not (spacing_mm > 0).all():
            raise ValueError(
                f"patches (n, rows, columns) and spacings (n,) above 0 wanted, got {hu.shape}, {spacing_mm}"
            )
        variables = self.model.variables
        logits, ratings = [np.zeros(0, np.float32)], [np.zeros((0, len(RATING_NAMES)), np.float32)]
        for start in range(0, len(hu), BATCH):
            rows = np.minimum(np.arange(start, start + BATCH), len(hu) - 1)
            given = hu[rows].astype(np.float32), spacing_mm[rows]
            predicted = self._classify(variables["params"], variables["model_state"], *given)
            logits.append(np.asarray(predicted["logit"])[: len(hu) - start])
            ratings.append(np.asarray(predicted["ratings"])[: len(hu) - start])
        return Grades(calibrate.probability(np.concatenate(logits), self.model.calibration), np.concatenate(ratings))
