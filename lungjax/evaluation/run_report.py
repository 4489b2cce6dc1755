"""`lungjax report WORKDIR`: the page of a training run, in one file that fetches nothing; the run may still go on."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lungjax import json_files
from lungjax.errors import InputError
from lungjax.evaluation.plots import html_page, training_plots
from lungjax.train import logs
from lungjax.train import workdir as folder

_TASKS = {"pretrain": "pretraining without labels (SimCLR)", "segment": "outlining nodules"}
_CHARTS = {
    "reliability": "Reliability: the share of readers who marked, by predicted probability",
    "dice": "How Dice is spread over slices and nodules",
}
_FEATURES = {
    "embedding": "Validation slices by two principal components of their features",
    "neighbours": "Validation slices, and beside each the slices of other patients with the most similar features",
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
    if "task" not in config:  # An exported folder's has the run's configuration in it.
        raise InputError(
            f"{workdir}: an exported folder, whose page is its README.md; give the workdir of a training run."
        )
    out = workdir / "report.html" if out is None else out
    folder.make(out.parent, option="--out")
    if out.is_dir():
        raise InputError(f"{out} is a folder; --out names the HTML file to write.")
    name = workdir.resolve().name
    logged = _logged(workdir / logs.METRICS_FILE)
    step = max((max(points) for points in logged.values() if points), default=0)
    return html_page.write(
        out,
        "evaluation/run_report.html",
        title=f"{name}: lungjax",
        name=name,
        task=_TASKS.get(config["task"], config["task"]),
        step=f"{step:,}",
        steps=f"{config['steps']:,}",
        done="finished" if step >= config["steps"] else f"{100 * step / config['steps']:.0f} %, not finished",
        curves=_curves(workdir / logs.METRICS_FILE) if any(logged.values()) else {},
        last_values=_last_values(logged),
        features=_existing({workdir / "plots" / f"{kind}.png": title for kind, title in _FEATURES.items()}),
        evaluations=[_evaluation(file) for file in sorted(workdir.glob("evaluation-*.json"))],
        examples=_examples(workdir),
        origin=_origin(workdir),
        configuration=dict(_leaves(config)),
    )


def _logged(metrics: Path) -> dict[str, dict[int, float]]:
    return training_plots.series(metrics) if metrics.is_file() else {}


def _curves(metrics: Path) -> dict[str, str]:
    """Charts by what they show."""
    with tempfile.TemporaryDirectory() as temporary:
        return {png.stem: html_page.inline(png) for png in training_plots.curves(metrics, Path(temporary))}


def _last_values(logged: Mapping[str, Mapping[int, float]]) -> list[dict[str, Any]]:
    """Rows of a table: what was logged last in training and validation."""
    names = {name.partition("/")[2] for name in logged if name.partition("/")[0] in ("train", "val")}
    return [
        {"name": name, "figures": [_last(logged.get(f"{part}/{name}")) for part in ("train", "val")]}
        for name in sorted(names)
    ]


def _last(points: Mapping[int, float] | None) -> dict[str, str] | None:
    if not points:
        return None
    step = max(points)
    return {"value": f"{points[step]:.4g}", "aside": f"step {step:,}"}


def _evaluation(file: Path) -> dict[str, Any]:
    """What the page shows of a report of `lungjax evaluate`; `damage` tells why there is nothing."""
    try:
        report = json_files.read(file)
        return {
            "file": file.name,
            "damage": None,
            "head": _head(report),
            **_figures(report),
            "interval": report.get("interval", "unknown"),
            "charts": _drawn(file, _CHARTS),
            "sheets": _drawn(file, _SHEETS),
        }
    except (OSError, ValueError, TypeError, AttributeError) as error:
        return {"file": file.name, "damage": error}


def _head(report: Mapping[str, Any]) -> list[str]:
    """Of how much, and of which model."""
    counts = [f"{report[name]:,} {name}" for name in ("patients", "slices", "nodules") if name in report]
    step = report.get("model", {}).get("step")
    return [f"split {report.get('split', 'unknown')}", *counts, *([] if step is None else [f"model of step {step:,}"])]


def _drawn(file: Path, titles: Mapping[str, str]) -> dict[str, str]:
    """The pictures beside a report, by title."""
    return _existing({file.with_name(f"{file.stem}.{kind}.png"): title for kind, title in titles.items()})


def _existing(pictures: Mapping[Path, str]) -> dict[str, str]:
    """Those that are there, by title."""
    return {title: html_page.inline(png) for png, title in pictures.items() if png.is_file()}


def _figures(report: Mapping[str, Any]) -> dict[str, Any]:
    """A table of each part. Whatever the task, a figure is what has `value`, `low` and `high`."""
    own = {key: value for key, value in report.items() if key not in _SIDES}
    sides = {"model": own} | {side: report[side] for side in _SIDES if report.get(side)}
    if "against" in sides:
        sides["difference"] = sides["against"].get("difference", {})
    columns = {side: dict(_intervals(content)) for side, content in sides.items()}
    parts: dict[str, list[dict[str, Any]]] = {}
    for path in columns["model"]:
        part, _, name = path.rpartition("/")
        figures = [_figure(column.get(path)) for column in columns.values()]
        label = part.replace("_", " ").replace("/", ", ")
        parts.setdefault(label, []).append({"name": name.replace("_", " "), "figures": figures})
    return {"sides": list(columns), "parts": parts}


def _intervals(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    for key, value in content.items():
        if isinstance(value, dict) and {"value", "low", "high"} <= value.keys():
            yield prefix + key, value
        elif isinstance(value, dict):
            yield from _intervals(value, f"{prefix}{key}/")


def _figure(figure: Mapping[str, Any] | None) -> dict[str, str] | None:
    if figure is None or figure["value"] is None:
        return None
    low, high = figure["low"], figure["high"]
    ends = "-" if low is None or high is None else f"{low:z.3f}, {high:z.3f}"
    return {"value": f"{figure['value']:z.3f}", "aside": f"[{ends}]"}


def _examples(workdir: Path) -> dict[str, str]:
    """The last sheet and, if there are more, the first, by its step."""
    sheets = sorted((workdir / "examples").glob("[0-9]*.png"))
    return {f"Step {int(sheet.stem):,}": html_page.inline(sheet) for sheet in (sheets[-1:] + sheets[:-1][:1])}


def _origin(workdir: Path) -> dict[str, Any]:
    known = (workdir / folder.ORIGIN_FILE).is_file()
    origin = folder.read_origin(workdir) if known else {}  # A run of an older lungjax has none.
    split = folder.read_split(workdir)
    patients = Counter(split["patients"].values())
    return {
        "command": origin.get("command", "unknown"),
        "begun": origin.get("started", "unknown"),
        "hardware": origin.get("hardware", "unknown"),
        "versions": ", ".join(f"{k} {v}" for k, v in origin.get("versions", {}).items()) or "unknown",
        "patients": ", ".join(f"{count:,} {name}" for name, count in sorted(patients.items())),
        "split": split["digest"],
        "intensity": split.get("intensity", "unknown"),
    }


def _leaves(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in sorted(config.items()):
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
