"""lungjax: lung nodules in CT scans, with JAX: from a scan, or from a folder of LIDC-IDRI, to nodules and figures.

    scan = lungjax.read_scan("FOLDER_OR_FILE")
    result = lungjax.predict(scan)
    result.save("out")

    model = lungjax.load("nodule-classifier")
    malignancy = model.predict(hu, pixel_mm=0.7).probability

The names in `__all__` are the public API; everything else may change from one version to the next. Functions and
classes are loaded when they are first used: importing lungjax imports neither JAX nor NumPy.

Research software, not a medical device. Not for diagnosis or treatment.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from lungjax import paths
from lungjax.errors import InputError
from lungjax.version import VERSION

if TYPE_CHECKING:
    import datetime
    from collections.abc import Sequence

    import numpy as np

    from lungjax.ct.scan import Scan
    from lungjax.prediction.candidate_classifier import CandidateClassifier
    from lungjax.prediction.encoder import Encoder
    from lungjax.prediction.follow_up.compared import ComparedScan, MatchedNodule, UnmatchedNodule
    from lungjax.prediction.follow_up.growth import DoublingTime, Growth
    from lungjax.prediction.follow_up.result import FollowUp
    from lungjax.prediction.nodule_classifier import NoduleClassifier, NodulePrediction
    from lungjax.prediction.patient_classifier import PatientClassifier, PatientPrediction
    from lungjax.prediction.predicted import PredictedNodule, PredictedPatient, PredictedRating
    from lungjax.prediction.result import Prediction
    from lungjax.prediction.sliding_window import Segmenter
    from lungjax.preparation.choices import Choices
    from lungjax.preparation.summary import Summary

__version__ = VERSION

__all__ = [
    "CandidateClassifier",
    "ComparedScan",
    "DoublingTime",
    "Encoder",
    "FollowUp",
    "Growth",
    "InputError",
    "MatchedNodule",
    "NoduleClassifier",
    "NodulePrediction",
    "PatientClassifier",
    "PatientPrediction",
    "PredictedNodule",
    "PredictedPatient",
    "PredictedRating",
    "Prediction",
    "Scan",
    "Segmenter",
    "UnmatchedNodule",
    "compare",
    "evaluate",
    "load",
    "predict",
    "prepare",
    "read_scan",
    "scan_from_array",
]

_MODULES = {
    "CandidateClassifier": "lungjax.prediction.candidate_classifier",
    "ComparedScan": "lungjax.prediction.follow_up.compared",
    "DoublingTime": "lungjax.prediction.follow_up.growth",
    "Encoder": "lungjax.prediction.encoder",
    "FollowUp": "lungjax.prediction.follow_up.result",
    "Growth": "lungjax.prediction.follow_up.growth",
    "MatchedNodule": "lungjax.prediction.follow_up.compared",
    "NoduleClassifier": "lungjax.prediction.nodule_classifier",
    "NodulePrediction": "lungjax.prediction.nodule_classifier",
    "PatientClassifier": "lungjax.prediction.patient_classifier",
    "PatientPrediction": "lungjax.prediction.patient_classifier",
    "PredictedNodule": "lungjax.prediction.predicted",
    "PredictedPatient": "lungjax.prediction.predicted",
    "PredictedRating": "lungjax.prediction.predicted",
    "Prediction": "lungjax.prediction.result",
    "Scan": "lungjax.ct.scan",
    "Segmenter": "lungjax.prediction.sliding_window",
    "UnmatchedNodule": "lungjax.prediction.follow_up.compared",
}
"""The modules of the classes that are loaded when they are first used."""

Device = Literal["cpu", "gpu", "tpu"]


def read_scan(path: Path | str, *, series_uid: str | None = None) -> Scan:
    """Reads a CT scan.

    Args:
      path: a folder of DICOM files, at any depth; a NIfTI or MetaImage file, or a folder of them; or a data set that
        `prepare` made.
      series_uid: which scan, where there are several: its SeriesInstanceUID; for NIfTI, the file's name without suffix.

    Returns:
      The scan, with `hu`, int16 (slices, rows, columns) Hounsfield units, from the feet to the head; `spacing_mm`,
      (slice, row, column) between voxel centres; `affine_lps`, float64 (4, 4), from (column, row, slice, 1) to mm to
      the patient's left, back and head, None where the source does not record it; `patient_id`, `series_uid`, `source`.

    Raises:
      InputError: there is no scan at `path`; there are several, which the message lists, and `series_uid` names none of
        them; or the scan cannot be read, for instance because slices are missing or unevenly spaced.
    """
    from lungjax.prediction import api

    return api.read_scan(path, series_uid=series_uid)


def scan_from_array(
    hu: np.ndarray,
    *,
    spacing_mm: tuple[float, float, float],
    affine_lps: np.ndarray | None = None,
    patient_id: str = "unknown",
) -> Scan:
    """Makes a scan from a NumPy array.

    Args:
      hu: (slices, rows, columns) Hounsfield units of any numeric dtype, rounded to int16. Slices ascend from the feet
        to the head; rows run from the patient's front to the back, columns from the right to the left, unless
        `affine_lps` says otherwise.
      spacing_mm: (slice, row, column) distance between voxel centres.
      affine_lps: (4, 4), from (column, row, slice, 1) to mm to the patient's left, back and head. Without it, positions
        in mm are relative to the first voxel. (NIfTI's affines point to the right, the front and the head: their first
        two rows have the opposite sign.)
      patient_id: for reports, and to tell whether a model was trained on this patient.

    Returns:
      The scan, as from `read_scan`.

    Raises:
      InputError: `hu` is not such an array, or has NaN or values that cannot be Hounsfield units; a spacing is not
        above 0; or the affine is invalid, has another spacing, or has slices that do not ascend.
    """
    from lungjax.prediction import api

    return api.scan_from_array(hu, spacing_mm=spacing_mm, affine_lps=affine_lps, patient_id=patient_id)


def predict(
    scan: Scan,
    *,
    model: Path | str | Segmenter = "detector",
    candidate_classifier: Path | str | CandidateClassifier | None = "candidate-classifier",
    nodule_classifier: Path | str | NoduleClassifier | None = "nodule-classifier",
    patient_classifier: Path | str | PatientClassifier | None = "patient-classifier",
    prevalence: Literal["lidc", "screening"] | float = "lidc",
    device: Device | None = None,
    false_positives: float | None = None,
    threshold: float | None = None,
) -> Prediction:
    """Detects, measures and classifies the nodules of a scan, and gives the patient a probability from all of them.

    The segmenter runs over the lungs slice by slice, in overlapping tiles (sliding-window inference). Connected
    components of its probability are candidates; a candidate classifier scores each with the probability that it is a
    nodule, and those whose score reaches the operating point are nodules. A scan unlike those that the segmenter was
    trained on is refused.

    For many scans, open each model once, `model = lungjax.load("detector")`, and pass it to `predict`. A model that is
    passed by name is opened and compiled by every call.

    Args:
      scan: from `read_scan` or `scan_from_array`.
      model: a segmenter: the name of a bundled model (`detector`, `segmenter`), the path of a run's workdir or of an
        exported folder, or what `load` returned.
      candidate_classifier: likewise, for the score of each candidate; None takes the mean probability of its voxels.
      nodule_classifier: likewise, for the malignancy of each nodule; None leaves it out.
      patient_classifier: likewise, for the patient's probability; None leaves it out.
      prevalence: the share of positive patients that the probability holds for, by Bayes' rule: `lidc`, that of the
        patients the model was trained on; `screening`, 1.1 %, lung cancer at the baseline of the National Lung
        Screening Trial (292 of 26,309; Church et al. 2013); or a number between 0 and 1.
      device: where the models run that this call opens; JAX's own choice by default.
      false_positives: how many false positives a scan are accepted, on average: the threshold is the one fitted for it
        on validation scans. None for the model's default.
      threshold: the score from which a candidate is a nodule, instead of a fitted one.

    Returns:
      The nodules, candidates, mask and patient, with warnings; `.save("out")` writes the files that `lungjax predict`
      writes, and `.to_dataframe()` returns a table of the nodules.

    Raises:
      InputError: a model or the device does not exist, a model is of another task, or a prevalence other than `lidc` is
        asked of a model that does not know its own.
    """
    from lungjax.prediction import api

    return api.predict(
        scan,
        model=model,
        candidate_classifier=candidate_classifier,
        nodule_classifier=nodule_classifier,
        patient_classifier=patient_classifier,
        prevalence=prevalence,
        device=device,
        false_positives=false_positives,
        threshold=threshold,
    )


def compare(
    first: Prediction,
    second: Prediction,
    *,
    dates_of: tuple[datetime.date | None, datetime.date | None] | None = None,
) -> FollowUp:
    """Compares two scans of a patient: matches their nodules, and tells how each has grown; `lungjax[follow-up]`.

    The lungs are registered by SimpleITK: rigid, affine, then a B-spline. Nodules are matched one to one by the
    distance of their centres after that, up to 10 mm, or the radius of the larger one. A nodule of one scan alone is
    new or gone. Growth is that of the volume, with a 95 % interval; the volume doubling time is that of Schwartz
    (Cancer 1961;14:1272).

    Args:
      first, second: by `predict`, in any order: they are compared in the order of their dates.
      dates_of: when each scan was made, in the order they are given; by default as their DICOM headers say. Without
        dates they are compared as they are given, and there is no doubling time.

    Returns:
      The nodules of both scans and of one alone; `.save("out")` writes follow-up.json, .csv and .html.

    Raises:
      InputError: the scans are of different patients, or the same scan twice, or SimpleITK is not installed.
    """
    from lungjax.prediction.follow_up.compare import compare

    return compare(first, second, dates_of=dates_of)


@overload
def load(model: Literal["segmenter", "detector"], *, device: Device | None = None) -> Segmenter: ...
@overload
def load(model: Literal["candidate-classifier"], *, device: Device | None = None) -> CandidateClassifier: ...
@overload
def load(model: Literal["nodule-classifier", "grader"], *, device: Device | None = None) -> NoduleClassifier: ...
@overload
def load(model: Literal["patient-classifier", "patient"], *, device: Device | None = None) -> PatientClassifier: ...
@overload
def load(model: Literal["encoder"], *, device: Device | None = None) -> Encoder: ...
@overload
def load(model: Path | str, *, device: Device | None = None) -> Any: ...
def load(model: Path | str, *, device: Device | None = None) -> Any:
    """Opens a model to predict arrays of any number of slices, patches or patients.

    Args:
      model: a bundled model's name, or the path of a run's workdir or of an exported folder of any format:
        safetensors, orbax, stablehlo, onnx (needs `lungjax[onnx]`, and runs on the CPU), or torchvision (the encoder).
      device: where it runs; JAX's own choice by default.

    Returns:
      A class for the task that the model was trained for:

      - `Segmenter` ("segmenter", "detector"): `.predict(hu)`, the probability of nodule for each pixel of slices, and
        `.predict_share(hu)`, the share of readers who would mark it, by which a generous or a sparing reader outlines;
      - `CandidateClassifier` ("candidate-classifier"): `.predict(hu, pixel_mm)`, the probability that candidates are
        nodules, from stacks of three slices;
      - `NoduleClassifier` ("nodule-classifier", or "grader"): `.predict(hu, pixel_mm)`, malignancy and ratings of
        nodules from patches;
      - `PatientClassifier` ("patient-classifier", or "patient"): `.predict(hu, pixel_mm)`, a probability for each
        patient from patches of all the patient's nodules;
      - `Encoder` ("encoder"): `.embed(hu)`, features of slices.

      It is compiled at its first batch, once for each size of image; predictions for an image do not depend on the
      number of other images. A network that was trained with `config.data.context` (none of the bundled ones) takes all
      slices of one scan, or each slice between its neighbours.

    Raises:
      InputError: the model or the device does not exist, or the model is damaged.
    """
    from lungjax.prediction.opening import open_model

    return open_model(model, device=device)


def prepare(
    source: Path | str,
    out: Path | str,
    *,
    format: str = "auto",
    workers: int | None = None,
    dask: str | None = None,
    overwrite: bool = False,
    without_patients: bool = False,
    labels: Sequence[int] = (),
    unlabelled_is_empty: bool = False,
    patients: Path | str | None = None,
) -> Summary:
    """Makes a data set to train on, as `lungjax prepare` does. Its bytes depend only on the source.

    Args:
      source: a folder or archive of scans.
      out: the folder to make. Until it is complete, work is kept in `OUT.partial`, and a second call resumes it.
      format: a name that `lungjax prepare --help` lists, or `auto` to detect it.
      workers: the number of processes; None for one for each core. Each holds one scan in memory.
      dask: the address of a Dask scheduler whose workers read the scans instead.
      overwrite: start again, even if `out` is complete or a run with other options was started.
      without_patients: accept a source that does not record patients; its own split is then kept.
      labels: the numbers in label maps that are nodules; by default all but 0.
      unlabelled_is_empty: a scan without a label map, among others with one, has no nodule; by default it is left out.
      patients: a CSV file with the columns case and patient, for scans that do not record their patient.

    Returns:
      A summary: how many scans, slices and patients were prepared, what was quarantined, and why.

    Raises:
      InputError: there is nothing at `source`, or nothing of a known format; `out` is something else; nothing could be
        prepared; or a worker process died twice with the same scan.
    """
    from lungjax.preparation import run

    return run.prepare(
        source,
        out,
        format=format,
        workers=workers,
        dask=dask,
        overwrite=overwrite,
        without_patients=without_patients,
        choices=_choices(labels, unlabelled_is_empty, patients),
    )


def _choices(labels: Sequence[int], unlabelled_is_empty: bool, patients: Path | str | None) -> Choices:
    from lungjax.preparation.choices import Choices

    return Choices(tuple(labels), unlabelled_is_empty, None if patients is None else Path(patients))


def evaluate(
    model: Path | str | None = None,
    *,
    data: Path | str | None = None,
    split: Literal["train", "val", "test", "all"] = "test",
    out: Path | str | None = None,
    against: Path | str | None = None,
    flips: bool = False,
    whole_scans: bool = False,
    candidate_classifier: Path | str | None = "candidate-classifier",
    fit_operating_point: bool = False,
    submission: Path | str | None = None,
    luna16: Path | str | None = None,
    labels: Sequence[int] = (),
    unlabelled_is_empty: bool = False,
) -> dict[str, Any]:
    """Scores a model, as `lungjax evaluate` does: prints a table, and writes JSON and pictures.

    Args:
      model: a bundled model's name, or the path of a run's workdir or of an exported folder; not with `submission`.
      data: a prepared folder, or a file that can be prepared; by default the model's training data. With
        `whole_scans`: LIDC-IDRI's DICOM, LUNA16's MetaImage, or volumes of NIfTI or MetaImage with label maps.
      split: which patients to score.
      out: the JSON file; the table and pictures are written next to it. By default in the workdir, or in the current
        folder.
      against: another model to score on the same slices: differences, paired by patient.
      flips: score the mean over a slice's four flips (test-time augmentation).
      whole_scans: detect nodules in whole scans: FROC, and recall over the number of slices kept.
      candidate_classifier: with `whole_scans`, for the score of each candidate, as for `predict`.
      fit_operating_point: with `whole_scans` of val patients: store the thresholds for 1/8 to 8 false positives a scan
        with the network that scores candidates, for `predict` to use.
      submission: a CSV of any detector's candidates to score by LUNA16's rules, with `luna16` and without a model.
      luna16: the folder of LUNA16's annotation files.
      labels, unlabelled_is_empty: with `whole_scans` of NIfTI, as for `prepare`.

    Returns:
      The content of the JSON file: figures with 95 % intervals by bootstrap over patients, and where they come from.

    Raises:
      InputError: the model or the data do not exist, the data's split disagrees with the model's, arguments exclude
        each other, or `out` cannot be written.
    """
    out = None if out is None else paths.local(out)
    if submission is not None or luna16 is not None:
        if submission is None or luna16 is None or model is not None or data is not None:
            raise InputError("evaluate --submission CSV needs --luna16 DIR, and takes neither --model nor --data.")
        from lungjax.evaluation import run_submission

        return run_submission.evaluate(paths.local(submission), luna16=paths.local(luna16), out=out)
    if model is None:
        raise InputError("evaluate needs --model, or --submission and --luna16.")
    if whole_scans:
        if data is None or against is not None or flips:
            raise InputError("evaluate --whole-scans needs --data, and takes neither --against nor --flips.")
        from lungjax.evaluation import run_detection

        return run_detection.evaluate(
            paths.local(model),
            candidate_classifier=None if candidate_classifier is None else paths.local(candidate_classifier),
            data=paths.local(data),
            split=split,
            out=out,
            fit_operating_point=fit_operating_point,
            choices=_choices(labels, unlabelled_is_empty, None),
        )
    if fit_operating_point:
        raise InputError("evaluate --fit-operating-point needs --whole-scans: thresholds are of whole scans.")
    from lungjax.evaluation import run_evaluate

    return run_evaluate.evaluate(
        paths.local(model),
        data=None if data is None else paths.local(data),
        split=split,
        out=out,
        against=None if against is None else paths.local(against),
        flips=flips,
    )


if not TYPE_CHECKING:  # Type checkers would take any name for one that is there.

    def __getattr__(name: str) -> Any:
        if name in _MODULES:
            return getattr(importlib.import_module(_MODULES[name]), name)
        raise AttributeError(f"module 'lungjax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
