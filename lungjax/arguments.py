"""The arguments of each verb of the command line."""

from __future__ import annotations

import argparse
import datetime
from pathlib import Path
from typing import Any

from lungjax.version import VERSION

_MODEL = (
    "a run's workdir, an exported folder, or a bundled model: detector, segmenter, candidate-classifier, "
    "nodule-classifier, patient-classifier, encoder"
)
_SEGMENTER = "a run's workdir, an exported folder, or a bundled model: detector, segmenter"

_GATHER = (
    "Makes patches of the nodules that predict detected, with the outlines and ratings of the readers' nodules that "
    "they hit, and a label for each patient: to train a patient classifier on the input it will get in use."
)


_ALWAYS = "2: a mistake in the command, or a disk that is full or not writable; 130: interrupted."
_EXIT_CODES = {
    "doctor": "0: no fault; 1: faults, which prepare would quarantine",
    "prepare": "0: done; 1: every scan was quarantined, so there is no data set (with --strict: any was)",
    "phantom": "0: done",
    "evaluate": "0: done",
    "predict": "0: done, though some scans may be refused or quarantined; 1: every scan was; or, with --same-patient, "
    "the scans could not be compared",
    "gather": "0: done; 1: every scan was left out, so nothing is written",
    "mine": "0: done",
    "export": "0: done",
    "report": "0: done",
}


def parser() -> argparse.ArgumentParser:
    """The parser of the command line; the verb is stored as `verb`."""
    commands = argparse.ArgumentParser(
        prog="lungjax",
        description="Lung nodules in CT scans: detects and classifies them; prepares data for networks, and "
        "scores and exports them. Research software, not a medical device. To train: python -m lungjax.main --help",
    )
    commands.add_argument("--version", action="version", version=f"lungjax {VERSION}")
    verbs = commands.add_subparsers(required=True, dest="verb", metavar="VERB")
    for add in (_add_data, _add_figures, _add_uses):
        add(verbs)
    for name, verb in verbs.choices.items():
        verb.epilog = f"exit codes: {_EXIT_CODES[name]}; {_ALWAYS}"
    return commands


def _add_data(verbs: Any) -> None:
    """The verbs that check or make data."""
    doctor = verbs.add_parser(
        "doctor",
        help="check a source before it is prepared",
        description="Checks a source by names and headers, in seconds: what prepare would quarantine, and why.",
    )
    doctor.add_argument("path", type=Path, metavar="PATH", help="the source, as for `prepare --source`")
    doctor.add_argument("--format", default="auto", help="as for prepare (default: %(default)s)")
    doctor.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    _add_labels(doctor)
    _add_patients(doctor)

    prepare = verbs.add_parser(
        "prepare",
        help="make a data set to train on",
        description="Makes a data set to train on: scans to shards, split by patient. A second run resumes.",
    )
    source = "folder of scans, or archive of slices"
    prepare.add_argument("--source", type=Path, required=True, help=source)
    prepare.add_argument("--out", type=Path, required=True, help="folder of the data set to make")
    formats = (
        "auto, lidc, slices, lungd-png, jaeho-npy, luna16, nifti, prob-unet-pickle, prob-unet-hdf5, nodule-patches, or "
        "unmarked: scans of people without nodules, which auto never takes"
    )
    prepare.add_argument("--format", default="auto", help=f"{formats} (default: %(default)s)")
    prepare.add_argument("--workers", type=_positive, metavar="N", help="processes (default: one for each core)")
    prepare.add_argument("--dask", metavar="ADDRESS", help="read the scans on the workers of this Dask scheduler")
    prepare.add_argument("--overwrite", action="store_true", help="remove an earlier result first")
    prepare.add_argument("--strict", action="store_true", help="exit with code 1 if a scan was quarantined")
    without = "accept a source that does not record which patient a scan is of"
    prepare.add_argument("--without-patients", action="store_true", help=without)
    _add_labels(prepare)
    _add_patients(prepare)

    phantom = verbs.add_parser(
        "phantom",
        help="write synthetic LIDC-IDRI series",
        description="Writes DICOM series of schematic chests with the real outlines of LIDC-IDRI's readers.",
    )
    phantom.add_argument("--scans", type=_positive, required=True, help="how many of LIDC-IDRI's 1,018")
    phantom.add_argument("--out", type=Path, required=True, help="folder to make")
    phantom.add_argument("--seed", type=_natural, default=0, help="default: %(default)s")
    phantom.add_argument("--matrix", type=_positive, default=512, help="rows and columns (default: %(default)s)")


