"""What `report.html` says above and beside the scan, as HTML, from a report as `html_report` gets it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lungjax.evaluation.plots import html_page

_COLUMNS = (
    "",
    "slice",
    "score",
    "malignancy",
    "longest x across, mm",
    "volume, mm³",
    "mean, HU",
    "centre x, y, z, mm",
)
_LIMITS = (
    "The model has seen chest CT of adults from LIDC-IDRI, 2000 to 2010, and nothing else. It misses nodules and finds "
    "some where there are none. Sizes come from its outlines, not from a reader's calipers."
)


def top(report: Mapping[str, Any]) -> str:
    """What stands above the scan: whose it is, what the page must not be used for, refusal and warnings."""
    scan = report["scan"]
    parts = [
        f"<header><h1>Scan of {html_page.text(scan['patient_id'])}</h1>\n"
        f'<p class="soft">Read by lungjax {html_page.text(report["lungjax"])}, '
        f"{html_page.text(report['made'])}</p></header>\n"
        f'<p class="notice" role="note">{html_page.text(report["notice"])}</p>\n'
    ]
    if report["refused"]:
        parts.append(
            f'<p class="refused" role="alert"><strong>Refused:</strong> {html_page.text(report["refused"])}</p>\n'
        )
    if report["warnings"]:
        lines = "".join(f"<li>{html_page.text(one)}</li>" for one in report["warnings"])
        parts.append(f'<div class="warnings" role="note"><strong>Mind</strong><ul>{lines}</ul></div>\n')
    parts.append('<noscript><p class="refused">The scan is drawn by a script in this file: allow it.</p></noscript>\n')
    return "".join(parts)


def patient(report: Mapping[str, Any]) -> str:
    """The patient's probability, what it means, which nodules it came from, and its limits."""
    patient = report["patient"]
    if patient["probability"] is None:
        said = f"<p>No probability for the patient. {html_page.text(patient['reason'])}</p>"
    else:
        said = f'<p class="big">{100 * patient["probability"]:.0f} %</p><p>{html_page.text(patient["meaning"])}</p>'
        shares = sorted(patient["attention"], key=lambda one: -one["attention"])
        each = ", ".join(f"nodule {html_page.text(one['number'])}: {100 * one['attention']:.0f} %" for one in shares)
        said += f"<p>Where the model's attention went: {each}.</p>"
        said += f"<ul>{''.join(f'<li>{html_page.text(one)}</li>' for one in patient['limits'])}</ul>"
        if patient["calibration"] is None:
            said += "<p>It has not been calibrated: read it as an order, not as a share of patients.</p>"
        else:
            fitted = {name: html_page.text(patient["calibration"][name]) for name in ("slope", "offset", "fitted_on")}
            said += (
                f'<p class="soft">Calibrated: sigmoid({fitted["slope"]} x logit + {fitted["offset"]}), fitted on '
                f"{fitted['fitted_on']} patients it was not trained on.</p>"
            )
    return f'<section><h2>The patient</h2>{said}<p class="soft">{_LIMITS}</p></section>\n'


def found(report: Mapping[str, Any]) -> str:
    """The nodules, and the candidates below the threshold, in tables whose buttons jump to them."""
    nodules, candidates = report["nodules"], report["candidates"]
    threshold = html_page.number(report["threshold"], ".2f")
    legend = (
        f'<p class="soft">Score: how sure the model is that there is a nodule; those from {threshold} on are outlined. '
        "Malignancy: the probability that LIDC-IDRI's readers would call the nodule malignant, an opinion from the "
        "pictures and not pathology. Slices are counted from the lowest, which is 1.</p>"
    )
    if nodules:
        here = html_page.table("Nodules", _COLUMNS, [_row(one, index) for index, one in enumerate(nodules)]) + legend
    else:
        here = f"<p>No nodule was found{' in what was read' if report['refused'] else ''}.</p>"
    if candidates:
        rows = [_row(one, len(nodules) + index) for index, one in enumerate(candidates)]
        below = html_page.table("Candidates below the threshold", _COLUMNS, rows)
        here += (
            f'<details id="below"><summary>{len(candidates)} below the threshold of {threshold}; ringed in the scan '
            f"while they are shown here</summary>{below}</details>"
        )
    return f"<section><h2>Nodules</h2>{here}</section>\n"


def _row(one: Mapping[str, Any], index: int) -> list[str]:
    number, (first, last) = html_page.text(one["number"]), one["slices"]
    size = f"{html_page.number(one['longest_mm'], '.1f')} x {html_page.number(one['perpendicular_mm'], '.1f')}"
    centre = "-" if one["centre_mm"] is None else ", ".join(f"{mm:.1f}" for mm in one["centre_mm"])
    label = f"Show nodule {number}" + ("" if one["score"] is None else f", score {one['score']:.2f}")
    return [
        f'<button type="button" data-mark="{index}" aria-label="{label}">{number}</button>',
        f"{round(one['centre_voxel'][0]) + 1} ({first + 1} to {last + 1})",
        html_page.number(one["score"], ".2f"),
        html_page.number(one["malignancy"], ".2f"),
        size,
        html_page.number(one["volume_mm3"], ",.0f"),
        html_page.number(one["mean_hu"], ".0f"),
        centre,
    ]


def origin(report: Mapping[str, Any]) -> str:
    """What made the report, and of what."""
    scan = report["scan"]
    made_by = {**_model(report["model"]), "lungjax": report["lungjax"], "made": report["made"]}
    others = {"What model graded it": report["grader"], "What model answered": report["patient"]["model"]}
    further = "".join(
        f"<section><h2>{title}</h2>{html_page.pairs(_model(one))}</section>\n" for title, one in others.items() if one
    )
    spacing_mm = ["unknown" if mm is None else f"{mm:.3f}" for mm in scan["spacing_mm"]]
    read = {
        "patient": scan["patient_id"],
        "series": scan["series_uid"],
        "source": scan["source"],
        "size": " x ".join(str(size) for size in scan["shape"]) + " voxels: slices, rows, columns",
        "spacing": " x ".join(spacing_mm) + " mm",
    }
    return (
        f"<section><h2>What model found it</h2>{html_page.pairs(made_by)}</section>\n"
        f"{further}"
        f"<section><h2>The scan</h2>{html_page.pairs(read)}</section>\n"
    )


def _model(model: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "model": model["name"],
        "task": model["task"],
        "step": model["step"],
        "trained on": model["trained_on"],
        "split": model["split_digest"],
        "intensity": model["intensity"],
        "window": _window(model["window_hu"]),
    }


def _window(window_hu: Sequence[float] | None) -> str | None:
    return None if window_hu is None else f"level {window_hu[0]:g}, width {window_hu[1]:g} HU"
