"""A finished run on a split of a data set, alone or against another one: its report, table and pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from lungjax.data import loader, shards, splits
from lungjax.evaluate import charts, report, table
from lungjax.lidc.builtin import resolve
from lungjax.lidc.scan import InputError
from lungjax.tasks.task import Config
from lungjax.train import checkpoint
from lungjax.train import workdir as folder
from lungjax.train.scorer import Scorer
from lungjax.train.state import parameter_count


def evaluate(
    workdir: Path,
    *,
    data: Path | None,
    split: splits.Split | Literal["all"],
    out: Path | None,
    against: Path | None = None,
) -> dict[str, Any]:
    """Scores the best checkpoint of a segmentation run: figures, a table, and pictures.

    Args:
      workdir: of the run.
      data: a prepared folder; None for the one the run was trained with. Its readers say what is true: a run may
        be scored on data of one reader and on data of four, whichever it was trained on.
      split: `val`, `test` or `all`.
      out: the JSON file to write; None for `workdir/evaluation-SPLIT.json`, with the name of `data` and of `against`
        added where they are given. The table, `.table.txt`, and pictures lie beside it.
      against: the workdir of another run, to be scored on the same slices; figures of it and the differences are
        added.

    Returns:
      What the JSON holds: figures with 95 % intervals by bootstrap over patients, and where they come from.

    Raises:
      InputError: no such run or data, data whose split or intensity disagrees with a run's, two runs that see
        different parts of the slices, or nowhere to write.
    """
    config = _config(workdir)
    runs = [(workdir, config)] if against is None else [(workdir, config), (against, _config(against))]
    _check_same_pixels(runs)
    dataset = shards.open_dataset(resolve(config.data.path) if data is None else data)
    for run, _ in runs:
        folder.lock_split(run, dataset.manifest["split"]["patients"], where=str(dataset.path))
        folder.lock_intensity(run, dataset.intensity, where=str(dataset.path))
    if out is None:
        names = [
            split,
            *([dataset.path.name] if data else []),
            *(["against", against.resolve().name] if against else []),
        ]
        out = workdir / f"evaluation-{'-'.join(names)}.json"
    folder.make(out.parent, option="--out")
    if out.is_dir():
        raise InputError(f"{out} is a folder; --out names the JSON file to write.")
    rows = loader.select_rows(dataset, split=None if split == "all" else split, slices=config.data.slices)
    scorers, described = zip(*(_load(*run, dataset) for run in runs), strict=True)
    tallies = [scorer.tally(rows) for scorer in scorers]
    found = {"split": split, **report.report(*tallies), "model": described[0], "data": _data(dataset, config)}
    if against is not None:
        found["against"]["model"] = described[1]
    _write(json.dumps(found, indent=1, allow_nan=False), out)
    _write(table.text(found), out.with_suffix(".table.txt"))  # Never the JSON file itself, whatever --out is named.
    _print(found, dataset, config)
    print(f"figures: {out}")
    for picture in (*charts.draw(tallies[0], found, out), *scorers[0].draw(rows, tallies[0], out)):
        print(f"picture: {picture}")
    return found


def _print(found: Mapping[str, Any], dataset: shards.Dataset, config: Config) -> None:
    print(table.text(found))
    print(f"\nscored on {_scope(config)}: how well nodules are outlined, not how well they are found")
    if splits.is_unknown(dataset.index["patient_id"].iloc[0]):
        print("Mind: the source does not tell its patients; each series counts as one, in intervals too.")
    if found["split"] == "all":
        print("Mind: split 'all' includes the patients the model was trained on.")


def _config(workdir: Path) -> Config:
    config = folder.read_config(workdir)
    if config.task != "segment":
        raise InputError(f"{workdir}: is a run of the task {config.task!r}; evaluate scores segmentation runs.")
    return config


def _check_same_pixels(runs: Sequence[tuple[Path, Config]]) -> None:
    """Differences are paired: both runs must see the same pixels of the same slices."""
    (workdir, config), *others = runs
    for other, config_of_other in others:
        for name in ("slices", "crop_px", "crop_at"):
            if config.data[name] != config_of_other.data[name]:
                raise InputError(
                    f"{other}: has config.data.{name} {config_of_other.data[name]!r}, {workdir} has "
                    f"{config.data[name]!r}; only runs that see the same pixels can be compared."
                )


def _load(workdir: Path, config: Config, dataset: shards.Dataset) -> tuple[Scorer, dict[str, Any]]:
    """A run's best checkpoint, and what the report says of it."""
    variables, step = checkpoint.load(workdir)
    described = {
        "workdir": str(workdir),
        "step": step,
        "parameters": parameter_count(variables["params"]),
        "init_from": config.init_from,
    }
    return Scorer(config, dataset, variables), described


def _data(dataset: shards.Dataset, config: Config) -> dict[str, Any]:
    return {
        "path": str(dataset.path),
        "source": dataset.manifest["source"],
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


def _write(text: str, out: Path) -> None:
    temporary = out.with_name(out.name + ".tmp")
    temporary.write_text(text + "\n")
    temporary.replace(out)