def _add_labels(verb: argparse.ArgumentParser) -> None:
    label = "the number in label maps that is a nodule; may be given several (default: all but 0)"
    verb.add_argument("--label", type=_positive, nargs="+", default=(), metavar="NUMBER", help=label)
    empty = "a case without a label map has no nodule (default: it is left out where others have one)"
    verb.add_argument("--unlabelled-is-empty", action="store_true", help=empty)


def _add_patients(verb: argparse.ArgumentParser) -> None:
    patients = "table with the columns case and patient, of scans that do not record their patient"
    verb.add_argument("--patients", type=Path, metavar="CSV", help=patients)


def _add_figures(verbs: Any) -> None:
    """The verb that scores models."""
    evaluate = verbs.add_parser(
        "evaluate",
        help="score a model",
        description="Scores a model, for instance a run's best checkpoint: figures with 95 % intervals by patient, and "
        "pictures.",
    )
    evaluate.add_argument("--model", "--workdir", type=Path, help=f"{_MODEL}; not with --submission")
    data = "prepared folder, or a source as for prepare (default: the model's training data)"
    evaluate.add_argument("--data", type=Path, help=data)
    split = "train: the patients it was trained on, as an upper bound (default: %(default)s)"
    evaluate.add_argument("--split", choices=("train", "val", "test", "all"), default="test", help=split)
    evaluate.add_argument("--against", type=Path, metavar="MODEL", help="another model: differences, paired by patient")
    flips = "test-time augmentation: score the mean over a slice's four flips; takes four times as long"
    evaluate.add_argument("--flips", action="store_true", help=flips)
    whole = "detect nodules in whole scans: FROC, and recall over the number of slices kept"
    evaluate.add_argument("--whole-scans", action="store_true", help=whole)
    evaluate.add_argument(
        "--candidate-classifier",
        type=Path,
        metavar="MODEL",
        default="candidate-classifier",
        help="of whole scans, as for predict (default: %(default)s)",
    )
    _add_labels(evaluate)
    fit = "of whole scans of val patients: store the thresholds for 1/8 to 8 false positives a scan, for predict"
    evaluate.add_argument("--fit-operating-point", action="store_true", help=fit)
    submission = "candidates of any detector, scored by LUNA16's rules"
    evaluate.add_argument("--submission", type=Path, metavar="CSV", help=submission)
    evaluate.add_argument("--luna16", type=Path, metavar="DIR", help="LUNA16's annotation files, for --submission")
    out = "JSON file to write; other files go next to it (default: WORKDIR/evaluation-SPLIT[-DATA].json)"
    evaluate.add_argument("--out", type=Path, help=out)


