"""lungjax: lung nodules in CT scans, with JAX; from a scan, or from a folder of LIDC-IDRI, to nodules and figures.

    scan = lungjax.read_scan("FOLDER_OR_FILE")
    result = lungjax.predict(scan)
    result.save("out")

    model = lungjax.load("nodule-classifier")
    malignancy = model.predict(hu, pixel_mm=0.7).probability

What is listed in `__all__` is the public API; all else may change from one version to the next. Functions and classes
are loaded as they are used: importing lungjax imports neither JAX nor NumPy.

Research software, not a medical device. Not for diagnosis or treatment.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from lungjax.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from lungjax.ct.scan import Scan
    from lungjax.prediction.encoder import Encoder
    from lungjax.prediction.nodule_classifier import NoduleClassifier, NodulePrediction
    from lungjax.prediction.patient_classifier import PatientClassifier, PatientPrediction
    from lungjax.prediction.predicted import PredictedNodule, PredictedPatient
    from lungjax.prediction.result import Prediction
    from lungjax.prediction.sliding_window import Segmenter
    from lungjax.preparation.summary import Summary

__version__ = "0.1.0"

__all__ = [
    "Encoder",
    "InputError",
    "NoduleClassifier",
    "NodulePrediction",
    "PatientClassifier",
    "PatientPrediction",
    "PredictedNodule",
    "PredictedPatient",
    "Prediction",
    "Scan",
    "Segmenter",
    "evaluate",
    "load",
    "predict",
    "prepare",
    "read_scan",
    "scan_from_array",
]

_MODULES = {
    "Encoder": "lungjax.prediction.encoder",
    "NoduleClassifier": "lungjax.prediction.nodule_classifier",
    "NodulePrediction": "lungjax.prediction.nodule_classifier",
    "PatientClassifier": "lungjax.prediction.patient_classifier",
    "PatientPrediction": "lungjax.prediction.patient_classifier",
    "PredictedNodule": "lungjax.prediction.predicted",
    "PredictedPatient": "lungjax.prediction.predicted",
    "Prediction": "lungjax.prediction.result",
    "Scan": "lungjax.ct.scan",
    "Segmenter": "lungjax.prediction.sliding_window",
}
"""Where the classes are that are loaded as they are used."""

Device = Literal["cpu", "gpu", "tpu"]


def read_scan(path: Path | str, *, series_uid: str | None = None) -> Scan:
    """Reads a CT scan.

    Args:
      path: a folder of DICOM, in any tree below it; a NIfTI or MetaImage file, or a folder of them; or a data set that
        `prepare` made.
      series_uid: which scan, where there are several: its SeriesInstanceUID; of NIfTI the file's name without suffix.

    Returns:
      The scan, with `hu`, int16 (slices, rows, columns) Hounsfield units, from the feet to the head; `spacing_mm`,
      (slice, row, column) between voxel centres; `affine_lps`, float64 (4, 4) from (column, row, slice, 1) to mm to the
      patient's left, back and head, None where the source lost it; `patient_id`, `series_uid`, `source`.

    Raises:
      InputError: nothing is there, or no scan; there are several, which are then listed, and `series_uid` names none of
        them; or the scan cannot be read, with the reason: slices are missing, say, or lie unevenly.
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
    """Makes a scan of a NumPy array.

    Args:
      hu: (slices, rows, columns) Hounsfield units of any numeric dtype, rounded to int16. Slices ascend from the feet
        to the head; rows run from the patient's front to the back, columns from the right to the left, unless
        `affine_lps` says otherwise.
      spacing_mm: (slice, row, column) distance between voxel centres.
      affine_lps: (4, 4), from (column, row, slice, 1) to mm to the patient's left, back and head. Without it, places in
        mm are counted from the first voxel. (NIfTI's affines lead to the right, the front and the head: their first two
        rows have the other sign.)
      patient_id: for reports, and to tell whether a model was trained on this patient.

    Returns:
      The scan, as `read_scan` does.

    Raises:
      InputError: `hu` is no such array, holds NaN or numbers that are no Hounsfield units; a spacing is not above 0; or
        the affine is none, has another spacing, or has slices that do not ascend.
    """
    from lungjax.prediction import api

    return api.scan_from_array(hu, spacing_mm=spacing_mm, affine_lps=affine_lps, patient_id=patient_id)


