"""The verbs, `lungjax doctor | prepare | ... | predict | report`: each imports what it needs as it runs."""

from __future__ import annotations

import argparse
import errno
import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import lungjax
from lungjax.lidc.scan import InputError

_OF_THE_MACHINE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}
"""Full or broken disks, and what one may not write: no fault of the program's, so no traceback."""


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 1 scans are quarantined (`prepare --strict`) or would be (`doctor`), 2 a user's mistake."""
    arguments = _parser().parse_args(argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # A file's name need not be text.
    try:
        code = arguments.run(arguments)
        sys.stdout.flush()  # Here, where a full disk can still be told.
        return code
    except InputError as error:
        print(f"lungjax: error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # The reader of our output, `head` say, has enough.
        _drop_output()
        return 0
    except OSError as error:
        if error.errno not in _OF_THE_MACHINE:
            raise
        _drop_output()
        print(f"lungjax: error: {error.filename or _written(arguments)}: {error.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("lungjax: interrupted; run the same command again (prepare goes on where it was)", file=sys.stderr)
        return 130


def _written(arguments: argparse.Namespace) -> str:
    """What was written when an error names no file: `--out` and what is in it, or this program's own output."""
    return str(getattr(arguments, "out", None) or "output")


def _drop_output() -> None:
    """What stdout still holds goes nowhere, or Python would try again, and complain, as it ends."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lungjax",
        description="From LIDC-IDRI CT scans to a pretrained lung-nodule model. Research software, not a medical "
        "device. Training: python -m lungjax.main --config=configs/simclr.py --workdir=DIR",
    )
    parser.add_argument("--version", action="version", version=f"lungjax {lungjax.__version__}")
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    doctor = verbs.add_parser("doctor", help="what prepare would say", description="Looks at a source, reads no voxel.")
    doctor.add_argument("path", type=Path, metavar="PATH", help="what `prepare --source` would be given")
    doctor.add_argument("--format", default="auto", help="as for prepare (default: %(default)s)")
    doctor.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    doctor.set_defaults(run=_doctor)

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
    prepare.set_defaults(run=_prepare)

    phantom = verbs.add_parser("phantom", help="LIDC-shaped DICOM series", description="Writes phantom LIDC series.")
    phantom.add_argument("--scans", type=_positive, required=True, help="how many of the database's 1,018")
    phantom.add_argument("--out", type=Path, required=True, help="folder to make")
    phantom.add_argument("--seed", type=_natural, default=0, help="default: %(default)s")
    phantom.add_argument("--matrix", type=_positive, default=512, help="rows and columns (default: %(default)s)")
    phantom.set_defaults(run=_phantom)

    evaluate = verbs.add_parser("evaluate", help="figures of a run", description="Scores a run's best checkpoint.")
    model = "a run's workdir, an exported folder, or one that comes along: segmenter, grader, patient, encoder"
    evaluate.add_argument("--model", "--workdir", type=Path, help=f"{model}; without --submission")
    evaluate.add_argument("--data", type=Path, help="prepared folder (default: the one it was trained with)")
    evaluate.add_argument("--split", choices=("val", "test", "all"), default="test", help="default: %(default)s")
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
    evaluate.set_defaults(run=_evaluate)

    predict = verbs.add_parser("predict", help="nodules of scans", description="Nodules of whole scans; resumes.")
    predict.add_argument("scan", type=Path, metavar="SCAN", help="folder of DICOM, NIfTI file, or prepared data set")
    predict.add_argument("--model", type=Path, required=True, help=f"a segmenter: {model}")
    predict.add_argument("--grader", type=Path, default="grader", help="of its nodules (default: the one shipped)")
    predict.add_argument("--patient", type=Path, default="patient", help="of the patient (default: the one shipped)")
    predict.add_argument("--out", type=Path, required=True, help="folder to make; of several scans, one each in it")
    predict.add_argument("--device", choices=("cpu", "gpu", "tpu"), help="default: JAX's own choice")
    predict.set_defaults(run=_predict)

    export = verbs.add_parser("export", help="a model to hand on", description="A model, configuration, model card.")
    export.add_argument("--model", "--workdir", type=Path, required=True, help=model)
    export.add_argument("--out", type=Path, required=True, help="folder to make")
    formats = "safetensors, orbax: weights; stablehlo, onnx: the network; torchvision: the encoder's weights"
    choices = ("safetensors", "orbax", "stablehlo", "onnx", "torchvision")
    export.add_argument("--format", choices=choices, default="safetensors", help=f"{formats} (default: %(default)s)")
    export.add_argument("--dtype", choices=("float16", "float32"), default="float32", help="default: %(default)s")
    export.set_defaults(run=_export)

    report = verbs.add_parser("report", help="the page of a run", description="One HTML file of a run, at any time.")
    report.add_argument("workdir", type=Path, metavar="WORKDIR", help="of a run, which may still be training")
    report.add_argument("--out", type=Path, help="HTML file (default: WORKDIR/report.html)")
    report.set_defaults(run=_report)
    return parser


def _natural(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 on")
    return int(text)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _doctor(arguments: argparse.Namespace) -> int:
    from lungjax.lidc import doctor

    report = doctor.examine(arguments.path, format=arguments.format)
    print(json.dumps(report.as_json(), ensure_ascii=False) if arguments.json else report.text())
    return 1 if report.faults else 0


def _prepare(arguments: argparse.Namespace) -> int:
    from lungjax.lidc.prepare import prepare

    summary = prepare(
        arguments.source,
        arguments.out,
        format=arguments.format,
        workers=arguments.workers,
        dask=arguments.dask,
        overwrite=arguments.overwrite,
        without_patients=arguments.without_patients,
    )
    print(summary.text())
    return 1 if arguments.strict and summary.quarantined else 0


def _phantom(arguments: argparse.Namespace) -> int:
    from lungjax.lidc import phantom

    written = phantom.write(arguments.out, scans=arguments.scans, seed=arguments.seed, matrix=arguments.matrix)
    print(f"{arguments.out}: {len(written)} phantom series written")
    return 0


def _evaluate(arguments: argparse.Namespace) -> int:
    if arguments.submission or arguments.luna16:
        return _evaluate_submission(arguments)
    if arguments.model is None:
        raise InputError("evaluate needs --model, or --submission and --luna16.")
    if arguments.whole_scans:
        return _evaluate_whole_scans(arguments)
    from lungjax.train.evaluation import evaluate

    evaluate(
        arguments.model,
        data=arguments.data,
        split=arguments.split,
        out=arguments.out,
        against=arguments.against,
        flips=arguments.flips,
    )
    return 0


def _evaluate_submission(arguments: argparse.Namespace) -> int:
    if arguments.submission is None or arguments.luna16 is None or arguments.model or arguments.data:
        raise InputError("evaluate --submission CSV needs --luna16 DIR, and takes neither --model nor --data.")
    from lungjax.deploy.submission import evaluate

    evaluate(arguments.submission, luna16=arguments.luna16, out=arguments.out)
    return 0


def _evaluate_whole_scans(arguments: argparse.Namespace) -> int:
    if arguments.data is None or arguments.against or arguments.flips:
        raise InputError("evaluate --whole-scans needs --data, and takes neither --against nor --flips.")
    from lungjax.deploy.whole_scans import evaluate

    evaluate(arguments.model, data=arguments.data, split=arguments.split, out=arguments.out)
    return 0


def _predict(arguments: argparse.Namespace) -> int:
    from lungjax.deploy.predict import predict

    summary = predict(
        arguments.scan,
        model=arguments.model,
        grader=arguments.grader,
        patient=arguments.patient,
        out=arguments.out,
        device=arguments.device,
    )
    print(summary.text())
    return 0


def _export(arguments: argparse.Namespace) -> int:
    from lungjax.deploy.export import export

    export(arguments.model, arguments.out, format=arguments.format, dtype=arguments.dtype)
    return 0


def _report(arguments: argparse.Namespace) -> int:
    from lungjax.deploy.training import write

    print(f"page: {write(arguments.workdir, out=arguments.out)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
