"""`lungjax predict`: every scan of a source, in one process or many; a faulty one stops none of the rest."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import json
import os
import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lungjax import compiled, json_files, platforms
from lungjax.ct import faults
from lungjax.ct.source import Entry, Quarantined, Reader, chief
from lungjax.errors import Fault, InputError, NothingDone, counted
from lungjax.prediction import pipeline, sources
from lungjax.prediction.outputs import folder as scan_folder
from lungjax.prediction.outputs import report_json
from lungjax.prediction.outputs.folder import REPORT
from lungjax.prediction.pipeline import Pipeline
from lungjax.preparation import spread
from lungjax.train import workdir

QUARANTINE = "quarantine.jsonl"


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a call has done.

    Attributes:
      out: the folder of all.
      reports: by the folder of each scan, its report.
      resumed: how many of them were there already.
      quarantined: what could not be read, and why.
    """

    out: Path
    reports: dict[Path, dict[str, Any]]
    resumed: int
    quarantined: Sequence[Quarantined]

    def text(self) -> str:
        """A line for each scan, with one for its patient, and for each that is quarantined."""
        lines = []
        for folder, report in self.reports.items():
            outcome = f"refused: {report['refused']}" if report["refused"] else _count(report)
            lines.append(f"{folder}: {outcome}")
            if not report["refused"] and report["patient"]["model"]:
                lines.append(f"  {_patient_line(report['patient'])}")
            lines += [f"  warning: {warning}" for warning in report["warnings"]]
        if self.resumed:
            lines.append(f"there already: {counted(self.resumed, 'scan')}")
        for scan in self.quarantined:
            lines.append(f"{'note' if scan.name in faults.NOTES else 'quarantined'}: {scan.name}: {scan.message}")
        return "\n".join(lines)


def _count(report: Mapping[str, Any]) -> str:
    return f"{counted(len(report['nodules']), 'nodule')} with a score of {report['threshold']:.3g} or more"


def _patient_line(patient: Mapping[str, Any]) -> str:
    if patient["probability"] is None:
        return f"no probability for the patient: {patient['reason']}"
    held = patient["prevalence"]
    share = "" if held["share"] is None else f", where {100 * held['share']:.3g} % of patients are positive"
    return f"the patient: {100 * patient['probability']:.1f} % at the prevalence {held['name']}{share}"


def predict(
    source: Path,
    *,
    model: Path | str,
    candidate_classifier: Path | str | None,
    nodule_classifier: Path | str | None,
    patient_classifier: Path | str | None,
    out: Path,
    prevalence: str | float = "lidc",
    device: str | None = None,
    false_positives: float | None = None,
    threshold: float | None = None,
    workers: int = 1,
    dask: str | None = None,
) -> Summary:
    """`lungjax.predict` of every scan of a source, saved.

    Args:
      source: see `lungjax.prediction.sources.find_scans`.
      model, candidate_classifier, nodule_classifier, patient_classifier, device: see `lungjax.predict`.
      prevalence, false_positives, threshold: likewise.
      out: folder to make. One scan's files lie in it; of several, each has a folder of its own in it that is named by
        its SeriesInstanceUID or, of NIfTI, its case; so has a single one where `out` is a mount point. What is there
        already is not made anew.
      workers: number of processes, each with the networks, a scan and its share of the cores. What is written does not
        depend on it.
      dask: address of a Dask scheduler, whose workers do it instead.

    Raises:
      InputError: no such source, model or device, nothing could be read, `out` holds something else, or a worker
        process died twice on the same scan.
    """
    if workers > 1:
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # Or else one process takes all of a GPU.
    networks = {
        "model": model,
        "candidate_classifier": candidate_classifier,
        "nodule_classifier": nodule_classifier,
        "patient_classifier": patient_classifier,
    }
    if dask is not None:  # Its workers run in other folders.
        source, out = Path(os.path.abspath(source)), Path(os.path.abspath(out))
        networks = {name: _absolute(network) for name, network in networks.items()}
    asked = _Asked(
        **networks, device=device, prevalence=prevalence, false_positives=false_positives, threshold=threshold
    )
    opened = asked.open()
    reader, entries, unreadable = sources.find_scans(source)
    many = len(entries) > 1 or platforms.is_fixed(out)
    reports: dict[Path, dict[str, Any]] = {}
    todo = []
    for entry in entries:
        folder = _folder_of(entry, out, many)
        if scan_folder.is_free(folder):
            todo.append(entry)
        else:
            reports[folder] = earlier_report(folder, opened)
    resumed = len(reports)
    if dask is None and min(workers, len(todo)) <= 1:
        function = functools.partial(_predict_one, reader, opened, out, many)
    else:
        function = functools.partial(_predict_in_worker, reader.__name__, asked, out, many)
    failed: dict[str, Quarantined] = {}
    paths = [source, next(path for path in (out, *out.parents) if path.exists())]
    with tqdm(total=len(entries), initial=resumed, unit="scan", disable=None if many else True) as bar:
        for entry, fault in spread.run(function, todo, workers=workers, dask=dask, paths=paths):
            if fault is None:
                folder = _folder_of(entry, out, many)
                reports[folder] = json_files.read(folder / REPORT)
            else:
                failed[entry.key] = fault
            bar.update()
    quarantined = [*unreadable, *(failed[entry.key] for entry in todo if entry.key in failed)]
    if not reports:
        raise _nothing_read(source, quarantined)
    _write_quarantine(out, quarantined)
    in_order = [folder for folder in (_folder_of(entry, out, many) for entry in entries) if folder in reports]
    return Summary(out, {folder: reports[folder] for folder in in_order}, resumed, quarantined)


