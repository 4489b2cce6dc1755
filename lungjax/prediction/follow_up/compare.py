"""From two predictions of a patient to matched nodules and their growth."""

from __future__ import annotations

import datetime
import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from lungjax.ct.scan import Scan
from lungjax.errors import Fault, InputError
from lungjax.prediction.follow_up import dates, growth, matching, registration
from lungjax.prediction.follow_up.compared import CANDIDATE_MM, ComparedScan, MatchedNodule, UnmatchedNodule
from lungjax.prediction.follow_up.dates import Order
from lungjax.prediction.follow_up.registration import NotRegistered, Registration
from lungjax.prediction.follow_up.result import FollowUp
from lungjax.prediction.outputs import report_json
from lungjax.prediction.result import Prediction

_SLICES_ALIKE = 1.5
"""Volumes from slices whose spacings differ by more than this factor are compared with a warning."""
_UNKNOWN = ("", "unknown")


def compare(
    first: Prediction, second: Prediction, *, dates_of: Sequence[datetime.date | None] | None = None
) -> FollowUp:
    """See `lungjax.compare`."""
    for given in (first, second):
        if not isinstance(given, Prediction):
            raise InputError(f"compare takes two predictions, not a {type(given).__name__}; make each by predict.")
    order = ordered((first.scan, second.scan), dates_of)
    compared = [
        ComparedScan(prediction.scan, prediction.to_dict(), prediction.mask, date)
        for prediction, date in zip((second, first) if order.swapped else (first, second), order.dates, strict=True)
    ]
    return compare_scans(compared[0], compared[1], order)


def ordered(scans: tuple[Scan, Scan], dates_of: Sequence[datetime.date | None] | None) -> Order:
    """Two scans in the order of time, if they can be of one patient.

    Args:
      scans: as they were given.
      dates_of: when each was made; by default as their DICOM files say.

    Raises:
      InputError: they are of different patients, or the same scan twice, or SimpleITK is not installed.
    """
    registration.check_installed()
    first, second = scans
    if _patient_id(first) and _patient_id(second) and first.patient_id != second.patient_id:
        raise InputError(
            f"the scans are of different patients: {_where(first)} of {first.patient_id!r}, "
            f"{_where(second)} of {second.patient_id!r}; give two scans of one patient."
        )
    if _is_same(first, second):
        raise InputError(f"{_where(first)} and {_where(second)} are the same scan; give two scans of a patient.")
    if dates_of is None:
        dates_of = [_date_of(scan) for scan in scans]
    return dates.order(*dates_of, today=datetime.datetime.now(datetime.UTC).date())


def _date_of(scan: Scan) -> datetime.date | None:
    try:
        return dates.date_of(scan)
    except Fault as fault:
        raise InputError(f"{fault.message}.") from fault


def _patient_id(scan: Scan) -> str | None:
    """The PatientID, where the source has one: of NIfTI the name of the file takes its place."""
    known = scan.patient_id not in _UNKNOWN and scan.patient_id != scan.series_uid
    return scan.patient_id if known else None


def _is_same(first: Scan, second: Scan) -> bool:
    if first.dicom_files and second.dicom_files:
        return first.series_uid == second.series_uid
    alike = (first.source, first.series_uid) == (second.source, second.series_uid)
    return first.voxels is second.voxels or (alike and first.series_uid != "")  # An array has none.


def _where(scan: Scan) -> str:
    return scan.source or scan.series_uid or "an array"


def compare_scans(first: ComparedScan, second: ComparedScan, order: Order) -> FollowUp:
    """Registers two scans, in the order of time, and matches what was predicted in them."""
    warnings = _warnings(first, second, order)
    failed, registered = None, None
    try:
        registered = _registered(first, second)
        if not registered.spline:
            warnings.append("The lungs were registered by affine transform alone: a B-spline would have folded them.")
    except NotRegistered as reason:
        failed = f"No nodules were matched. {reason}"
    matched: list[MatchedNodule] = []
    alone: list[UnmatchedNodule] = []
    if registered is not None:
        matched, alone = _match(first, second, registered, order.days)
    return FollowUp(
        first=first,
        second=second,
        days=order.days,
        no_days_reason=order.reason,
        failed=failed,
        lung_dice=None if registered is None else registered.lung_dice,
        affine_lps=None if registered is None else registered.affine_lps,
        spline=registered is not None and registered.spline,
        matched=tuple(matched),
        new=tuple(nodule for nodule in alone if nodule.shown and nodule.scan == "second"),
        gone=tuple(nodule for nodule in alone if nodule.shown and nodule.scan == "first"),
        not_shown=tuple(nodule for nodule in alone if not nodule.shown),
        warnings=tuple(warnings),
        made=report_json.now(),
    )


