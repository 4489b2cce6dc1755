"""A trained segmenter, slice by slice: predictions on the device, counts and pictures of them on the host."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import scipy.special
from tqdm import tqdm

from lungjax.data import loader, shards
from lungjax.evaluate import overlap, sections, segmentation
from lungjax.evaluate.nodules import Place
from lungjax.evaluate.tally import Tally
from lungjax.tasks import segment
from lungjax.tasks.task import Config
from lungjax.train import mesh

SHOWN = 6
"""Slices on a sheet."""


class Scorer:
    """A trained segmenter over rows of a data set; compiled once.

    Args:
      config, variables: of the run.
      dataset: what to look at.
      sample: a batch -> logits (`disagreement.SAMPLES[-1]`, batch, height, width) of masks drawn from the model; None
        of a deterministic one.
    """

    def __init__(
        self,
        config: Config,
        dataset: shards.Dataset,
        variables: Any,
        sample: Callable[[loader.Batch], np.ndarray] | None = None,
    ):
        self.readers = dataset.readers
        self._dataset = dataset
        self._index = dataset.index
        self._batch_size = config.data.batch_size
        self._devices = mesh.make_mesh(self._batch_size)
        self._task = segment.make(config, intensity=dataset.intensity, readers=self.readers, mesh=self._devices)
        self._slices = loader.Slices(dataset, crop_px=config.data.crop_px, crop_at=config.data.crop_at)
        self._variables = jax.device_put(variables, mesh.replicated(self._devices))
        self._sample = sample
        self._forward = jax.jit(
            lambda v, batch: self._task.predict(v["params"], v["model_state"], batch),
            in_shardings=(mesh.replicated(self._devices), mesh.split(self._devices)),
            out_shardings=mesh.replicated(self._devices),
        )

    def logits(self, batch: loader.Batch) -> np.ndarray:
        """(batch, height, width) float32."""
        return np.asarray(self._forward(self._variables, mesh.to_devices(batch, self._devices)))

    def tally(self, rows: np.ndarray) -> Tally:
        """What is kept of each of these slices; a pixel is predicted where its logit is above 0."""
        tally = Tally(readers=self.readers)
        with tqdm(total=len(rows), unit="slice", desc="evaluate", disable=None) as progress:
            for batch in loader.eval_batches(self._slices, rows, batch_size=self._batch_size):
                real = batch["weight"] > 0
                logits = self.logits(batch)[real]
                samples = None if self._sample is None else self._sample(batch)[:, real] > 0
                places = self._places(batch["row"][real], batch["corner"][real])
                tally.add(scipy.special.expit(logits), logits > 0, batch["readers"][real], places, samples)
                progress.update(len(logits))
        tally.finish()
        return tally

    def _places(self, rows: np.ndarray, corners: np.ndarray) -> list[Place]:
        described = zip(self._index.iloc[rows].itertuples(), self._dataset.nodules(rows), corners.tolist(), strict=True)
        return [
            Place(
                patient=str(row.patient_id),
                series=str(row.series_uid),
                slice_index=int(row.slice_index),
                corner=(corner[0], corner[1]),
                spacing_mm=(row.slice_spacing_mm, row.row_spacing_mm, row.column_spacing_mm),
                nodules=nodules,
            )
            for row, nodules, corner in described
        ]

    def draw(self, rows: np.ndarray, tally: Tally, out: Path) -> list[Path]:
        """Sheets of the patients with the worst and the best slices, and of slices spread evenly from worst to best."""
        dice = segmentation.scores(tally.slices.counts(overlap.pairs_of(self.readers).model)[0])["dice"]
        order = np.argsort(dice, kind="stable")
        order = order[sections.marked(tally.slices)[order]]  # With an empty majority there is nothing to compare.
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