def predict(
    scan: Scan,
    *,
    model: Path | str | Segmenter = "detector",
    nodule_classifier: Path | str | NoduleClassifier | None = "nodule-classifier",
    patient_classifier: Path | str | PatientClassifier | None = "patient-classifier",
    prevalence: Literal["lidc", "screening"] | float = "lidc",
    device: Device | None = None,
) -> Prediction:
    """Looks for nodules in a scan, measures and classifies them; the patient gets a probability from all of them.

    The segmenter is moved over the lungs slice by slice, with overlapping tiles (sliding window). Connected components
    of its probability are candidates, ranked by a score; those that reach a threshold are nodules. A scan unlike what
    the segmenter was trained on is refused.

    Of many scans, open the models once: `model = lungjax.load("detector")`, and give `predict` that. A model that is
    given by name is opened and compiled by every call.

    Args:
      scan: by `read_scan` or `scan_from_array`.
      model: a segmenter: a bundled one's name (`detector`, `segmenter`), the path of a run's workdir or of an exported
        folder, or what `load` returned.
      nodule_classifier: likewise, for each nodule's malignancy; None leaves that out.
      patient_classifier: likewise, for the patient's probability; None leaves that out.
      prevalence: for which share of positive patients the probability holds, by Bayes' rule: `lidc`, that of the
        patients the model was trained on; `screening`, 1.1 %, lung cancer at the baseline of the National Lung
        Screening Trial (292 of 26,309; Church et al. 2013); or a number between 0 and 1.
      device: where models run that are opened by this call; JAX's own choice by default.

    Returns:
      The nodules, candidates, mask and patient, with warnings; `.save("out")` writes what `lungjax predict` writes, and
      `.to_dataframe()` gives a table of the nodules.

    Raises:
      InputError: no such model, device or prevalence, a model of another task, or another prevalence than `lidc` of a
        model that does not tell its own.
    """
    from lungjax.prediction import api

    return api.predict(
        scan,
        model=model,
        nodule_classifier=nodule_classifier,
        patient_classifier=patient_classifier,
        prevalence=prevalence,
        device=device,
    )


@overload
def load(model: Literal["segmenter", "detector"], *, device: Device | None = None) -> Segmenter: ...
@overload
def load(model: Literal["nodule-classifier", "grader"], *, device: Device | None = None) -> NoduleClassifier: ...
@overload
def load(model: Literal["patient-classifier", "patient"], *, device: Device | None = None) -> PatientClassifier: ...
@overload
def load(model: Literal["encoder"], *, device: Device | None = None) -> Encoder: ...
@overload
def load(model: Path | str, *, device: Device | None = None) -> Any: ...
def load(model: Path | str, *, device: Device | None = None) -> Any:
    """Opens a model, for arrays of any number of slices, patches or patients.

    Args:
      model: a bundled model's name, or the path of a run's workdir or of an exported folder of any format:
        safetensors, orbax, stablehlo, onnx (needs `lungjax[onnx]`, and runs on the CPU), or torchvision (the encoder).
      device: where it runs; JAX's own choice by default.

    Returns:
      By what the model was trained for:

      - `Segmenter` ("segmenter", "detector"): `.predict(hu)`, the probability of each pixel of slices;
      - `NoduleClassifier` ("nodule-classifier", or "grader"): `.predict(hu, pixel_mm)`, malignancy and ratings of
        nodules in patches;
      - `PatientClassifier` ("patient-classifier", or "patient"): `.predict(hu, pixel_mm)`, a probability for each
        patient from patches of all of their nodules;
      - `Encoder` ("encoder"): `.embed(hu)`, features of slices.

      It is compiled at its first batch, once for images of one size; what it predicts for an image does not depend on
      how many others there are.

    Raises:
      InputError: there is no such model or device, or it is damaged.
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
) -> Summary:
    """Makes a data set to train on, as `lungjax prepare` does. Its bytes depend on the source alone.

    Args:
      source: folder or archive of scans.
      out: folder to make; until it is whole, work lies in `OUT.partial`, and a second call resumes there.
      format: a name that `lungjax prepare --help` lists, or `auto` to look.
      workers: processes; None for one a core. Each holds one scan in memory.
      dask: address of a Dask scheduler, whose workers read the scans instead.
      overwrite: make it anew, even if `out` is complete or another run was begun.
      without_patients: prepare a source that does not tell its patients, too; its own split then stands.

    Returns:
      What was done: how many scans, slices and patients, what was quarantined and why.

    Raises:
      InputError: nothing at `source`, no known format, `out` is something else, nothing could be prepared, or a worker
        process died twice over the same scan.
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
    )


