"""`lungjax predict A B --same-patient`: both scans predicted, each in its own folder, and compared."""

from __future__ import annotations

import dataclasses
import datetime
from pathlib import Path
from typing import Any

import numpy as np

from lungjax import json_files
from lungjax.ct.scan import Scan
from lungjax.errors import InputError
from lungjax.prediction import api, pipeline
from lungjax.prediction import run as single
from lungjax.prediction.follow_up import compare
from lungjax.prediction.follow_up.compared import ComparedScan
from lungjax.prediction.outputs import folder as scan_folder
from lungjax.prediction.outputs import follow_up_folder, follow_up_json, nifti_mask
from lungjax.prediction.pipeline import Pipeline


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a call has done.

    Attributes:
      out: the folder of all.
      follow_up: what follow-up.json holds.
      resumed: whether it was there already.
    """

    out: Path
    follow_up: dict[str, Any]
    resumed: bool

    def text(self) -> str:
        """A few lines: warnings, and how many nodules were matched, or why none."""
        follow_up = self.follow_up
        lines = [follow_up["no_days_reason"] or f"{follow_up['days']} days lie between the scans."]
        lines += follow_up["warnings"]
        if follow_up["failed"]:
            lines.append(follow_up["failed"])
        else:
            counts = [f"{len(follow_up[name])} {name.replace('_', ' ')}" for name in ("matched", "new", "gone")]
            lines.append(f"nodules: {', '.join(counts)}, {len(follow_up['not_shown'])} not shown by the other scan")
        there = ", which was there already" if self.resumed else ""
        return "\n".join([*lines, f"{self.out / follow_up_folder.PAGE}{there}"])


def predict(
    sources: tuple[Path, Path],
    *,
    model: Path | str,
    candidate_classifier: Path | str | None,
    nodule_classifier: Path | str | None,
    patient_classifier: Path | str | None,
    out: Path,
    device: str | None = None,
    prevalence: str | float = "lidc",
    false_positives: float | None = None,
    threshold: float | None = None,
    dates_of: tuple[datetime.date, datetime.date] | None = None,
) -> Summary:
    """`lungjax.predict` of two scans of a patient, saved, and `lungjax.compare` of both, saved.

    Args:
      sources: each holds one scan.
      model, candidate_classifier, nodule_classifier, patient_classifier, device: see `lungjax.predict`.
      prevalence, false_positives, threshold: likewise.
      out: folder to make: OUT/first and OUT/second, the scans in the order of time, as `lungjax predict` writes each,
        and follow-up.json, .csv and .html. What is there already is not made anew.
      dates_of: of the scans in the order they were given, in place of those of their headers.

    Raises:
      InputError: no such source, model or device; a source does not hold exactly one scan; they are of different
        patients; SimpleITK is missing; or `out` holds something else.
    """
    first, second = (api.read_scan(source) for source in sources)
    order = compare.ordered((first, second), dates_of)
    scans = (second, first) if order.swapped else (first, second)
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
    compared = [
        _predicted(scan, date, out / name, opened)
        for scan, date, name in zip(scans, order.dates, ("first", "second"), strict=True)
    ]
    earlier = _earlier(out, compared)
    if earlier is not None:
        return Summary(out, earlier, True)
    follow_up = compare.compare_scans(compared[0], compared[1], order)
    follow_up.save(out)
    return Summary(out, follow_up.to_dict(), False)


def _predicted(scan: Scan, date: datetime.date | None, folder: Path, opened: Pipeline) -> ComparedScan:
    """A scan with what was predicted of it, now or by an earlier call, as its folder holds it."""
    if scan_folder.is_free(folder):
        opened.predict(scan).save(folder)
    report = single.earlier_report(folder, opened)
    if (report["scan"]["series_uid"], report["scan"]["source"]) != (scan.series_uid, scan.source):
        raise InputError(f"{folder} holds what was predicted of {report['scan']['source']}; name another --out.")
    mask = np.zeros(scan.voxels.shape, np.uint8)
    if report["refused"] is None:
        mask = nifti_mask.read(folder / "mask.nii.gz", scan.turn)
    return ComparedScan(scan, report, mask, date)


def _earlier(out: Path, compared: list[ComparedScan]) -> dict[str, Any] | None:
    """What an earlier call has written of the same predictions; None where nothing.

    Raises:
      InputError: of others, or by another version.
    """
    path = out / follow_up_folder.REPORT
    if not path.exists():
        for name in (follow_up_folder.PAGE, follow_up_folder.TABLE):  # Left by a call that was killed as it ended.
            (out / name).unlink(missing_ok=True)
        return None
    try:
        follow_up = json_files.read(path)
        is_ours = follow_up["schema"] == follow_up_json.SCHEMA
        made = [follow_up[name]["made"] for name in ("first", "second")]
        dates = [follow_up[name]["date"] for name in ("first", "second")]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is none of ours; name another --out.") from error
    if not is_ours:
        raise InputError(f"{path} was made by another version of lungjax; name another --out.")
    asked = [None if scan.date is None else scan.date.isoformat() for scan in compared]
    if made != [scan.report["made"] for scan in compared] or dates != asked:
        raise InputError(f"{path} is of other predictions or dates; name another --out.")
    return follow_up