@dataclasses.dataclass(frozen=True)
class _Asked:
    """What a pipeline is opened by; see `pipeline.open_pipeline`."""

    model: Path | str
    candidate_classifier: Path | str | None
    nodule_classifier: Path | str | None
    patient_classifier: Path | str | None
    device: str | None
    prevalence: str | float
    false_positives: float | None
    threshold: float | None

    def open(self) -> Pipeline:
        return pipeline.open_pipeline(**{field.name: getattr(self, field.name) for field in dataclasses.fields(self)})


def _absolute(network: Any) -> Any:
    return Path(os.path.abspath(network)) if network is not None and Path(network).exists() else network


def _folder_of(entry: Entry, out: Path, many: bool) -> Path:
    return out / file_name(entry.key) if many else out


def _predict_one(reader: Reader, opened: Pipeline, out: Path, many: bool, entry: Entry) -> Quarantined | None:
    """Predicts a scan and saves it; returns why it cannot be read, or None."""
    folder = _folder_of(entry, out, many)
    if not scan_folder.is_free(folder):  # A worker was killed after it had finished the scan.
        return None
    try:
        scan = sources.read(reader, entry)
    except Fault as fault:
        return Quarantined(entry.key, entry.where, fault.name, fault.message)
    opened.predict(scan).save(folder)
    return None


def _predict_in_worker(reader: str, asked: _Asked, out: Path, many: bool, entry: Entry) -> Quarantined | None:
    """As `_predict_one`, in a process that opens the networks once; a module is told by its name."""
    module: Any = importlib.import_module(reader)
    return _predict_one(module, _opened(asked), out, many, entry)


@functools.lru_cache(maxsize=1)
def _opened(asked: _Asked) -> Pipeline:
    compiled.keep()
    return asked.open()


def file_name(key: str) -> str:
    """A scan's key as the name of a folder: a UID as it is, anything else without slashes or a leading dot."""
    name = urllib.parse.quote(key, safe="")
    return f"%2E{name[1:]}" if name.startswith(".") else name


def earlier_report(folder: Path, opened: Pipeline) -> dict[str, Any]:
    """The report of an earlier call.

    Raises:
      InputError: the folder holds something else, or was made by other networks or another version.
    """
    try:
        report = json_files.read(folder / REPORT)
        schema, made_by = report["schema"], report["lungjax"]
        if schema not in report_json.READABLE:
            raise InputError(
                f"{folder} was made by another version of lungjax ({made_by}, whose reports have schema {schema}); "
                "name another --out."
            )
        threshold, patient = report["threshold"], report["patient"]
        models = {name: report.get(name) for name in ("model", "candidate_classifier", "nodule_classifier")}
        models["patient_classifier"] = patient["model"]
        report_json.check(report)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{folder} exists and holds no {REPORT} of ours; name another --out.") from error
    if models != opened.networks.descriptions() or threshold != opened.point.threshold:
        raise InputError(f"{folder} was made with another model or threshold; name another --out.")
    if patient.get("prevalence") != report_json.describe_prevalence(opened.prevalence):
        raise InputError(f"{folder} was made for another prevalence; name another --out.")
    return report


def _nothing_read(source: Path, quarantined: Sequence[Quarantined]) -> InputError:
    if not quarantined:
        return InputError(f"{source} holds no scan.")
    first = chief(quarantined)
    more = f" (and {len(quarantined) - 1} more)" if len(quarantined) > 1 else ""
    return NothingDone(f"{source}: no scan could be read: {first.name}: {first.message}{more}.")


def _write_quarantine(out: Path, quarantined: Sequence[Quarantined]) -> None:
    """What could not be read, a JSON object a line; no file where all could be."""
    path = out / QUARANTINE
    if not quarantined:
        path.unlink(missing_ok=True)
        return
    lines = (json.dumps(dataclasses.asdict(scan), ensure_ascii=False) + "\n" for scan in quarantined)
    workdir.write_text(path, "".join(lines))
