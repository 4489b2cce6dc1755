"""A finished run on a split of a data set: predictions on the device, figures by `lungjax.evaluate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from tqdm import tqdm

from lungjax.data import loader, shards, splits
from lungjax.evaluate import segmentation, table
from lungjax.lidc.builtin import resolve
from lungjax.lidc.scan import InputError
from lungjax.tasks import segment
from lungjax.tasks.task import Config
from lungjax.train import mesh
from lungjax.train import workdir as folder
from lungjax.train.state import parameter_count
from lungjax.train.trained import open_trained

SHOWN = 6
"""Slices on a sheet."""


def evaluate(
    workdir: Path, *, data: Path | None, split: splits.Split | Literal["all"], out: Path | None
) -> dict[str, Any]:
    """Scores the best checkpoint of a segmentation run, prints a table and draws the worst, typical and best slices.

    Args:
      workdir: of the run.
      data: a prepared folder; None for the one the run was trained with. Its readers say what is true: a run may
        be scored on data of one reader and on data of four, whichever it was trained on.
      split: `val`, `test` or `all`.
      out: the JSON file to write; None for `workdir/evaluation-SPLIT.json`, or `-SPLIT-NAME.json` where `data` is
        given. Pictures lie beside it.

    Returns:
      What the JSON holds: figures with 95 % intervals by bootstrap over patients, and where they come from.

    Raises:
      InputError: no such run or data, data whose split or intensity disagrees with the run's, or nowhere to write.
    """
    model = open_trained(workdir)
    config = model.config
    if config.task != "segment":
        raise InputError(f"{workdir}: is a run of the task {config.task!r}; evaluate scores segmentation runs.")
    dataset = shards.open_dataset(resolve(config.data.path) if data is None else data)
    splits.lock(model.patients, dataset.manifest["split"]["patients"], where=str(dataset.path))
    if out is None:
        out = workdir / f"evaluation-{split}{'' if data is None else '-' + dataset.path.name}.json"
    folder.make(out.parent, option="--out")
    if out.is_dir():
        raise InputError(f"{out} is a folder; --out names the JSON file to write.")
    rows = loader.select_rows(dataset, split=None if split == "all" else split, slices=config.data.slices)
    scorer = Scorer(config, dataset, model.variables)
    model_counts, reader_counts = scorer.counts(rows)
    report = {
        "split": split,
        **segmentation.report(
            model_counts=model_counts,
            reader_counts=reader_counts,
            patients=dataset.index["patient_id"].iloc[rows].tolist(),
        ),
        "model": {
            "workdir": str(workdir),
            "step": model.step,
            "parameters": parameter_count(model.variables["params"]),
            "init_from": config.init_from,
            "trained_on": model.intensity,
        },
        "data": {
            "path": str(dataset.path),
            "source": dataset.manifest["source"],
            "intensity": dataset.intensity,
            "readers": dataset.readers,
            "slices": config.data.slices,
            "crop_px": config.data.crop_px,
            "crop_at": config.data.crop_at,
            "split_digest": dataset.manifest["split"]["digest"],
        },
    }
    _write(report, out)
    print(table.text(report))
    print(f"\nscored on {_scope(config)}: how well nodules are outlined, not how well they are found")
    if splits.is_unknown(dataset.index["patient_id"].iloc[0]):
        print("Mind: the source does not tell its patients; each series counts as one, in intervals too.")
    if split == "all":
        print("Mind: split 'all' includes the patients the model was trained on.")
    print(f"figures: {out}")
    for picture in scorer.draw(rows, model_counts, out):
        print(f"overlays: {picture}")
    return report


def _scope(config: Config) -> str:
    """Which pixels a run sees."""
    slices = {"nodule": "slices that a reader marked", "lung": "slices of the lungs", "all": "all slices"}
    crops = {"nodule": "around the marks", "random": "in their middle"}
    where = f", crops of {config.data.crop_px} px {crops[config.data.crop_at]}" if config.data.crop_px else ""
    return slices[config.data.slices] + where


class Scorer:
    """A trained segmenter over rows of a data set; compiled once."""

    def __init__(self, config: Config, dataset: shards.Dataset, variables: Any):
        self._index = dataset.index
        self._batch_size = config.data.batch_size
        self._devices = mesh.make_mesh(self._batch_size)
        self._readers = dataset.readers
        self._task = segment.make(config, intensity=dataset.intensity, readers=self._readers, mesh=self._devices)
        self._slices = loader.Slices(dataset, crop_px=config.data.crop_px, crop_at=config.data.crop_at)
        self._variables = jax.device_put(variables, mesh.replicated(self._devices))
        self._forward = jax.jit(
            lambda v, batch: self._task.predict(v["params"], v["model_state"], batch),
            in_shardings=(mesh.replicated(self._devices), mesh.split(self._devices)),
            out_shardings=mesh.replicated(self._devices),
        )

    def logits(self, batch: loader.Batch) -> np.ndarray:
        """(batch, height, width) float32."""
        return np.asarray(self._forward(self._variables, mesh.to_devices(batch, self._devices)))

    def counts(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Confusion counts: the model's against the majority (n, 4), the readers' against the others (slots, n, 4).

        One reader has no others: None.
        """
        model, readers = [], []
        with tqdm(total=len(rows), unit="slice", desc="evaluate", disable=None) as progress:
            for batch in loader.eval_batches(self._slices, rows, batch_size=self._batch_size):
                real = batch["weight"] > 0
                bits = batch["readers"][real]
                majority = segmentation.majority(bits, readers=self._readers)
                model.append(segmentation.counts(self.logits(batch)[real] > 0, majority))
                readers.append(segmentation.reader_counts(bits))
                progress.update(int(real.sum()))
        return np.concatenate(model), None if self._readers == 1 else np.concatenate(readers, axis=1)

    def draw(self, rows: np.ndarray, counts: np.ndarray, out: Path) -> list[Path]:
        """Sheets of the patients with the worst and the best slices, and of slices spread evenly from worst to best."""
        dice = segmentation.scores(counts)["dice"]
        order = np.argsort(dice, kind="stable")
        order = order[(counts[:, 0] + counts[:, 2] > 0)[order]]  # With an empty majority there is nothing to compare.
        if len(order) == 0:
            return []
        spread = np.linspace(0, len(order) - 1, 2 * SHOWN + 1).round().astype(int)[1::2]
        sheets = {"worst": self._one_a_patient(rows[order]), "spread": rows[order[spread]]}
        sheets["best"] = self._one_a_patient(rows[order[::-1]])
        written = []
        for name, picked in sheets.items():
            picked = picked[: self._batch_size]
            batch = self._slices.batch(np.resize(picked, self._batch_size))
            shown = {key: part[: len(picked)] for key, part in batch.items()}
            shown["spacing_mm"] = self._index["column_spacing_mm"].iloc[picked].to_numpy()
            titles = [f"{r.patient_id}, slice {r.slice_index}" for r in self._index.iloc[picked].itertuples()]
            path = out.with_suffix(f".{name}.png")
            self._task.draw(shown, self.logits(batch)[: len(picked)], titles, path)
            written.append(path)
        return written

    def _one_a_patient(self, rows: np.ndarray) -> np.ndarray:
        """The first `SHOWN` patients' first slices, in the order given."""
        first = ~self._index["patient_id"].iloc[rows].duplicated().to_numpy()
        return rows[first][:SHOWN]


def _write(report: dict[str, Any], out: Path) -> None:
    temporary = out.with_name(out.name + ".tmp")
    temporary.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n")
    temporary.replace(out)
