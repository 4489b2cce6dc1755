"""A trained candidate classifier (false-positive reduction): is what a detector proposes a nodule?"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from lungjax.errors import InputError
from lungjax.prediction import arrays
from lungjax.prediction.arrays import Forward
from lungjax.tasks import sift
from lungjax.train import calibrate
from lungjax.train.trained import Trained

BATCH = 32
"""Stacks that are put through at a time."""


class CandidateClassifier:
    """A network of the task `sift`; opened by `lungjax.load`, and compiled once for stacks of one size.

    Args:
      trained: the network.
      device: of `jax.devices()`, where it runs; the first by default.
      forward: the network itself, where it is no matter of `trained.variables`: (n, 3, rows, columns) HU and (n,) mm ->
        calibrated probabilities.

    Attributes:
      trained: as above.

    Raises:
      InputError: a network of another task.
    """

    def __init__(self, trained: Trained, *, device: Any = None, forward: Forward | None = None):
        if trained.config.task != "sift":
            raise InputError(
                f"{trained.path}: is a network of the task {trained.config.task!r}, no candidate classifier."
            )
        self.trained = trained
        self._forward = forward or _forward(trained, device)

    def predict(self, hu: np.ndarray, pixel_mm: np.ndarray | float) -> np.ndarray:
        """The probability of candidates, each in the middle of its stack, that they are nodules.

        Args:
          hu: (n, 3, rows, columns) Hounsfield units of any numeric dtype: the axial slice in which the candidate is
            widest, between its neighbours 2.5 mm below and above. What lies beyond a patch is mirrored if it is smaller
            than what the network looks at (`config.patch`, about 45 mm).
          pixel_mm: (n,) distance between pixel centres, or one number for all.

        Returns:
          (n,) float64, that at least two of four readers would have outlined it; calibrated where the run had
          validation patients to calibrate it on.

        Raises:
          InputError: the shapes disagree, a distance is not above 0, `hu` holds NaN or numbers that are no Hounsfield
            units; or the network was exported, as StableHLO or ONNX, for stacks of another size.
        """
        hu = arrays.checked_hu(hu, "candidates", "planes", "rows", "columns")
        if hu.shape[1] != sift.PLANES:
            raise InputError(f"hu has shape {hu.shape}; it must be (candidates, {sift.PLANES}, rows, columns).")
        pixel_mm = arrays.checked_pixel_mm(pixel_mm, hu.shape[:1])
        if not len(hu):
            return np.zeros(0)
        (probability,) = arrays.in_batches(self._forward, [hu.astype(np.float32), pixel_mm], size=BATCH)
        return probability.astype(np.float64)


def _forward(trained: Trained, device: Any) -> Forward:
    classifier = jax.jit(sift.make_candidate_classifier(trained.config))
    variables = jax.device_put(trained.variables, device)

    def forward(hu: np.ndarray, pixel_mm: np.ndarray) -> tuple[np.ndarray]:
        given = jax.device_put((hu, pixel_mm), device)
        outputs = classifier(variables["params"], variables["model_state"], *given)
        return (calibrate.probability(np.asarray(outputs["logit"]), trained.calibration),)

    return forward
