"""The command line, `lungjax VERB ...`: each verb calls one function, and imports only what it needs."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lungjax
from lungjax import arguments, compiled, locks, paths
from lungjax.errors import MACHINE_ERRORS, InputError, told_once


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a verb; returns the exit code.

    0: done. 1: scans were refused or quarantined, and nothing else was done; or any was (`prepare --strict`), or would
    be (`doctor`). 2: a user's mistake, or a disk that is full or not writable. 130: interrupted.
    """
    given = arguments.parser().parse_args(argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # A file name need not be valid text.
    # NumPy multiplies small matrices alone: threads would only wait for each other, and burn a core that XLA could use.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    compiled.keep()
    try:
        _make_local(given)
        with told_once(), _lock(given):
            code = _RUN[given.verb](given)
        sys.stdout.flush()  # Here, where a full disk can still be reported.
        return code
    except InputError as error:
        print(f"lungjax: error: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # The reader of the output, for instance `head`, has stopped reading.
        _drop_output()
        return 0
    except OSError as error:
        if error.errno not in MACHINE_ERRORS:
            raise
        _drop_output()
        print(f"lungjax: error: {error.filename or _written(given)}: {error.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("lungjax: interrupted; run the same command again (prepare and predict resume)", file=sys.stderr)
        return 130


def _make_local(given: argparse.Namespace) -> None:
    """Replaces `~` in every path; refuses addresses."""
    for name, value in vars(given).items():
        if isinstance(value, Path):
            setattr(given, name, paths.local(value))
        elif isinstance(value, list):
            setattr(given, name, [paths.local(path) if isinstance(path, Path) else path for path in value])


def _lock(given: argparse.Namespace) -> contextlib.AbstractContextManager[None]:
    """One command at a time writes `--out`; prepare, mine and phantom lock what they make until it is complete."""
    if given.verb in ("predict", "gather", "export"):
        return locks.hold(locks.path_of(given.out), of=given.out, option="--out")
    return contextlib.nullcontext()


def _written(given: argparse.Namespace) -> str:
    """What was being written, for an error that names no file: `--out`, or this program's output."""
    return str(getattr(given, "out", None) or "output")


def _drop_output() -> None:
    """Discards what stdout still buffers: Python would otherwise try to write it again at exit, and report an error."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _doctor(given: argparse.Namespace) -> int:
    from lungjax.preparation import doctor
    from lungjax.preparation.choices import Choices

    choices = Choices(tuple(given.label), given.unlabelled_is_empty, given.patients)
    report = doctor.examine(given.path, format=given.format, choices=choices)
    print(json.dumps(report.as_json(), ensure_ascii=False) if given.json else report.text())
    return 1 if report.faults else 0


def _prepare(given: argparse.Namespace) -> int:
    summary = lungjax.prepare(
        given.source,
        given.out,
        format=given.format,
        workers=given.workers,
        dask=given.dask,
        overwrite=given.overwrite,
        without_patients=given.without_patients,
        labels=given.label,
        unlabelled_is_empty=given.unlabelled_is_empty,
        patients=given.patients,
    )
    print(summary.text())
    return 1 if given.strict and summary.quarantined else 0


def _phantom(given: argparse.Namespace) -> int:
    from lungjax.preparation import phantom

    written = phantom.write(given.out, scans=given.scans, seed=given.seed, matrix=given.matrix)
    print(f"{given.out}: {len(written)} phantom series written")
    return 0


def _evaluate(given: argparse.Namespace) -> int:
    lungjax.evaluate(
        given.model,
        data=given.data,
        split=given.split,
        out=given.out,
        against=given.against,
        flips=given.flips,
        whole_scans=given.whole_scans,
        candidate_classifier=_or_none(given.candidate_classifier),
        fit_operating_point=given.fit_operating_point,
        submission=given.submission,
        luna16=given.luna16,
        labels=given.label,
        unlabelled_is_empty=given.unlabelled_is_empty,
    )
    return 0


def _predict(given: argparse.Namespace) -> int:
    if given.same_patient:
        return _follow_up(given)
    if len(given.scan) > 1 or given.dates:
        raise InputError(
            "predict takes one SCAN, maybe a folder of many; two SCANs and --dates go with --same-patient."
        )
    from lungjax.prediction.run import predict

    asked = _networks_and_threshold(given)
    summary = predict(given.scan[0], out=given.out, workers=given.workers, dask=given.dask, **asked)
    print(summary.text())
    return 0 if any(report["refused"] is None for report in summary.reports.values()) else 1


def _follow_up(given: argparse.Namespace) -> int:
    if given.workers > 1 or given.dask is not None:
        raise InputError("predict --same-patient looks at two scans in one process; leave out --workers and --dask.")
    if len(given.scan) != 2:
        raise InputError(f"predict --same-patient compares two scans; {len(given.scan)} were given.")
    from lungjax.prediction.follow_up.run import predict

    summary = predict(
        (given.scan[0], given.scan[1]),
        out=given.out,
        dates_of=given.dates and tuple(given.dates),
        **_networks_and_threshold(given),
    )
    print(summary.text())
    return 1 if summary.follow_up["failed"] else 0


def _networks_and_threshold(given: argparse.Namespace) -> dict[str, Any]:
    return {
        "model": given.model,
        "candidate_classifier": _or_none(given.candidate_classifier),
        "nodule_classifier": given.nodule_classifier,
        "patient_classifier": given.patient_classifier,
        "prevalence": given.prevalence,
        "device": given.device,
        "false_positives": given.false_positives,
        "threshold": given.threshold,
    }


def _or_none(model: Path) -> Path | None:
    """None for the word none."""
    return None if str(model) == "none" else model


def _gather(given: argparse.Namespace) -> int:
    from lungjax.preparation.from_predictions import gather

    print(gather(given.predicted, source=given.source, out=given.out).text())
    return 0


def _mine(given: argparse.Namespace) -> int:
    from lungjax.preparation.mine import mine

    print(mine(given.model, given.data, given.out).text())
    return 0


def _export(given: argparse.Namespace) -> int:
    from lungjax.export.run import export

    export(given.model, given.out, format=given.format, dtype=given.dtype)
    return 0


def _report(given: argparse.Namespace) -> int:
    from lungjax.evaluation.run_report import write

    print(f"page: {write(given.workdir, out=given.out)}")
    return 0


_RUN = {
    "doctor": _doctor,
    "prepare": _prepare,
    "phantom": _phantom,
    "evaluate": _evaluate,
    "predict": _predict,
    "gather": _gather,
    "mine": _mine,
    "export": _export,
    "report": _report,
}


if __name__ == "__main__":
    sys.exit(main())
