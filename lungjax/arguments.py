"""What the verbs take."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import lungjax

_MODEL = (
    "a run's workdir, an exported folder, or a bundled model: detector, segmenter, nodule-classifier, "
    "patient-classifier, encoder"
)

_GATHER = "Patches of what predict found, with what the readers said of it, and a label for each patient."


def parser() -> argparse.ArgumentParser:
    """Of the command line; `verb` is the verb."""
    made = argparse.ArgumentParser(
        prog="lungjax",
        description="From LIDC-IDRI CT scans to a pretrained lung-nodule model. Research software, not a medical "
        "device. Training: python -m lungjax.main --config=simclr --workdir=DIR",
    )
    made.add_argument("--version", action="version", version=f"lungjax {lungjax.__version__}")
    verbs = made.add_subparsers(required=True, dest="verb", metavar="VERB")
    for add in (_add_sources, _add_scores, _add_uses):
        add(verbs)
    return made


def _add_sources(verbs: Any) -> None:
    """Verbs that make or look at data."""
    doctor = verbs.add_parser("doctor", help="what prepare would say", description="Looks at a source, reads no voxel.")
    doctor.add_argument("path", type=Path, metavar="PATH", help="what `prepare --source` would be given")
    doctor.add_argument("--format", default="auto", help="as for prepare (default: %(default)s)")
    doctor.add_argument("--json", action="store_true", help="print one JSON object instead of a table")

    prepare = verbs.add_parser("prepare", help="scans to shards", description="Scans to shards; a second run resumes.")
    prepare.add_argument("--source", type=Path, required=True, help="folder of DICOM, or folder, zip or tar of slices")
    prepare.add_argument("--out", type=Path, required=True, help="data set folder to make")
    formats = (
        "auto, lidc, slices, lungd-png, jaeho-npy, luna16, nifti, prob-unet-pickle, prob-unet-hdf5 or nodule-patches"
    )
    prepare.add_argument("--format", default="auto", help=f"{formats} (default: %(default)s)")
    prepare.add_argument("--workers", type=_positive, help="processes (default: one a core)")
    prepare.add_argument("--dask", metavar="ADDRESS", help="read the scans on the workers of this Dask scheduler")
    prepare.add_argument("--overwrite", action="store_true", help="remove an earlier result first")
    prepare.add_argument("--strict", action="store_true", help="exit code 1 if a scan was quarantined")
    prepare.add_argument("--without-patients", action="store_true", help="take a source that does not tell them, too")

    phantom = verbs.add_parser("phantom", help="LIDC-shaped DICOM series", description="Writes phantom LIDC series.")
    phantom.add_argument("--scans", type=_positive, required=True, help="how many of the database's 1,018")
    phantom.add_argument("--out", type=Path, required=True, help="folder to make")
    phantom.add_argument("--seed", type=_natural, default=0, help="default: %(default)s")
    phantom.add_argument("--matrix", type=_positive, default=512, help="rows and columns (default: %(default)s)")


def _add_scores(verbs: Any) -> None:
    """Verbs that score."""
    evaluate = verbs.add_parser("evaluate", help="figures of a run", description="Scores a run's best checkpoint.")
    evaluate.add_argument("--model", "--workdir", type=Path, help=f"{_MODEL}; without --submission")
    evaluate.add_argument("--data", type=Path, help="prepared folder (default: the one it was trained with)")
    split = "train: what it was taught with, to tell how far it can be taught (default: %(default)s)"
    evaluate.add_argument("--split", choices=("train", "val", "test", "all"), default="test", help=split)
    evaluate.add_argument("--against", type=Path, metavar="MODEL", help="another model: differences, paired by patient")
    evaluate.add_argument(
        "--flips", action="store_true", help="mean of the answers to a slice's four flips; 4x the time"
    )
    evaluate.add_argument(
        "--whole-scans", action="store_true", help="find nodules in whole scans: FROC, and recall over slices kept"
    )
    evaluate.add_argument("--submission", type=Path, metavar="CSV", help="a detector's candidates, scored as in LUNA16")
    evaluate.add_argument("--luna16", type=Path, metavar="DIR", help="LUNA16's annotation files, for --submission")
    evaluate.add_argument("--out", type=Path, help="JSON file (default: WORKDIR/evaluation-SPLIT[-DATA].json)")


def _add_uses(verbs: Any) -> None:
    """Verbs that put a model to use."""
    predict = verbs.add_parser("predict", help="nodules of scans", description="Nodules of whole scans; resumes.")
    predict.add_argument("scan", type=Path, metavar="SCAN", help="folder of DICOM, NIfTI file, or prepared data set")
    predict.add_argument("--model", type=Path, default="detector", help=f"segmenter: {_MODEL} (default: %(default)s)")
    predict.add_argument(
        *("--nodule-classifier", "--grader"),
        type=Path,
        metavar="MODEL",
        default="nodule-classifier",
        help="for the malignancy of each nodule, likewise (default: %(default)s)",
    )
    predict.add_argument(
        *("--patient-classifier", "--patient"),
        type=Path,
        metavar="MODEL",
        default="patient-classifier",
        help="for the patient's probability, likewise (default: %(default)s)",
    )
    predict.add_argument("--out", type=Path, required=True, help="folder to make; of several scans, one each in it")
    predict.add_argument("--device", choices=("cpu", "gpu", "tpu"), help="default: JAX's own choice")

    gather = verbs.add_parser("gather", help="predict's findings, to learn from", description=_GATHER)
    gather.add_argument("predicted", type=Path, metavar="PREDICTED", help="what predict wrote of the scans")
    gather.add_argument("--source", type=Path, required=True, help="the scans: LIDC-IDRI's DICOM, LUNA16's MetaImage")
    gather.add_argument("--out", type=Path, required=True, help=".npz of patches; the labels beside it in a .csv")

    export = verbs.add_parser("export", help="a model to hand on", description="A model, configuration, model card.")
    export.add_argument("--model", "--workdir", type=Path, required=True, help=_MODEL)
    export.add_argument("--out", type=Path, required=True, help="folder to make")
    formats = "safetensors, orbax: weights; stablehlo, onnx: the network; torchvision: the encoder's weights"
    choices = ("safetensors", "orbax", "stablehlo", "onnx", "torchvision")
    export.add_argument("--format", choices=choices, default="safetensors", help=f"{formats} (default: %(default)s)")
    export.add_argument("--dtype", choices=("float16", "float32"), default="float32", help="default: %(default)s")

    report = verbs.add_parser("report", help="the page of a run", description="One HTML file of a run, at any time.")
    report.add_argument("workdir", type=Path, metavar="WORKDIR", help="of a run, which may still be training")
    report.add_argument("--out", type=Path, help="HTML file (default: WORKDIR/report.html)")


def _natural(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 on")
    return int(text)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)
