"""A model scored on a split of a data set, alone or against another model: report, table and pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from lungjax.data import loader, shards, splits
from lungjax.data.context import Context
from lungjax.errors import InputError
from lungjax.evaluation import output_file, run_candidate_classifier, run_nodule_classifier, run_patient_classifier
from lungjax.evaluation.plots import classification_report, segmentation_charts
from lungjax.evaluation.run_segmentation import Scorer
from lungjax.evaluation.segmentation.report import segmentation_figures
from lungjax.evaluation.segmentation.table import segmentation_table
from lungjax.preparation.builtin import prepared, resolve
from lungjax.tasks.task import Config
from lungjax.train import workdir as folder
from lungjax.train.state import parameter_count
from lungjax.train.trained import Trained, open_trained

CLASSIFIERS: dict[str, Any] = {
    "sift": run_candidate_classifier,
    "classify": run_nodule_classifier,
    "diagnose": run_patient_classifier,
}
"""For each task that predicts a probability of malignancy, the module that scores it."""


def evaluate(
    model: Path,
    *,
    data: Path | None,
    split: splits.Split | Literal["all"],
    out: Path | None,
    against: Path | None = None,
    flips: bool = False,
) -> dict[str, Any]:
    """Scores a segmenter, a nodule classifier or a patient classifier: figures, a table, and pictures.

    Args:
      model: a run's workdir, whose best checkpoint is used, or an exported folder.
      data: a prepared folder, or a file that can be prepared; None for the folder the run was trained with.
        The readers of these data are the reference: a run may be scored on data of one reader or of four, whichever it
        was trained on.
      split: `train`, `val`, `test` or `all`.
      out: the JSON file to write; None for `evaluation-SPLIT.json` in the workdir or, for a model that is not in a
        workdir, `evaluation-MODEL-SPLIT.json` in the current folder; the names of `data` and `against` are added where
        they are given. The table, `.table.txt`, and the pictures are written next to it.
      against: another model to score on the same slices; its figures and the differences are added.
      flips: test-time augmentation: score the mean of each model's predictions for a slice's four flips.

    Returns:
      The content of the JSON file: figures with 95 % intervals by bootstrap over patients, and where they come from.

    Raises:
      InputError: a model or the data do not exist, the data's split disagrees with a model's, the two models see
        different parts of the slices, or `out` cannot be written.
    """
    models = [open_trained(name) for name in (model, against) if name is not None]
    if models[0].config.task in CLASSIFIERS:
        with output_file.held(out or _default_out(models, split, data)) as out:
            return _evaluate_classifier(models, data=data, split=split, out=out)
    for opened in models:
        _check_segmenter(opened)
    _check_same_pixels(models)
    with (
        output_file.held(out or _default_out(models, split, data)) as out,
        prepared(_trained_with(models[0]) if data is None else data) as path,
    ):
        return _evaluate_segmenter(models, shards.open_dataset(path), data, split=split, out=out, flips=flips)


def _trained_with(model: Trained) -> Path:
    """The data set that a model was trained with; InputError, which asks for --data, where it is no longer there."""
    path = resolve(model.config.data.path)
    if not path.exists():
        raise InputError(f"{path}, with which {model.path.name} was trained, is not there; name the data by --data.")
    return path


def _evaluate_segmenter(
    models: Sequence[Trained], dataset: shards.Dataset, data: Path | None, *, split: Any, out: Path, flips: bool
) -> dict[str, Any]:
    config = models[0].config
    for model in models:
        splits.lock(model.patients, dataset.manifest["split"]["patients"], where=str(data or dataset.path))
    rows = loader.select_rows(dataset, split=None if split == "all" else split, slices=config.data.slices)
    scorers = [
        Scorer(model.config, dataset, model.variables, flips=flips, calibration=model.calibration) for model in models
    ]
    tallies = [scorer.tally(rows) for scorer in scorers]
    patients = set(dataset.index["patient_id"].to_numpy()[rows])
    described = [{**_described(model, patients), "flips": flips} for model in models]
    source = {**_data(dataset, config), "path": str(data or dataset.path)}
    report = {"split": split, **segmentation_figures(*tallies), "model": described[0], "data": source}
    for other in described[1:]:
        report["against"]["model"] = other
    folder.write_text(out, json.dumps(report, indent=1, allow_nan=False) + "\n")
    # With this suffix it is never the JSON file itself, whatever the name of --out.
    folder.write_text(out.with_suffix(".table.txt"), segmentation_table(report) + "\n")
    _print_report(report, dataset, config)
    print(f"figures: {out}")
    charts = segmentation_charts.draw_charts(tallies[0], report, out)
    for picture in (*charts, *scorers[0].draw_examples(rows, tallies[0], out)):
        print(f"picture: {picture}")
    return report


def _print_report(report: Mapping[str, Any], dataset: shards.Dataset, config: Config) -> None:
    print(segmentation_table(report))
    print(f"\nscored on {_scope(config)}: how well nodules are outlined, not how well they are detected")
    if splits.is_unknown(dataset.index["patient_id"].iloc[0]):
        print("Note: the source does not record patients; each series counts as a patient, also for the intervals.")
    _print_trained_on(report)


def _print_trained_on(report: Mapping[str, Any]) -> None:
    for model in (report["model"], *([report["against"]["model"]] if "against" in report else [])):
        if model["trained_on_patients"]:
            print(f"Note: {model['workdir']} was trained on {model['trained_on_patients']} of these patients.")


def _check_segmenter(model: Trained) -> None:
    if model.config.task != "segment":
        scored = "evaluate scores segmenters, candidate, nodule and patient classifiers, each against its own kind"
        raise InputError(f"{model.path}: is a network of the task {model.config.task!r}; {scored}.")


def _evaluate_classifier(models: Sequence[Trained], *, data: Path | None, split: str, out: Path) -> dict[str, Any]:
    """`evaluate` of a nodule or patient classifier; a patient's split is the one recorded with the model."""
    task = models[0].config.task
    module = CLASSIFIERS[task]
    for other in models[1:]:
        if other.config.task != task:
            raise InputError(
                f"{other.path}: is a network of the task {other.config.task!r}; --against must name one of the task "
                f"{task!r}."
            )
    with prepared(_trained_with(models[0]) if data is None else data) as path:
        dataset = shards.open_dataset(path)
        scores = [module.score_split(model, dataset, split=split) for model in models]
        source = {"path": str(data or dataset.path), "source": dataset.manifest["source"]}
    patients = set(scores[0].index["patient_id"])
    report = {
        "split": split,
        **module.score_figures(*scores),
        "model": _described(models[0], patients),
        "data": source,
    }
    report["calibration"] = models[0].calibration
    for other in models[1:]:
        report["against"] = {"model": _described(other, patients)}
    folder.write_text(out, json.dumps(report, indent=1, allow_nan=False) + "\n")
    table = classification_report.classification_table(report, unit=module.UNIT, positive=module.POSITIVE)
    folder.write_text(out.with_suffix(".table.txt"), table + "\n")
    module.write_predictions(scores[0], out.with_suffix(".csv"))
    print(table)
    print(f"\n{module.NOTE}")
    _print_trained_on(report)
    print(f"figures: {out}\npredictions: {out.with_suffix('.csv')}")
    for picture in module.draw_charts(scores[0], report, out):
        print(f"picture: {picture}")
    return report


