"""The sections of `report.html` around the scan, as HTML, from the report that `html_report` is given."""

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
    "The models were trained on chest CT of adults from LIDC-IDRI, 2000 to 2010, and on nothing else. They miss "
    "nodules and predict some where there are none. Sizes are of the predicted outlines, not of a reader's calipers."
)


def header(report: Mapping[str, Any]) -> str:
    """Above the scan: whose it is, what the page must not be used for, refusal and warnings."""
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
        lines = "".join(f"<li>{html_page.text(warning)}</li>" for warning in report["warnings"])
        parts.append(f'<div class="warnings" role="note"><strong>Mind</strong><ul>{lines}</ul></div>\n')
    parts.append('<noscript><p class="refused">The scan is drawn by a script in this file: allow it.</p></noscript>\n')
    return "".join(parts)


def patient_section(report: Mapping[str, Any]) -> str:
    """The patient's probability, what it means, which nodules it comes from, and its limits."""
    patient = report["patient"]
    if patient["probability"] is None:
        body = f"<p>No probability for the patient. {html_page.text(patient['reason'])}</p>"
    else:
        body = f'<p class="big">{100 * patient["probability"]:.0f} %</p><p>{html_page.text(patient["meaning"])}</p>'
        shares = sorted(patient["attention"], key=lambda share: -share["attention"])
        each = ", ".join(
            f"nodule {html_page.text(share['number'])}: {100 * share['attention']:.0f} %" for share in shares
        )
        body += f"<p>Attention, the share of each nodule in it: {each}.</p>"
        body += f"<ul>{''.join(f'<li>{html_page.text(limit)}</li>' for limit in patient['limits'])}</ul>"
        body += _calibration(patient["calibration"])
    return f'<section><h2>The patient</h2>{body}<p class="soft">{_LIMITS}</p></section>\n'


def _calibration(calibration: Mapping[str, Any] | None) -> str:
    if calibration is None:
        return "<p>It has not been calibrated: it ranks patients, but is no share of them.</p>"
    slope, offset, patients = (html_page.text(calibration[name]) for name in ("slope", "offset", "fitted_on"))
    return (
        f'<p class="soft">Calibrated: sigmoid({slope} x logit + {offset}), fitted on {patients} patients that the '
        "model was not trained on.</p>"
    )


def nodules_section(report: Mapping[str, Any]) -> str:
    """Nodules, and candidates below the threshold, in tables whose buttons jump to them in the scan."""
    nodules, candidates = report["nodules"], report["candidates"]
    threshold = html_page.number(report["threshold"], ".2f")
    legend = (
        f'<p class="soft">Score: how sure the model is that this is a nodule; those from {threshold} on are outlined. '
        "Malignancy: the probability that LIDC-IDRI's readers would call the nodule malignant, an opinion from the "
        "pictures and not pathology. Slices are counted from the lowest, which is 1.</p>"
    )
    if nodules:
        rows = [_row(nodule, index) for index, nodule in enumerate(nodules)]
        body = html_page.table("Nodules", _COLUMNS, rows) + legend
    else:
        body = f"<p>{'The scan was not looked at.' if report['refused'] else 'No nodule was found.'}</p>"
    if candidates:
        rows = [_row(candidate, len(nodules) + index) for index, candidate in enumerate(candidates)]
        below = html_page.table("Candidates below the threshold", _COLUMNS, rows)
        body += (
            f'<details id="below"><summary>{len(candidates)} below the threshold of {threshold}; ringed in the scan '
            f"while they are shown here</summary>{below}</details>"
        )
    return f"<section><h2>Nodules</h2>{body}</section>\n"


def _row(nodule: Mapping[str, Any], index: int) -> list[str]:
    number, (first, last) = html_page.text(nodule["number"]), nodule["slices"]
    size = f"{html_page.number(nodule['longest_mm'], '.1f')} x {html_page.number(nodule['perpendicular_mm'], '.1f')}"
    centre = "-" if nodule["centre_mm"] is None else ", ".join(f"{mm:.1f}" for mm in nodule["centre_mm"])
    label = f"Show nodule {number}" + ("" if nodule["score"] is None else f", score {nodule['score']:.2f}")
    return [
        f'<button type="button" data-mark="{index}" aria-label="{label}">{number}</button>',
        f"{round(nodule['centre_voxel'][0]) + 1} ({first + 1} to {last + 1})",
        html_page.number(nodule["score"], ".2f"),
        html_page.number(nodule["malignancy"], ".2f"),
        size,
        html_page.number(nodule["volume_mm3"], ",.0f"),
        html_page.number(nodule["mean_hu"], ".0f"),
        centre,
    ]


def origin_section(report: Mapping[str, Any]) -> str:
    """Which models made the report, and of which scan."""
    scan = report["scan"]
    segmenter = {**_model(report["model"]), "lungjax": report["lungjax"], "made": report["made"]}
    classifiers = {"Nodule classifier": report["nodule_classifier"], "Patient classifier": report["patient"]["model"]}
    sections = "".join(
        f"<section><h2>{title}</h2>{html_page.pairs(_model(model))}</section>\n"
        for title, model in classifiers.items()
        if model
    )
    spacing_mm = ["unknown" if mm is None else f"{mm:.3f}" for mm in scan["spacing_mm"]]
    about = {
        "patient": scan["patient_id"],
        "series": scan["series_uid"],
        "source": scan["source"],
        "size": " x ".join(str(size) for size in scan["shape"]) + " voxels: slices, rows, columns",
        "spacing": " x ".join(spacing_mm) + " mm",
    }
    return (
        f"<section><h2>Segmenter</h2>{html_page.pairs(segmenter)}</section>\n"
        f"{sections}"
        f"<section><h2>The scan</h2>{html_page.pairs(about)}</section>\n"
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
