"""The networks of `lungjax predict`: one finds nodules, one grades them, one answers for the patient."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np

from lungjax.ct.scan import Scan
from lungjax.errors import InputError
from lungjax.prediction import detection, patches, patient_classifier
from lungjax.prediction.detection import Detection, Network
from lungjax.prediction.nodule_classifier import NoduleClassifier
from lungjax.prediction.outputs import report_json
from lungjax.prediction.patient_classifier import PatientClassifier
from lungjax.prediction.sliding_window import Segmenter
from lungjax.train.trained import Trained, open_trained


@dataclasses.dataclass(frozen=True, eq=False)
class Networks:
    """What looks at a scan.

    Attributes:
      trained, segmenter: the one that finds nodules.
      grader: of what it finds; None leaves it without a grade.
      diagnoser: None leaves the patient without an answer.
    """

    trained: Trained
    segmenter: Network
    grader: NoduleClassifier | None = None
    diagnoser: PatientClassifier | None = None

    def described(self) -> dict[str, dict[str, Any] | None]:
        """`model`, `grader` and `patient`, each as in a report."""
        every = {"model": self.trained, "grader": self.grader, "patient": self.diagnoser}
        return {
            name: None if one is None else report_json.describe_model(one if isinstance(one, Trained) else one.model)
            for name, one in every.items()
        }


def open_all(model: Path, *, grader: Path | None, diagnoser: Path | None, device: Any) -> Networks:
    """Opens them, each as `lungjax.train.trained.open_trained` does.

    Args:
      model, grader, diagnoser: where they lie.
      device: of the segmenter; the others run on JAX's default one.

    Raises:
      InputError: no such model, or a network of another task.
    """
    trained = open_trained(model)
    return Networks(
        trained,
        Segmenter(trained, device=device),
        None if grader is None else NoduleClassifier(open_trained(grader)),
        None if diagnoser is None else PatientClassifier(open_trained(diagnoser)),
    )


def look(scan: Scan, source: str, used: Networks) -> tuple[Detection, dict[str, Any]]:
    """What the networks find in a scan, and its `report_json.report`; `source` is where the scan is from."""
    found = detection.detect(scan, used.trained, used.segmenter)
    report = report_json.report(
        scan, source, report_json.describe_model(used.trained), found, threshold=detection.THRESHOLD
    )
    every = [*found.nodules, *found.candidates]
    row_mm, column_mm = scan.spacing_mm[1:]  # Square: detection refuses others.
    assert not every or row_mm == column_mm
    seen = patches.cut(scan.voxels, every), np.full(len(every), row_mm)
    if used.grader is not None:
        report["grader"] = report_json.describe_model(used.grader.model)
        report_json.add_grades(report, used.grader(*seen).probability.tolist())
    if used.diagnoser is not None:
        count = len(found.nodules)
        if count:
            answer = used.diagnoser(seen[0][:count], seen[1][:count])
            numbers = [one["number"] for one in report["nodules"]]
            report["patient"] = patient_classifier.answered(
                answer, numbers, used.diagnoser.model, patient_id=scan.patient_id
            )
        else:
            report["patient"] = patient_classifier.unanswered(_why_unanswered(report))
        report["patient"]["model"] = report_json.describe_model(used.diagnoser.model)
    return found, report


def _why_unanswered(report: dict[str, Any]) -> str:
    if report["refused"]:
        return "Nothing was looked for in the scan."
    return (
        f"No finding reached the threshold of {report['threshold']:g}, and the model knows only patients who have a "
        "nodule. That is no sign of health: nodules are missed."
    )


def find_device(name: str | None) -> Any:
    """The first device of a platform, of JAX's own choice for None; InputError where there is none."""
    try:
        return jax.devices(name)[0]
    except RuntimeError as error:
        have = ", ".join(sorted({one.platform for one in jax.devices()}))
        raise InputError(f"--device {name}: there is none; there is {have}.") from error