def _warnings(first: ComparedScan, second: ComparedScan, order: Order) -> list[str]:
    sentences = [] if order.warning is None else [order.warning]
    without = [name for name, compared in (("first", first), ("second", second)) if _patient_id(compared.scan) is None]
    if without:
        whose = f"The {without[0]} scan has" if len(without) == 1 else "Neither scan has"
        number = "a" if len(without) == 2 else "no"
        sentences.append(f"{whose} {number} PatientID: that they are of one patient has not been checked.")
    if any(first.report[name] != second.report[name] for name in ("model", "candidate_classifier", "threshold")):
        sentences.append("The scans were read by different models or thresholds: volumes may differ by that alone.")
    slices_mm = [compared.scan.spacing_mm[0] for compared in (first, second)]
    if max(slices_mm) > _SLICES_ALIKE * min(slices_mm):
        apart = " and ".join(f"{mm:.3g}" for mm in slices_mm)
        sentences.append(f"The slices are {apart} mm apart: volumes may differ by that alone.")
    for name, compared in (("first", first), ("second", second)):
        sentences += [f"Of the {name} scan: {sentence}" for sentence in compared.report["warnings"]]
    return sentences


def _registered(first: ComparedScan, second: ComparedScan) -> Registration:
    for name, compared in (("first", first), ("second", second)):
        if compared.report["refused"] is not None:
            raise NotRegistered(f"The {name} scan was refused: {compared.report['refused']}")
    return registration.register(first.scan, second.scan, first.mask, second.mask)


def _match(
    first: ComparedScan, second: ComparedScan, registered: Registration, days: int | None
) -> tuple[list[MatchedNodule], list[UnmatchedNodule]]:
    earlier, later = list(first.report["nodules"]), list(second.report["nodules"])
    forth_mm, back_mm = registered.to_second(_centres_mm(earlier)), registered.to_first(_centres_mm(later))
    pairs = matching.match(forth_mm, _centres_mm(later), _longest_mm(earlier), _longest_mm(later))
    voxels_mm3 = (math.prod(first.scan.spacing_mm), math.prod(second.scan.spacing_mm))
    matched = []
    for row, column, distance_mm in pairs:
        before, after = earlier[row], later[column]
        volumes_mm3 = (before["volume_mm3"], after["volume_mm3"])
        grown = growth.grown(volumes_mm3, voxels_mm3)
        matched.append(
            MatchedNodule(
                first=before["number"],
                second=after["number"],
                distance_mm=distance_mm,
                volumes_mm3=volumes_mm3,
                longest_mm=(before["longest_mm"], after["longest_mm"]),
                growth=grown,
                doubling_time=None if days is None else growth.doubling_time(grown, days),
            )
        )
    rows, columns = {row for row, _, _ in pairs}, {column for _, column, _ in pairs}
    alone = [
        _unmatched("first", nodule, place, second)
        for number, (nodule, place) in enumerate(zip(earlier, forth_mm, strict=True))
        if number not in rows
    ]
    alone += [
        _unmatched("second", nodule, place, first)
        for number, (nodule, place) in enumerate(zip(later, back_mm, strict=True))
        if number not in columns
    ]
    return matched, alone


def _unmatched(
    scan: Literal["first", "second"], nodule: dict[str, Any], place_mm: np.ndarray, other: ComparedScan
) -> UnmatchedNodule:
    """A nodule of `scan` that lies at `place_mm` in the `other` scan."""
    candidates = other.report["candidates"]
    away_mm = np.linalg.norm(_centres_mm(candidates) - place_mm, axis=1)
    near = bool(len(candidates)) and away_mm.min() <= CANDIDATE_MM
    x_mm, y_mm, z_mm = place_mm.tolist()
    return UnmatchedNodule(
        scan=scan,
        number=nodule["number"],
        volume_mm3=nodule["volume_mm3"],
        longest_mm=nodule["longest_mm"],
        place_mm=(x_mm, y_mm, z_mm),
        shown=is_shown(place_mm, other.scan),
        candidate=candidates[int(away_mm.argmin())]["number"] if near else None,
    )


def is_shown(place_mm: np.ndarray, scan: Scan) -> bool:
    """Whether a place in mm lies in a voxel of a scan."""
    at = report_json.voxel_of(scan, place_mm)
    return bool(np.all((at >= -0.5) & (at <= np.array(scan.voxels.shape) - 0.5)))


def _centres_mm(nodules: Sequence[dict[str, Any]]) -> np.ndarray:
    return np.array([nodule["centre_mm"] for nodule in nodules], np.float64).reshape(-1, 3)


def _longest_mm(nodules: Sequence[dict[str, Any]]) -> np.ndarray:
    return np.array([nodule["longest_mm"] for nodule in nodules], np.float64)