def _add_uses(verbs: Any) -> None:
    """The verbs that use a model, or show a run."""
    predict = verbs.add_parser(
        "predict",
        help="detect and classify the nodules of scans",
        description="Detects, measures and classifies the nodules of whole scans, and writes a folder for each scan. A "
        "second run resumes.",
    )
    scan = "folder of DICOM, of NIfTI or of MetaImage, a NIfTI or MetaImage file, or a prepared data set"
    predict.add_argument("scan", type=Path, metavar="SCAN", nargs="+", help=f"{scan}; two with --same-patient")
    predict.add_argument("--model", type=Path, default="detector", help=f"{_SEGMENTER} (default: %(default)s)")
    predict.add_argument(
        "--candidate-classifier",
        type=Path,
        metavar="MODEL",
        default="candidate-classifier",
        help="tells nodules from what resembles them, likewise; none: the segmenter alone (default: %(default)s)",
    )
    predict.add_argument(
        *("--nodule-classifier", "--grader"),
        type=Path,
        metavar="MODEL",
        default="nodule-classifier",
        help="model for the malignancy of each nodule (default: %(default)s)",
    )
    predict.add_argument(
        *("--patient-classifier", "--patient"),
        type=Path,
        metavar="MODEL",
        default="patient-classifier",
        help="model for the patient's probability (default: %(default)s)",
    )
    prevalence = (
        "share of positive patients that the patient's probability is for: lidc, as in its training; screening, 1.1 %% "
        "(National Lung Screening Trial, baseline); or a number between 0 and 1 (default: %(default)s)"
    )
    predict.add_argument("--prevalence", default="lidc", metavar="lidc|screening|NUMBER", help=prevalence)
    out = "folder to make; for several scans, with a folder for each"
    predict.add_argument("--out", type=Path, required=True, help=out)
    predict.add_argument("--device", choices=("cpu", "gpu", "tpu"), help="where it runs (default: JAX's own choice)")
    workers = "processes for many scans, about 1 GB each (default: %(default)s, which uses every core for a scan)"
    predict.add_argument("--workers", type=_positive, default=1, metavar="N", help=workers)
    predict.add_argument("--dask", metavar="ADDRESS", help="predict on the workers of this Dask scheduler")

    false_positives = "false positives a scan that are accepted, on average (default: see the model's card)"
    predict.add_argument("--false-positives", type=float, metavar="RATE", help=false_positives)
    predict.add_argument(
        "--threshold", type=float, help="score from which a candidate is a nodule, instead of a fitted one"
    )

    same = "compare two scans of a patient: match their nodules, and measure how they grew (extra follow-up)"
    predict.add_argument("--same-patient", action="store_true", help=same)
    dates = "YYYY-MM-DD of either scan, with --same-patient (default: the dates in their DICOM headers)"
    predict.add_argument("--dates", type=_date, nargs=2, metavar=("DATE", "DATE"), help=dates)

    gather = verbs.add_parser("gather", help="make training data from predicted nodules", description=_GATHER)
    gather.add_argument(
        "predicted", type=Path, metavar="PREDICTED", help="folder that predict wrote for the scans of --source"
    )
    gather.add_argument("--source", type=Path, required=True, help="LIDC-IDRI's DICOM, or LUNA16's MetaImage")
    gather.add_argument(
        "--out", type=Path, required=True, help=".npz file of patches to write; the labels go next to it in a .csv"
    )

    mine = verbs.add_parser(
        "mine",
        help="make training data of what a detector takes for nodules",
        description="Every candidate of a detector in prepared data, right or wrong, as a data set: for its second "
        "round of training, and to train a candidate classifier. A second run resumes.",
    )
    mine.add_argument("--model", type=Path, required=True, help=_SEGMENTER)
    mine.add_argument("--data", type=Path, required=True, nargs="+", help="prepared folders: whole scans, or crops")
    mine.add_argument("--out", type=Path, required=True, help="folder to make: the data set")

    export = verbs.add_parser(
        "export",
        help="write a model for other people and runtimes",
        description="Writes a model with its configuration and model card, and checks its predictions.",
    )
    export.add_argument("--model", "--workdir", type=Path, required=True, help=_MODEL)
    export.add_argument("--out", type=Path, required=True, help="folder to make")
    formats = (
        "safetensors, orbax: the weights; stablehlo, onnx: the whole network, to run without lungjax; torchvision: the "
        "encoder's weights"
    )
    choices = ("safetensors", "orbax", "stablehlo", "onnx", "torchvision")
    export.add_argument("--format", choices=choices, default="safetensors", help=f"{formats} (default: %(default)s)")
    dtype = "of the weights, for safetensors (default: %(default)s)"
    export.add_argument("--dtype", choices=("float16", "float32"), default="float32", help=dtype)

    report = verbs.add_parser(
        "report",
        help="show a training run on one page",
        description="Writes one HTML page about a training run, at any time: curves, examples, figures.",
    )
    report.add_argument("workdir", type=Path, metavar="WORKDIR", help="folder of a run, which may still be training")
    report.add_argument("--out", type=Path, help="HTML file (default: WORKDIR/report.html)")


def _date(text: str) -> datetime.date:
    try:
        return datetime.date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a date as 2024-01-31") from None


def _natural(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)
