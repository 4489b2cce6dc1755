"""A model from its name or its path, ready for arrays: what `lungjax.load` returns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lungjax.prediction import exported
from lungjax.prediction.candidate_classifier import CandidateClassifier
from lungjax.prediction.encoder import Encoder
from lungjax.prediction.nodule_classifier import NoduleClassifier
from lungjax.prediction.patient_classifier import PatientClassifier
from lungjax.prediction.sliding_window import Segmenter
from lungjax.train import devices, trained
from lungjax.train.trained import TORCHVISION_FILE

_CLASSES: dict[str, Any] = {
    "segment": Segmenter,
    "sift": CandidateClassifier,
    "classify": NoduleClassifier,
    "diagnose": PatientClassifier,
    "pretrain": Encoder,
}
"""By the task that a network was trained for."""


def open_model(model: Path | str, *, device: str | None = None) -> Any:
    """Opens a model, whatever its task and format.

    Args:
      model: a run's workdir, an exported folder of any format, or, where nothing of that name lies, a bundled model's
        name.
      device: where it runs: `cpu`, `gpu` or `tpu`; JAX's own choice by default.

    Returns:
      A `Segmenter`, `CandidateClassifier`, `NoduleClassifier`, `PatientClassifier` or `Encoder`, by its task.

    Raises:
      InputError: there is no such model or device, or it is damaged.
    """
    path, chosen = trained.path_of(Path(model)), find_device(device)
    if exported.is_standalone(path):
        known, forward = trained.read_description(path), exported.open_forward(path, device=chosen)
        return _CLASSES[known.config.task](known, device=chosen, forward=forward)
    if (path / TORCHVISION_FILE).is_file():
        return Encoder(trained.open_torchvision(path), device=chosen)
    known = trained.open_trained(path)
    return _CLASSES[known.config.task](known, device=chosen)


def find_device(name: str | None) -> Any:
    """The first device of a kind, `cpu`, `gpu` or `tpu`; of JAX's own choice for None.

    Raises:
      InputError: there is none of that kind.
    """
    return devices.find(name)[0]
