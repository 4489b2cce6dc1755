"""`lungjax predict`: every scan of a source, one after the other; a faulty one stops none of the rest."""

from __future__ import annotations

import dataclasses
import json
import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lungjax.ct import faults
from lungjax.ct.source import Quarantined
from lungjax.errors import Fault, InputError
from lungjax.prediction import pipeline, sources
from lungjax.prediction.outputs import folder as scan_folder
from lungjax.prediction.outputs import report_json
from lungjax.prediction.outputs.folder import REPORT
from lungjax.prediction.pipeline import Pipeline
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
            lines += [f"  {warning}" for warning in report["warnings"]]
            if not report["refused"] and report["patient"]["model"]:
                lines.append(f"  {_patient_line(report['patient'])}")
        if self.resumed:
            lines.append(f"{self.resumed} of them were there already")
        for scan in self.quarantined:
            lines.append(f"{'note' if scan.name in faults.NOTES else 'quarantined'}: {scan.name}: {scan.message}")
        return "\n".join(lines)


def _count(report: Mapping[str, Any]) -> str:
    return f"{len(report['nodules'])} nodules, from a score of {report['threshold']:.3g} on"


def _patient_line(patient: Mapping[str, Any]) -> str:
    if patient["probability"] is None:
        return f"no probability for the patient: {patient['reason']}"
    held = patient["prevalence"]
    share = "" if held["share"] is None else f", {100 * held['share']:.3g} % of patients"
    return f"the patient: {100 * patient['probability']:.1f} %, for the prevalence {held['name']}{share}"


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
) -> Summary:
    """`lungjax.predict` of every scan of a source, saved.

    Args:
      source: see `lungjax.prediction.sources.find_scans`.
      model, candidate_classifier, nodule_classifier, patient_classifier, device: see `lungjax.predict`.
      prevalence, false_positives, threshold: likewise.
      out: folder to make. One scan's files lie in it; of several, each has a folder of its own in it that is named by
        its SeriesInstanceUID or, of NIfTI, its case. What is there already is not made anew.

    Raises:
      InputError: no such source, model or device, nothing could be read, or `out` holds something else.
    """
    opened = pipeline.open_pipeline(
        model,
        candidate_classifier=candidate_classifier,
        nodule_classifier=nodule_classifier,
        patient_classifier=patient_classifier,
        device=device,
        prevalence=prevalence,
        false_positives=false_positives,
        threshold=threshold,
    )
    module, entries, unreadable = sources.find_scans(source)
    quarantined = list(unreadable)
    reports: dict[Path, dict[str, Any]] = {}
    resumed = 0
    for entry in tqdm(entries, unit="scan", disable=None if len(entries) > 1 else True):
        folder = out if len(entries) == 1 else out / file_name(entry.key)
        if not scan_folder.is_free(folder):
            reports[folder] = earlier_report(folder, opened)
            resumed += 1
            continue
        try:
            scan = sources.read(module, entry)
        except Fault as fault:
            quarantined.append(Quarantined(entry.key, entry.where, fault.name, fault.message))
            continue
        opened.predict(scan).save(folder)
        reports[folder] = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    if not reports:
        raise _nothing_read(source, quarantined)
    _write_quarantine(out, quarantined)
    return Summary(out, reports, resumed, quarantined)


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
        report = json.loads((folder / REPORT).read_text(encoding="utf-8"))
        schema, threshold, patient = report["schema"], report["threshold"], report["patient"]
        models = {name: report.get(name) for name in ("model", "candidate_classifier", "nodule_classifier")}
        models["patient_classifier"] = patient["model"] if schema in report_json.READABLE else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{folder} exists and holds no {REPORT} of ours; name another --out.") from error
    if schema not in report_json.READABLE:
        raise InputError(f"{folder} was made by another version of lungjax; name another --out.")
    if models != opened.networks.descriptions() or threshold != opened.point.threshold:
        raise InputError(f"{folder} was made with another model or threshold; name another --out.")
    if patient.get("prevalence") != report_json.describe_prevalence(opened.prevalence):
        raise InputError(f"{folder} was made for another prevalence; name another --out.")
    return report


def _nothing_read(source: Path, quarantined: Sequence[Quarantined]) -> InputError:
    if not quarantined:
        return InputError(f"{source} holds no scan.")
    more = f" (and {len(quarantined) - 1} more)" if len(quarantined) > 1 else ""
    return InputError(f"{source}: no scan could be read: {quarantined[0].name}: {quarantined[0].message}{more}.")


def _write_quarantine(out: Path, quarantined: Sequence[Quarantined]) -> None:
    """What could not be read, a JSON object a line; no file where all could be."""
    path = out / QUARANTINE
    if not quarantined:
        path.unlink(missing_ok=True)
        return
    lines = (json.dumps(dataclasses.asdict(scan), ensure_ascii=False) + "\n" for scan in quarantined)
    workdir.write_text(path, "".join(lines))
