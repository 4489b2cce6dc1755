"""`follow-up.json` and `follow-up.csv`: two scans of a patient compared, for programs to read.

follow-up.json, schema 1:

    schema, lungjax, made, notice   1; version; ISO 8601 time; what it must not be used for
    first, second   the earlier and the later scan: date (ISO 8601, or null), patient_id, series_uid, source, spacing_mm
                    [slice, row, column], made (of its report), nodules (how many)
    days        between them; null where that is not known, and then no_days_reason is a sentence
    failed      null, or one sentence why no nodules were matched
    warnings    sentences that must be known to read the rest
    registration    null where it failed: lung_dice, least_dice, spline (whether a B-spline refined it), affine_lps (4 x
                    4, its affine part, from mm in the first scan to mm in the second)
    gate_mm     nodules further apart after registration are not matched, unless their radius is larger
    interval    one sentence: what the intervals of growth are made of
    matched     nodules of both scans: first, second (their numbers), distance_mm (after registration), volumes_mm3
                [first, second], longest_mm [first, second], growth_percent, growth_percent_interval [low, high] (95 %),
                change ("larger", "smaller" or "within measurement error"), doubling_days (or null),
                doubling_days_interval [low, high] (high is null where there is no upper limit; null where there is
                none), doubling_reason (null, or one sentence why there is no doubling time)
    new, gone   nodules of the second scan alone, and of the first alone: number, volume_mm3, longest_mm, place_mm [x,
                y, z] (where it would lie in the other scan), candidate (number of the other scan's candidate below the
                threshold within 5 mm of that place, or null)
    not_shown   nodules of one scan whose place the other one does not show: likewise, and scan ("first" or "second")
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from lungjax.prediction.follow_up import growth, matching, registration
from lungjax.prediction.follow_up.compared import ComparedScan, MatchedNodule, UnmatchedNodule
from lungjax.prediction.outputs import report_json
from lungjax.version import VERSION

SCHEMA = 1
INTERVAL = (
    "95 % intervals: two scans of an unchanged solid nodule differ by up to "
    f"{100 * growth.PUBLISHED:.0f} % (Gietema et al., Radiology 2007; Callister et al., Thorax 2015), and each outline "
    "may be off by half a voxel, an assumption. Neither has been measured for lungjax's outlines, and nodules that are "
    "not solid vary more."
)
CSV_COLUMNS = (
    "status",
    "first_number",
    "second_number",
    "distance_mm",
    "first_volume_mm3",
    "second_volume_mm3",
    "first_longest_mm",
    "second_longest_mm",
    "growth_percent",
    "growth_low_percent",
    "growth_high_percent",
    "change",
    "doubling_days",
    "doubling_low_days",
    "doubling_high_days",
    "candidate",
)


def as_dict(
    *,
    first: ComparedScan,
    second: ComparedScan,
    days: int | None,
    no_days_reason: str | None,
    failed: str | None,
    lung_dice: float | None,
    affine_lps: np.ndarray | None,
    spline: bool,
    matched: Sequence[MatchedNodule],
    new: Sequence[UnmatchedNodule],
    gone: Sequence[UnmatchedNodule],
    not_shown: Sequence[UnmatchedNodule],
    warnings: Sequence[str],
    made: str,
) -> dict[str, Any]:
    """All that follow-up.json holds, see above; what is given are the fields of `lungjax.FollowUp`."""
    registered = None
    if affine_lps is not None and lung_dice is not None:
        registered = {
            "lung_dice": round(lung_dice, 4),
            "least_dice": registration.LEAST_DICE,
            "spline": spline,
            "affine_lps": np.round(affine_lps, 5).tolist(),
        }
    return {
        "schema": SCHEMA,
        "lungjax": VERSION,
        "made": made,
        "notice": report_json.NOTICE,
        "first": _scan(first),
        "second": _scan(second),
        "days": days,
        "no_days_reason": no_days_reason,
        "failed": failed,
        "warnings": list(warnings),
        "registration": registered,
        "gate_mm": matching.GATE_MM,
        "interval": INTERVAL,
        "matched": [_matched(nodule) for nodule in matched],
        "new": [_unmatched(nodule) for nodule in new],
        "gone": [_unmatched(nodule) for nodule in gone],
        "not_shown": [{"scan": nodule.scan, **_unmatched(nodule)} for nodule in not_shown],
    }


def _scan(compared: ComparedScan) -> dict[str, Any]:
    report = compared.report
    return {
        "date": None if compared.date is None else compared.date.isoformat(),
        **{name: report["scan"][name] for name in ("patient_id", "series_uid", "source", "spacing_mm")},
        "made": report["made"],
        "nodules": len(report["nodules"]),
    }


def _matched(nodule: MatchedNodule) -> dict[str, Any]:
    time = nodule.doubling_time
    interval = None if time is None or time.days_interval is None else [_days(days) for days in time.days_interval]
    return {
        "first": nodule.first,
        "second": nodule.second,
        "distance_mm": round(nodule.distance_mm, 1),
        "volumes_mm3": [round(volume, 1) for volume in nodule.volumes_mm3],
        "longest_mm": [round(longest, 1) for longest in nodule.longest_mm],
        "growth_percent": _percent(nodule.growth.ratio),
        "growth_percent_interval": [_percent(ratio) for ratio in nodule.growth.ratio_interval],
        "change": nodule.growth.change,
        "doubling_days": None if time is None else _days(time.days),
        "doubling_days_interval": interval,
        "doubling_reason": None if time is None else time.reason,
    }


def _percent(ratio: float) -> float:
    return round(100 * (ratio - 1), 1)


def _days(days: float | None) -> int | None:
    return None if days is None else round(days)


def _unmatched(nodule: UnmatchedNodule) -> dict[str, Any]:
    return {
        "number": nodule.number,
        "volume_mm3": round(nodule.volume_mm3, 1),
        "longest_mm": round(nodule.longest_mm, 1),
        "place_mm": [round(mm, 1) for mm in nodule.place_mm],
        "candidate": nodule.candidate,
    }


def rows(follow_up: Mapping[str, Any]) -> Iterator[list[Any]]:
    """Values of `CSV_COLUMNS` for each nodule of a follow-up by `as_dict`; None where there is none."""
    for nodule in follow_up["matched"]:
        yield [
            "matched",
            *(nodule[name] for name in ("first", "second", "distance_mm")),
            *nodule["volumes_mm3"],
            *nodule["longest_mm"],
            nodule["growth_percent"],
            *nodule["growth_percent_interval"],
            nodule["change"],
            nodule["doubling_days"],
            *(nodule["doubling_days_interval"] or (None, None)),
            None,
        ]
    for status in ("new", "gone", "not_shown"):
        for nodule in follow_up[status]:
            scan = nodule.get("scan", "first" if status == "gone" else "second")
            numbers, volumes, longest = (_pair(nodule[name], scan) for name in ("number", "volume_mm3", "longest_mm"))
            yield [status, *numbers, None, *volumes, *longest, *[None] * 7, nodule["candidate"]]


def _pair(value: Any, scan: str) -> tuple[Any, Any]:
    """Of the first scan and the second, where one of them has a value."""
    return (value, None) if scan == "first" else (None, value)


def follow_up_csv(follow_up: Mapping[str, Any]) -> str:
    """The text of follow-up.csv: a head, and a line for each nodule."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    writer.writerows(rows(follow_up))
    return text.getvalue()
