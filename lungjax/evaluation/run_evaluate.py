"""A finished run on a split of a data set, alone or against another one: its report, table and pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from lungjax.data import loader, shards, splits
from lungjax.errors import InputError
from lungjax.evaluation import run_nodule_classifier, run_patient_classifier
from lungjax.evaluation.plots import classification_report as grading_text
from lungjax.evaluation.plots import segmentation_charts
from lungjax.evaluation.run_segmentation import Scorer
from lungjax.evaluation.segmentation import report, table
from lungjax.preparation.builtin import prepared, resolve
from lungjax.tasks.task import Config
from lungjax.train import workdir as folder
from lungjax.train.state import parameter_count
from lungjax.train.trained import Trained, open_trained

GRADERS: dict[str, Any] = {"classify": run_nodule_classifier, "diagnose": run_patient_classifier}
"""What grades, reports, writes and draws, of the tasks that give a probability of malignancy."""


def evaluate(
    model: Path,
    *,
    data: Path | None,
    split: splits.Split | Literal["all"],
    out: Path | None,
    against: Path | None = None,
    flips: bool = False,
) -> dict[str, Any]:
    """Scores a segmenter or a grader: figures, a table, and pictures.

    Args:
      model: a run's workdir, whose best checkpoint is taken, or an exported folder.
      data: a prepared folder, or a file that can be prepared; None for the folder the run was trained with.
        Its readers say what is true: a run may be scored on data of one reader and on data of four, whichever it was
        trained on.
      split: `val`, `test` or `all`.
      out: the JSON file to write; None for `evaluation-SPLIT.json` in the workdir, or in the current folder with the
        name of a model that is no run, with the name of `data` and of `against` added where they are given. The table,
        `.table.txt`, and pictures lie beside it.
      against: another model, to be scored on the same slices; figures of it and the differences are added.
      flips: whether each model's answer is the mean of those to a slice's four flips.

    Returns:
      What the JSON holds: figures with 95 % intervals by bootstrap over patients, and where they come from.

    Raises:
      InputError: no such model or data, data whose split disagrees with a model's, two models that see different
        parts of the slices, or nowhere to write.
    """
    models = [open_trained(name) for name in (model, against) if name is not None]
    if models[0].config.task in GRADERS:
        return _evaluate_grader(models, data=data, split=split, out=out)
    for one in models:
        _check_segmenter(one)
    _check_same_pixels(models)
    out = _to_write(out, models, split, data)
    with prepared(resolve(models[0].config.data.path) if data is None else data) as where:
        return _evaluate_segmenter(models, shards.open_dataset(where), data, split=split, out=out, flips=flips)


def _evaluate_segmenter(
    models: Sequence[Trained], dataset: shards.Dataset, data: Path | None, *, split: Any, out: Path, flips: bool
) -> dict[str, Any]:
    config = models[0].config
    for one in models:
        splits.lock(one.patients, dataset.manifest["split"]["patients"], where=str(data or dataset.path))
    rows = loader.select_rows(dataset, split=None if split == "all" else split, slices=config.data.slices)
    scorers = [Scorer(one.config, dataset, one.variables, flips=flips, known=one.calibration) for one in models]
    tallies = [scorer.tally(rows) for scorer in scorers]
    scored = set(dataset.index["patient_id"].to_numpy()[rows])
    about = [{**_described(one, scored), "flips": flips} for one in models]
    source = {**_data(dataset, config), "path": str(data or dataset.path)}
    found = {"split": split, **report.report(*tallies), "model": about[0], "data": source}
    for one in about[1:]:
        found["against"]["model"] = one
    folder.write_text(out, json.dumps(found, indent=1, allow_nan=False) + "\n")
    # Never the JSON file itself, whatever --out is named.
    folder.write_text(out.with_suffix(".table.txt"), table.text(found) + "\n")
    _print(found, dataset, config)
    print(f"figures: {out}")
    for picture in (*segmentation_charts.draw(tallies[0], found, out), *scorers[0].draw(rows, tallies[0], out)):
        print(f"picture: {picture}")
    return found


def _print(found: Mapping[str, Any], dataset: shards.Dataset, config: Config) -> None:
    print(table.text(found))
    print(f"\nscored on {_scope(config)}: how well nodules are outlined, not how well they are found")
    if splits.is_unknown(dataset.index["patient_id"].iloc[0]):
        print("Mind: the source does not tell its patients; each series counts as one, in intervals too.")
    _print_trained_on(found)


def _print_trained_on(found: Mapping[str, Any]) -> None:
    for one in (found["model"], *([found["against"]["model"]] if "against" in found else [])):
        if one["trained_on_patients"]:
            print(f"Mind: {one['workdir']} was trained on {one['trained_on_patients']} of these patients.")


def _check_segmenter(found: Trained) -> None:
    if found.config.task != "segment":
        what = "evaluate scores segmenters and graders, each against its like"
        raise InputError(f"{found.path}: is a network of the task {found.config.task!r}; {what}.")


def _evaluate_grader(models: Sequence[Trained], *, data: Path | None, split: str, out: Path | None) -> dict[str, Any]:
    """`evaluate` of a grader; who is in which split its own training tells."""
    module = GRADERS[models[0].config.task]
    for one in models[1:]:
        if one.config.task != models[0].config.task:
            raise InputError(f"{one.path}: is a network of the task {one.config.task!r}; a grader was to be compared.")
    out = _to_write(out, models, split, data)
    with prepared(resolve(models[0].config.data.path) if data is None else data) as where:
        dataset = shards.open_dataset(where)
        graded = [module.grade(one, dataset, split=split) for one in models]
        source = {"path": str(data or dataset.path), "source": dataset.manifest["source"]}
    scored = set(graded[0].index["patient_id"])
    found = {"split": split, **module.report(*graded), "model": _described(models[0], scored), "data": source}
    found["calibration"] = models[0].calibration
    for one in models[1:]:
        found["against"] = {"model": _described(one, scored)}
    folder.write_text(out, json.dumps(found, indent=1, allow_nan=False) + "\n")
    written = grading_text.table(found, unit=module.UNIT)
    folder.write_text(out.with_suffix(".table.txt"), written + "\n")
    module.write_predictions(graded[0], out.with_suffix(".csv"))
    print(written)
    print("\nmalignant is what the readers judged, not pathology")
    _print_trained_on(found)
    print(f"figures: {out}\npredictions: {out.with_suffix('.csv')}")
    for picture in module.draw(graded[0], found, out):
        print(f"picture: {picture}")
    return found


def _to_write(out: Path | None, models: Sequence[Trained], split: str, data: Path | None) -> Path:
    """The JSON file, in a folder that exists."""
    out = _default_out(models, split, data) if out is None else out
    folder.make(out.parent, option="--out")
    if out.is_dir():
        raise InputError(f"{out} is a folder; --out names the JSON file to write.")
    return out


def _default_out(models: Sequence[Trained], split: str, data: Path | None) -> Path:
    first, *others = (one.path.resolve() for one in models)
    parts = [
        split,
        *([data.resolve().stem] if data else []),
        *(part for other in others for part in ("against", other.name)),
    ]
    if not models[0].is_run:
        return Path(f"evaluation-{'-'.join([first.name, *parts])}.json")
    return models[0].path / f"evaluation-{'-'.join(parts)}.json"


def _check_same_pixels(models: Sequence[Trained]) -> None:
    """Differences are paired: both models must see the same pixels of the same slices."""
    first, *others = models
    for other in others:
        for name in ("slices", "crop_px", "crop_at"):
            if first.config.data[name] != other.config.data[name]:
                raise InputError(
                    f"{other.path}: has config.data.{name} {other.config.data[name]!r}, {first.path} has "
                    f"{first.config.data[name]!r}; only models that see the same pixels can be compared."
                )


def _described(model: Trained, scored: set[str]) -> dict[str, Any]:
    """`scored`: the patients of the figures."""
    seen = {patient for patient, split in model.patients.items() if split == "train"}
    return {
        "workdir": str(model.path),
        "step": model.step,
        "parameters": parameter_count(model.variables["params"]),
        "init_from": model.config.init_from,
        "trained_on": model.intensity,
        "trained_on_patients": len(seen & scored),
    }


def _data(dataset: shards.Dataset, config: Config) -> dict[str, Any]:
    return {
        "path": str(dataset.path),
        "source": dataset.manifest["source"],
        "intensity": dataset.intensity,
        "readers": dataset.readers,
        "slices": config.data.slices,
        "crop_px": config.data.crop_px,
        "crop_at": config.data.crop_at,
        "split_digest": dataset.manifest["split"]["digest"],
    }


def _scope(config: Config) -> str:
    """Which pixels a run sees."""
    slices = {"nodule": "slices that a reader marked", "lung": "slices of the lungs", "all": "all slices"}
    crops = {"nodule": "around the marks", "random": "in their middle"}
    where = f", crops of {config.data.crop_px} px {crops[config.data.crop_at]}" if config.data.crop_px else ""
    return slices[config.data.slices] + where
