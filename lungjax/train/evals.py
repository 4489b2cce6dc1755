"""Figures and pictures of a state on the validation patients."""

from __future__ import annotations

import collections
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from lungjax.data import context, loader
from lungjax.data.intensity import to_hu
from lungjax.evaluation.plots import embedding, examples, training_plots
from lungjax.tasks.task import Task
from lungjax.train import logs, mesh, step
from lungjax.train.probe import Probe
from lungjax.train.state import TrainState

QUERIES = 6
"""Slices whose neighbours are drawn."""
SHOWN = 8
"""The greatest number of slices on a sheet of examples."""


class Validation:
    """The validation slices, and the compiled steps that evaluate them.

    Args:
      task, key: of the run.
      devices: the mesh.
      slices, rows: the slices to evaluate, `batch_size` at a time.
      train_rows: the slices that probes are trained on, see `lungjax.train.probe`.
      deterministic: see `lungjax.train.compiler.step_options`.
    """

    def __init__(
        self,
        task: Task,
        devices: Mesh,
        key: jax.Array,
        slices: loader.Slices,
        rows: np.ndarray,
        batch_size: int,
        *,
        train_rows: np.ndarray,
        deterministic: bool = False,
    ):
        self._task = task
        self._devices = devices
        self._slices = slices
        self._rows = rows
        self._batch_size = batch_size
        self._key = key
        self._eval_step = step.make_eval_step(task, devices, deterministic=deterministic)
        self._predict_step = step.make_predict_step(task, devices, deterministic=deterministic)
        self.probe = None
        if task.features:
            self.probe = Probe(task, devices, slices, train_rows, rows, batch_size, deterministic=deterministic)

    def batches(self) -> Any:
        return loader.eval_batches(
            self._slices,
            self._rows,
            batch_size=self._batch_size,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )

    def scores(self, state: TrainState) -> dict[str, float]:
        """The task's figures, from sums over all validation batches in float64 on the host, and those of the probes."""
        sums: dict[str, Any] = collections.defaultdict(float)
        for batch in self.batches():
            own = self._eval_step(state, mesh.to_devices(batch, self._devices), self._key)
            for name, value in jax.device_get(own).items():
                sums[name] = sums[name] + np.asarray(value, np.float64)
        return self._task.summarize(sums) | (self.probe.scores(state) if self.probe else {})

    def draw(self, state: TrainState, workdir: Path, step_number: int) -> None:
        """Draws `examples/<step>.png`, slices spread evenly over the validation rows, and the curves so far; of a
        pretraining also `plots/embedding.png` and `plots/neighbours.png`, of the state that was scored last."""
        spread = np.linspace(0, len(self._rows) - 1, self._batch_size).astype(int)
        chosen = self._slices.batch(self._rows[spread])
        share = self._batch_size // jax.process_count()
        mine = slice(jax.process_index() * share, (jax.process_index() + 1) * share)
        batch = mesh.to_devices({name: part[mine] for name, part in chosen.items()}, self._devices)
        predicted = jax.device_get(self._predict_step(state, batch))
        if jax.process_index() == 0:
            (workdir / "examples").mkdir(exist_ok=True)
            sheet = np.linspace(0, self._batch_size - 1, min(SHOWN, self._batch_size)).astype(int)
            index = self._slices.dataset.index.iloc[chosen["row"][sheet]]
            unit = "candidate" if self._task.name == "sift" else "slice"
            titles = [f"{row.patient_id}, {unit} {row.slice_index}" for row in index.itertuples()]
            shown = {name: part[sheet] for name, part in chosen.items()}
            examples.draw_examples(
                self._task.name,
                {**shown, "spacing_mm": index["column_spacing_mm"].to_numpy()},
                {name: part[sheet] for name, part in predicted.items()},
                titles,
                workdir / "examples" / f"{step_number:07d}.png",
                readers=self._slices.dataset.readers,
            )
            training_plots.curves(workdir / logs.METRICS_FILE, workdir / "plots")
            if self.probe is not None and (features := self.probe.map_features) is not None:
                self._draw_features(features, self.probe.val_rows, workdir / "plots")

    def _draw_features(self, features: np.ndarray, rows: np.ndarray, folder: Path) -> None:
        """Of all slices a map, and of six, from the smallest nodule to the largest, the neighbours."""
        dataset = self._slices.dataset
        index = dataset.index.iloc[rows]
        marked_mm2 = index["majority_px"] * index["row_spacing_mm"] * index["column_spacing_mm"]
        numbers = {
            "marked by a majority, mm\u00b2": marked_mm2.where(marked_mm2 > 0).to_numpy(float),
            "median malignancy, as readers judge it": index["malignancy_median"].to_numpy(float),
        }
        patients = index["patient_id"].tolist()
        embedding.draw_map(features, patients, numbers, folder / "embedding.png")
        marked = np.flatnonzero(index["majority_px"] > 0)
        marked = marked[np.argsort(index["majority_px"].to_numpy()[marked], kind="stable")]
        if len(set(patients)) < 2 or not len(marked):
            return
        queries = marked[np.linspace(0, len(marked) - 1, min(QUERIES, len(marked))).astype(int)]
        sheet = np.concatenate([queries[:, None], embedding.nearest(features, patients, queries)], axis=1)
        image = context.middle(self._slices.batch(rows[sheet.ravel()])["image"])
        hu = np.asarray(to_hu(jnp.asarray(image), intensity=dataset.intensity))
        sizes = [_size(px, mm2) for px, mm2 in zip(index["majority_px"], marked_mm2, strict=True)]
        titles = [[f"{patients[at]}, {sizes[at]}" for at in row] for row in sheet]
        embedding.draw_neighbours(hu.reshape(*sheet.shape, *hu.shape[1:]), titles, folder / "neighbours.png")


def _size(px: int, mm2: float) -> str:
    """How large what a majority marked is; in pixels where their size is not known."""
    return "no majority" if px == 0 else f"{px} px" if np.isnan(mm2) else f"{mm2:.0f} mm\u00b2"