def evaluate(
    model: Path | str | None = None,
    *,
    data: Path | str | None = None,
    split: Literal["train", "val", "test", "all"] = "test",
    out: Path | str | None = None,
    against: Path | str | None = None,
    flips: bool = False,
    whole_scans: bool = False,
    submission: Path | str | None = None,
    luna16: Path | str | None = None,
) -> dict[str, Any]:
    """Scores a model, as `lungjax evaluate` does: prints a table, and writes JSON and pictures.

    Args:
      model: a bundled model's name, or the path of a run's workdir or of an exported folder; without `submission`.
      data: a prepared folder, or a file that can be prepared; by default what the model was trained with. With
        `whole_scans`: LIDC-IDRI's DICOM, LUNA16's MetaImage, or NIfTI with label maps.
      split: of the patients.
      out: the JSON file; the table and pictures lie beside it. By default in the workdir, or in the current folder.
      against: another model, to be scored on the same slices: differences, paired by patient.
      flips: score the mean over a slice's four flips (test-time augmentation).
      whole_scans: find nodules in whole scans: FROC, and recall over the slices kept.
      submission: a CSV of any detector's candidates, to be scored by LUNA16's rules, with `luna16` and without a model.
      luna16: the folder of LUNA16's annotation files.

    Returns:
      What the JSON holds: figures with 95 % intervals by bootstrap over patients, and where they come from.

    Raises:
      InputError: no such model or data, data whose split disagrees with the model's, arguments that exclude each other,
        or nowhere to write.
    """
    out = None if out is None else Path(out)
    if submission is not None or luna16 is not None:
        if submission is None or luna16 is None or model is not None or data is not None:
            raise InputError("evaluate --submission CSV needs --luna16 DIR, and takes neither --model nor --data.")
        from lungjax.evaluation import run_submission

        return run_submission.evaluate(Path(submission), luna16=Path(luna16), out=out)
    if model is None:
        raise InputError("evaluate needs --model, or --submission and --luna16.")
    if whole_scans:
        if data is None or against is not None or flips:
            raise InputError("evaluate --whole-scans needs --data, and takes neither --against nor --flips.")
        from lungjax.evaluation import run_detection

        return run_detection.evaluate(Path(model), data=Path(data), split=split, out=out)
    from lungjax.evaluation import run_evaluate

    return run_evaluate.evaluate(
        Path(model),
        data=None if data is None else Path(data),
        split=split,
        out=out,
        against=None if against is None else Path(against),
        flips=flips,
    )


if not TYPE_CHECKING:  # Type checkers would take any name for one that is there.

    def __getattr__(name: str) -> Any:
        if name in _MODULES:
            return getattr(importlib.import_module(_MODULES[name]), name)
        raise AttributeError(f"module 'lungjax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
