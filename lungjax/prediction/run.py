"""`lungjax predict`: nodules of whole scans, one after the other; a faulty one stops none of the rest."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import tempfile
import urllib.parse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from lungjax.ct import dicom
from lungjax.ct import read as ct
from lungjax.ct.scan import Scan
from lungjax.ct.source import Quarantined
from lungjax.errors import Fault, InputError
from lungjax.prediction import detection, pipeline, sources
from lungjax.prediction.outputs import contact_sheet, nifti_mask, report_json
from lungjax.prediction.outputs import html_report as page
from lungjax.prediction.pipeline import Networks
from lungjax.train import workdir

REPORT = "report.json"
QUARANTINE = "quarantine.jsonl"


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a call has done.

    Attributes:
      out: the folder of all.
      reports: the folder of each scan's result, and its report.
      resumed: how many of them were there already.
      quarantined: what could not be read, and why.
    """

    out: Path
    reports: dict[Path, dict[str, Any]]
    resumed: int
    quarantined: Sequence[Quarantined]

    def text(self) -> str:
        """A line a scan, and what was quarantined."""
        lines = []
        for folder, report in self.reports.items():
            said = f"refused: {report['refused']}" if report["refused"] else f"{len(report['nodules'])} nodules"
            lines.append(f"{folder}: {said}")
        if self.resumed:
            lines.append(f"{self.resumed} of them were there already")
        for one in self.quarantined:
            lines.append(f"quarantined: {one.name}: {one.message}")
        return "\n".join(lines)


def predict(
    source: Path, *, model: Path, grader: Path | None, patient: Path | None, out: Path, device: str | None = None
) -> Summary:
    """Looks for nodules in every scan of `source`.

    Args:
      source: see `lungjax.prediction.sources.find`.
      model: a segmenter, see `lungjax.train.trained.open_trained`.
      grader: likewise, of the nodules; None leaves them without a grade.
      patient: likewise, of the patient, from the nodules of each scan by itself; None leaves that without an answer.
      out: folder to make. One scan's files lie in it; of several, each in a folder of its own that is named by its
        SeriesInstanceUID or, of NIfTI, its case. What is there already is not made anew.
      device: `cpu`, `gpu` or `tpu`; JAX's own choice by default.

    Raises:
      InputError: no such source, model or device, nothing could be read, or `out` holds something else.
    """
    chosen = pipeline.find_device(device)
    with jax.default_device(chosen):
        used = pipeline.open_all(model, grader=grader, diagnoser=patient, device=chosen)
        return _predict_all(source, used, out)


def _predict_all(source: Path, used: Networks, out: Path) -> Summary:
    module, entries, quarantined = sources.find(source)
    faulty = list(quarantined)
    reports: dict[Path, dict[str, Any]] = {}
    resumed = 0
    for entry in tqdm(entries, unit="scan", disable=None if len(entries) > 1 else True):
        folder = out if len(entries) == 1 else out / file_name(entry.key)
        report = _earlier(folder, used)
        if report is None:
            try:
                scan = sources.read(module, entry)
            except Fault as fault:
                faulty.append(Quarantined(entry.key, entry.where, fault.name, fault.message))
                continue
            files = [Path(path) for path in entry.locator] if module is ct and Path(entry.where).is_dir() else []
            report = write(folder, scan, entry.where, used, dicom_files=files)
        else:
            resumed += 1
        reports[folder] = report
    if not reports:
        raise _nothing(source, faulty)
    _write_quarantine(out, faulty)
    return Summary(out, reports, resumed, faulty)


def write(folder: Path, scan: Scan, source: str, used: Networks, *, dicom_files: Sequence[Path] = ()) -> dict[str, Any]:
    """Looks for nodules in one scan, and makes its folder, complete or not at all; returns its report.

    Args:
      folder: what to make.
      scan: where to look.
      source: where it is from, for the report.
      used: the networks.
      dicom_files: the scan's, where it has any: a segmentation and a structured report then refer to them.
    """
    found, report = pipeline.look(scan, source, used)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as holder:
        temporary = Path(holder) / folder.name
        temporary.mkdir()
        (temporary / "nodules.csv").write_text(report_json.table(report["nodules"]))
        if found.refused is None:  # Else a mask would say that there is no nodule.
            nifti_mask.write(temporary / "mask.nii.gz", found.mask, report_json.affine_of(scan))
            contact_sheet.draw(temporary / "overlay.png", hu=scan.voxels, mask=found.mask, report=report)
            if dicom_files:
                report["warnings"] += _write_dicom(temporary, dicom_files, scan, found.mask, report)
            page.write(temporary / "report.html", hu=scan.voxels, mask=found.mask, report=report)
        (temporary / REPORT).write_text(json.dumps(report, indent=1) + "\n")
        temporary.replace(folder)
    return report


def _write_dicom(
    folder: Path, files: Sequence[Path], scan: Scan, mask: np.ndarray, report: dict[str, Any]
) -> list[str]:
    """What DICOM can say of the nodules; or a sentence why it is not said."""
    if importlib.util.find_spec("highdicom") is None:
        return ["No DICOM segmentation and structured report: they need `pip install 'lungjax[dicom-seg]'`."]
    from lungjax.prediction.outputs import dicom_seg

    try:
        dicom_seg.write(folder, dicom.read_headers(files, scan.sop_uids), mask, report)
    except (AttributeError, ValueError, TypeError, Fault) as error:  # Headers may lack whatever DICOM demands.
        return [f"No DICOM segmentation and structured report: the scan's headers do not allow it ({error})."]
    return []


def file_name(key: str) -> str:
    """A scan's key as the name of a folder: a UID as it is, anything else without slashes or a leading dot."""
    name = urllib.parse.quote(key, safe="")
    return f"%2E{name[1:]}" if name.startswith(".") else name


def _earlier(folder: Path, used: Networks) -> dict[str, Any] | None:
    """The report of an earlier call, or None where the folder is not there, or empty.

    Args:
      folder: of a scan.
      used: the networks it must have been made with.

    Raises:
      InputError: it holds something else, or was made with another model.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    try:
        report = json.loads((folder / REPORT).read_text())
        schema, threshold = report["schema"], report["threshold"]
        before = {"model": report["model"], "grader": report["grader"], "patient": report["patient"].get("model")}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{folder} exists and holds no {REPORT} of ours; name another --out.") from error
    if schema != report_json.SCHEMA:
        raise InputError(f"{folder} was made by another version of lungjax; name another --out.")
    if before != used.described() or threshold != detection.THRESHOLD:
        raise InputError(f"{folder} was made with another model or threshold; name another --out.")
    return report


def _nothing(source: Path, faulty: Sequence[Quarantined]) -> InputError:
    if not faulty:
        return InputError(f"{source} holds no scan.")
    more = f" (and {len(faulty) - 1} more)" if len(faulty) > 1 else ""
    return InputError(f"{source}: no scan could be read: {faulty[0].name}: {faulty[0].message}{more}.")


def _write_quarantine(out: Path, faulty: Sequence[Quarantined]) -> None:
    """What could not be read, a JSON object a line; no file where all could be."""
    path = out / QUARANTINE
    if not faulty:
        path.unlink(missing_ok=True)
        return
    lines = (json.dumps(dataclasses.asdict(one), ensure_ascii=False) + "\n" for one in faulty)
    workdir.write_text(path, "".join(lines))