def _default_out(models: Sequence[Trained], split: str, data: Path | None) -> Path:
    first, *others = (model.path.resolve() for model in models)
    parts = [
        split,
        *([data.resolve().stem] if data else []),
        *(part for other in others for part in ("against", other.name)),
    ]
    if not models[0].is_run:
        return Path(f"evaluation-{'-'.join([first.name, *parts])}.json")
    return models[0].path / f"evaluation-{'-'.join(parts)}.json"


def _check_same_pixels(models: Sequence[Trained]) -> None:
    """Differences are paired, so both models must see the same pixels of the same slices."""
    first, *others = models
    for other in others:
        for name in ("slices", "crop_px", "crop_at"):
            if first.config.data[name] != other.config.data[name]:
                raise InputError(
                    f"{other.path}: has config.data.{name} {other.config.data[name]!r}, {first.path} has "
                    f"{first.config.data[name]!r}; only models that see the same pixels can be compared."
                )


def _described(model: Trained, patients: set[str]) -> dict[str, Any]:
    """The model, for JSON; `patients` are those that it is scored on."""
    trained_on = {patient for patient, split in model.patients.items() if split == "train"}
    return {
        "workdir": str(model.path),
        "step": model.step,
        "parameters": parameter_count(model.variables["params"]),
        "init_from": model.config.init_from,
        "trained_on": model.intensity,
        "trained_on_patients": len(trained_on & patients),
    }


def _data(dataset: shards.Dataset, config: Config) -> dict[str, Any]:
    shown = Context.of(config)
    return {
        "path": str(dataset.path),
        "source": dataset.manifest["source"],
        "intensity": dataset.intensity,
        "readers": dataset.readers,
        "slices": config.data.slices,
        "crop_px": config.data.crop_px,
        "crop_at": config.data.crop_at,
        **({"context": shown.slices, "context_mm": shown.step_mm} if shown.slices else {}),
        "split_digest": dataset.manifest["split"]["digest"],
    }


def _scope(config: Config) -> str:
    """In words, which pixels a model of this configuration sees."""
    slices = {"nodule": "slices that a reader marked", "lung": "slices of the lungs", "all": "all slices"}
    crops = {"nodule": "around the marks", "random": "in their middle"}
    where = f", crops of {config.data.crop_px} px {crops[config.data.crop_at]}" if config.data.crop_px else ""
    return slices[config.data.slices] + where
