"""`lungjax report WORKDIR`: the page of a training run, in one file that fetches nothing; the run may still go on."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lungjax.errors import InputError
from lungjax.evaluation.plots import html_page, training_plots
from lungjax.train import logs
from lungjax.train import workdir as folder

_NOTICE = (
    "Research software, not a medical device. Not for diagnosis or treatment. What LIDC calls malignancy is the "
    "opinion of readers, not pathology."
)
_TASKS = {"pretrain": "pretraining without labels (SimCLR)", "segment": "outlining nodules"}
_CHARTS = {
    "reliability": "Reliability: the share of readers who marked, by predicted probability",
    "dice": "How Dice is spread over slices and nodules",
}
_SHEETS = {
    "worst": "The slices with the lowest Dice",
    "spread": "Slices spread evenly from the worst to the best",
    "best": "The slices with the highest Dice",
}
_SIDES = ("readers", "against")
"""Parts of an evaluation that hold what stands beside the model's figures, under the same names."""


def write(workdir: Path, *, out: Path | None = None) -> Path:
    """Writes the page of a run: curves, examples, figures with their intervals, configuration, origin.

    Args:
      workdir: of a run, at any time after its beginning; it is only read.
      out: the HTML file; None for `report.html` in the workdir.

    Returns:
      The file written.

    Raises:
      InputError: no run is there, its configuration is damaged, or `out` cannot be written.
    """
    config = folder.read_config(workdir).to_dict()
    out = workdir / "report.html" if out is None else out
    folder.make(out.parent, option="--out")
    if out.is_dir():
        raise InputError(f"{out} is a folder; --out names the HTML file to write.")
    name = workdir.resolve().name
    return html_page.write(out, title=f"{name}: lungjax", body=_body(workdir, name, config))


def _body(workdir: Path, name: str, config: Mapping[str, Any]) -> Iterator[str]:
    metrics = workdir / logs.METRICS_FILE
    found = training_plots.series(metrics) if metrics.is_file() else {}
    step = max((max(points) for points in found.values() if points), default=0)
    done = "finished" if step >= config["steps"] else f"{100 * step / config['steps']:.0f} %, not finished"
    what = html_page.text(_TASKS.get(config["task"], config["task"]))
    yield f"<header><h1>Training run {html_page.text(name)}</h1>\n"
    yield f"<p>{what}: step {step:,} of {config['steps']:,}, {done}</p>"
    yield f'</header>\n<p class="notice" role="note">{_NOTICE}</p>\n<main>\n'
    yield _curves(metrics, found)
    yield _evaluations(workdir)
    yield _examples(workdir)
    yield _origin(workdir)
    yield f"<section><h2>Configuration</h2>{html_page.pairs(dict(_leaves(config)))}</section>\n</main>\n"


def _curves(metrics: Path, found: Mapping[str, Mapping[int, float]]) -> str:
    if not any(found.values()):
        return "<section><h2>Curves</h2><p>Nothing has been logged yet.</p></section>\n"
    with tempfile.TemporaryDirectory() as temporary:
        charts = [
            html_page.picture(
                png, f"{png.stem} over the training steps; the table below has its last values", chart=True
            )
            for png in training_plots.curves(metrics, Path(temporary))
        ]
    parts = {name.partition("/")[0] for name in found} & {"train", "val"}
    names = sorted({name.partition("/")[2] for name in found if name.partition("/")[0] in parts})
    rows = [
        [html_page.text(name), *(_last(found.get(f"{part}/{name}")) for part in ("train", "val"))] for name in names
    ]
    last = html_page.table("Last values", ("", "train, last", "validation, last"), rows)
    return f'<section><h2>Curves</h2><div class="charts">{"".join(charts)}</div>{last}</section>\n'


def _last(points: Mapping[int, float] | None) -> str:
    if not points:
        return "-"
    step = max(points)
    return f"{points[step]:.4g} <small>step {step:,}</small>"


def _evaluations(workdir: Path) -> str:
    files = sorted(workdir.glob("evaluation-*.json"))
    if not files:
        said = "<p>There is none yet: <code>lungjax evaluate --model WORKDIR</code> makes it.</p>"
        return f"<section><h2>Evaluation</h2>{said}</section>\n"
    return "".join(
        f"<section><h2>Evaluation <code>{html_page.text(file.name)}</code></h2>{_evaluation(file)}</section>\n"
        for file in files
    )


