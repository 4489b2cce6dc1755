"""The way of one scan: candidates and nodules, their malignancy, the patient's probability."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from lungjax.ct.scan import Scan
from lungjax.errors import InputError
from lungjax.prediction import (
    description,
    detection,
    diffuse_disease,
    opening,
    operating_point,
    patches,
    patient_classifier,
)
from lungjax.prediction import prevalence as prevalences
from lungjax.prediction.candidate_classifier import CandidateClassifier
from lungjax.prediction.candidates import Candidate
from lungjax.prediction.detection import Detection
from lungjax.prediction.nodule_classifier import NoduleClassifier
from lungjax.prediction.operating_point import OperatingPoint
from lungjax.prediction.outputs import report_json
from lungjax.prediction.patient_classifier import PatientClassifier
from lungjax.prediction.predicted import PredictedPatient
from lungjax.prediction.prevalence import Prevalence
from lungjax.prediction.result import Prediction
from lungjax.prediction.sliding_window import Segmenter
from lungjax.train.trained import Trained


@dataclasses.dataclass(frozen=True, eq=False)
class Networks:
    """What looks at a scan.

    Attributes:
      segmenter: proposes candidates.
      candidate_classifier: gives each candidate its score; None leaves the mean probability of its voxels.
      nodule_classifier: None leaves nodules without a malignancy.
      patient_classifier: None leaves the patient without a probability.
    """

    segmenter: Segmenter
    candidate_classifier: CandidateClassifier | None = None
    nodule_classifier: NoduleClassifier | None = None
    patient_classifier: PatientClassifier | None = None

    @property
    def scorer(self) -> Trained:
        """The network whose scores are compared with the threshold."""
        return (self.candidate_classifier or self.segmenter).trained

    def prevalence(self, asked: str | float) -> Prevalence | None:
        """For which share of positive patients a probability is asked; None without a patient classifier.

        Raises:
          InputError: as `prevalence.resolve`.
        """
        if self.patient_classifier is None:
            prevalences.share_of(asked)
            return None
        trained = self.patient_classifier.trained
        return prevalences.resolve(asked, trained.calibration, model=str(trained.path))

    def descriptions(self) -> dict[str, dict[str, Any] | None]:
        """By the names of `Networks`, but `model` for the segmenter, each as a report describes it."""
        networks = {
            "model": self.segmenter,
            "candidate_classifier": self.candidate_classifier,
            "nodule_classifier": self.nodule_classifier,
            "patient_classifier": self.patient_classifier,
        }
        return {
            name: None if network is None else report_json.describe_model(network.trained)
            for name, network in networks.items()
        }


@dataclasses.dataclass(frozen=True, eq=False)
class Pipeline:
    """Networks, and how they are used: all that a prediction depends on but the scan.

    Attributes:
      networks: what looks at a scan.
      point: separates nodules from candidates.
      prevalence: for which the patient's probability is asked; None without a patient classifier.
    """

    networks: Networks
    point: OperatingPoint
    prevalence: Prevalence | None

    def predict(self, scan: Scan) -> Prediction:
        """All that the networks predict of a scan."""
        return predict(scan, self.networks, self.point, self.prevalence)


def open_pipeline(
    model: Path | str | Segmenter,
    *,
    candidate_classifier: Path | str | CandidateClassifier | None,
    nodule_classifier: Path | str | NoduleClassifier | None,
    patient_classifier: Path | str | PatientClassifier | None,
    device: str | None,
    prevalence: str | float,
    false_positives: float | None,
    threshold: float | None,
) -> Pipeline:
    """Opens the networks that are not open yet, and chooses operating point and prevalence.

    Args:
      model, candidate_classifier, nodule_classifier, patient_classifier: a bundled model's name, where a model lies, or
        what `lungjax.load` returned.
      device: where those run that are opened here: `cpu`, `gpu` or `tpu`; JAX's own choice by default.
      prevalence: as for `lungjax.prediction.prevalence.resolve`.
      false_positives, threshold: as for `lungjax.prediction.operating_point.choose`.

    Raises:
      InputError: no such model or device, a network of another task, or as these two.
    """

    def opened(network: Any, task: str, name: str) -> Any:
        if isinstance(network, Path | str):
            network = opening.open_model(network, device=device)
        if network is not None and not hasattr(network, "trained"):
            raise InputError(f"a {name} is a bundled model's name, a path, or what load returned, not {network!r:.60}.")
        if network is not None and network.trained.config.task != task:
            held = f"{network.trained.path}: is a network of the task {network.trained.config.task!r}"
            raise InputError(f"{held}; a {name} is one of the task {task!r}.")
        return network

    prevalences.share_of(prevalence)  # A mistake is told before anything is opened.
    networks = Networks(
        opened(model, "segment", "segmenter"),
        opened(candidate_classifier, "sift", "candidate classifier"),
        opened(nodule_classifier, "classify", "nodule classifier"),
        opened(patient_classifier, "diagnose", "patient classifier"),
    )
    point = operating_point.choose(networks.scorer, false_positives=false_positives, threshold=threshold)
    return Pipeline(networks, point, networks.prevalence(prevalence))


def predict(scan: Scan, networks: Networks, point: OperatingPoint, prevalence: Prevalence | None = None) -> Prediction:
    """All that the networks predict of a scan.

    Args:
      scan: to look at.
      networks: what looks at it.
      point: separates nodules from candidates.
      prevalence: for which the patient's probability is asked; by default that of the model's own patients.
    """
    prevalence = prevalence or networks.prevalence("lidc")
    detected = detection.detect(
        scan,
        networks.segmenter.trained,
        networks.segmenter,
        classifier=networks.candidate_classifier,
        threshold=point.threshold,
    )
    proposed = [*detected.nodules, *detected.candidates]
    hu, pixel_mm = _patches(scan, proposed)
    classified = None if networks.nodule_classifier is None else networks.nodule_classifier.predict(hu, pixel_mm)
    described = description.describe(scan, detected.lungs, proposed, classified)
    count = len(detected.nodules)
    lungs = None if detected.lungs is None else diffuse_disease.check(scan, detected.lungs, detected.nodules)
    unusual = None if lungs is None else lungs.warning()
    return Prediction(
        scan=scan,
        nodules=tuple(described[:count]),
        candidates=tuple(described[count:]),
        mask=detected.mask,
        patient=_patient(scan, detected, unusual, networks, hu, pixel_mm, prevalence),
        warnings=(*detected.warnings, *([unusual] if unusual else [])),
        refused=detected.refused,
        lungs=lungs,
        threshold=point.threshold,
        operating_point=point,
        models=networks.descriptions(),
        made=report_json.now(),
    )


def _patches(scan: Scan, proposed: list[Candidate]) -> tuple[np.ndarray, np.ndarray]:
    """int16 (n, 71, 71) HU around each candidate, and float64 (n,) mm between their pixel centres."""
    row_mm = scan.spacing_mm[1]  # Columns are as far apart, to within 1 %: other scans are refused.
    return patches.cut(scan.voxels, proposed), np.full(len(proposed), row_mm)


def _patient(
    scan: Scan,
    detected: Detection,
    unusual: str | None,
    networks: Networks,
    hu: np.ndarray,
    pixel_mm: np.ndarray,
    prevalence: Prevalence | None,
) -> PredictedPatient:
    """From the patches of candidates, the surest first: of all, each by its probability of being a nodule, where that
    is known; else of those that are kept."""
    classifier = networks.patient_classifier
    if classifier is None or prevalence is None:
        return PredictedPatient.without("No patient classifier was used.")
    if detected.refused:
        return PredictedPatient.without("The scan was not looked at.", prevalence=prevalence)
    if unusual is not None:
        return PredictedPatient.without(f"It is withheld. {unusual}", prevalence=prevalence)
    if networks.candidate_classifier is None:
        certainty = np.ones(len(detected.nodules))
    else:
        scores = np.array([candidate.score for candidate in (*detected.nodules, *detected.candidates)])
        points = networks.candidate_classifier.trained.operating_points
        certainty = operating_point.in_whole_scans(scores, points)
    if not len(certainty):
        if networks.candidate_classifier is not None:
            return patient_classifier.describe(
                0.0, [], [], classifier.trained, patient_id=scan.patient_id, kept=0, prevalence=prevalence
            )
        return PredictedPatient.without(
            "No candidate reached the threshold, and the model knows only patients who have a nodule. That is no sign "
            "of health: nodules are missed.",
            prevalence=prevalence,
        )
    count = len(certainty)
    predicted = classifier.predict(hu[None, :count], pixel_mm[None, :count], certainty[None])
    return patient_classifier.describe(
        float(predicted.probability[0]),
        predicted.attention[0].tolist(),
        range(1, count + 1),
        classifier.trained,
        patient_id=scan.patient_id,
        kept=len(detected.nodules),
        prevalence=prevalence,
    )