def _evaluation(file: Path) -> str:
    try:
        report = json.loads(file.read_text())
        shown = _figures(report)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        return (
            f'<p class="warnings">{html_page.text(file.name)} is damaged ({html_page.text(error)}): evaluate again.</p>'
        )
    counts = [f"{report[name]:,} {name}" for name in ("patients", "slices", "nodules") if name in report]
    step = report.get("model", {}).get("step")
    head = [f"split {report.get('split', 'unknown')}", *counts, *([] if step is None else [f"model of step {step:,}"])]
    stems = {**dict.fromkeys(_CHARTS, True), **dict.fromkeys(_SHEETS, False)}
    drawn = {kind: file.with_name(f"{file.stem}.{kind}.png") for kind in stems}
    pictures = {
        kind: html_page.picture(png, (_CHARTS | _SHEETS)[kind], chart=stems[kind])
        for kind, png in drawn.items()
        if png.is_file()
    }
    charts = "".join(pictures.get(kind, "") for kind in _CHARTS)
    sheets = "".join(
        f"<details><summary>{_SHEETS[kind]}</summary>{pictures[kind]}</details>" for kind in _SHEETS if kind in pictures
    )
    interval = f'<p class="soft">[low, high]: {html_page.text(report.get("interval", "unknown"))}</p>'
    return f'<p>{html_page.text(", ".join(head))}</p>{shown}{interval}<div class="charts">{charts}</div>{sheets}'


def _figures(report: Mapping[str, Any]) -> str:
    """A table of each part; the first is open. Whatever the task, a figure is what has `value`, `low` and `high`."""
    own = {key: value for key, value in report.items() if key not in _SIDES}
    sides = {"model": own} | {side: report[side] for side in _SIDES if report.get(side)}
    if "against" in sides:
        sides["difference"] = sides["against"].get("difference", {})
    columns = {side: dict(_intervals(content)) for side, content in sides.items()}
    parts: dict[str, list[list[str]]] = {}
    for path in columns["model"]:
        part, _, name = path.rpartition("/")
        cells = [_cell(column.get(path)) for column in columns.values()]
        parts.setdefault(part, []).append([html_page.text(name.replace("_", " ")), *cells])
    tables = []
    for part, rows in parts.items():
        label = part.replace("_", " ").replace("/", ", ")
        shown = html_page.table(label, (label, *columns), rows)
        tables.append(f"<details><summary>{html_page.text(label)}</summary>{shown}</details>" if tables else shown)
    return "".join(tables)


def _intervals(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    for key, value in content.items():
        if isinstance(value, dict) and {"value", "low", "high"} <= value.keys():
            yield prefix + key, value
        elif isinstance(value, dict):
            yield from _intervals(value, f"{prefix}{key}/")


def _cell(figure: Mapping[str, Any] | None) -> str:
    if figure is None or figure["value"] is None:
        return "-"
    low, high = figure["low"], figure["high"]
    ends = "-" if low is None or high is None else f"{low:z.3f}, {high:z.3f}"
    return f"{figure['value']:z.3f} <small>[{ends}]</small>"


def _examples(workdir: Path) -> str:
    sheets = sorted((workdir / "examples").glob("[0-9]*.png"))
    if not sheets:
        return "<section><h2>Examples</h2><p>There are none yet.</p></section>\n"
    alt = "validation slices, what the readers drew and what the model found, or the views of pretraining"
    parts = [f"<h3>Step {int(sheets[-1].stem):,}</h3>{html_page.picture(sheets[-1], alt)}"]
    if len(sheets) > 1:
        first = html_page.picture(sheets[0], alt)
        parts.append(f"<details><summary>Step {int(sheets[0].stem):,}, the first sheet</summary>{first}</details>")
    return f"<section><h2>Examples</h2>{''.join(parts)}</section>\n"


def _origin(workdir: Path) -> str:
    known = (workdir / folder.ORIGIN_FILE).is_file()
    origin = folder.read_origin(workdir) if known else {}  # A run of an older lungjax has none.
    split = folder.read_split(workdir)
    patients = Counter(split["patients"].values())
    rows = {
        "command": origin.get("command", "unknown"),
        "begun": origin.get("started", "unknown"),
        "hardware": origin.get("hardware", "unknown"),
        "versions": ", ".join(f"{k} {v}" for k, v in origin.get("versions", {}).items()) or "unknown",
        "patients": ", ".join(f"{count:,} {name}" for name, count in sorted(patients.items())),
        "split": split["digest"],
        "intensity": split.get("intensity", "unknown"),
    }
    return f"<section><h2>Origin</h2>{html_page.pairs(rows)}</section>\n"


def _leaves(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in sorted(config.items()):
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
