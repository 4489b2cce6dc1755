"""A trained segmenter, slice by slice: predictions on the device, counts and pictures on the host."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from lungjax import metrics
from lungjax.data import loader, shards
from lungjax.data.context import Context
from lungjax.evaluation.plots import examples
from lungjax.evaluation.segmentation import disagreement, overlap_matrix, sections
from lungjax.evaluation.segmentation.nodules_3d import Place
from lungjax.evaluation.segmentation.tally import Tally
from lungjax.tasks import segment
from lungjax.tasks.task import Config
from lungjax.train import calibrate, mesh

SHOWN = 6
"""The number of slices on a sheet of examples."""
_FEW, _MANY = disagreement.SAMPLES
_SHARES = np.concatenate([(np.arange(n) + 0.5) / n for n in (_FEW, _MANY - _FEW)]).astype(np.float32)
"""Thresholds for samples, spread evenly over (0, 1), as are the first few of them."""


class Scorer:
    """A trained segmenter over rows of a data set; compiled once.

    Args:
      config, variables: the run's.
      dataset: the data to predict.
      flips: whether to average the predictions for a slice's four flips, which takes four times as long.
      calibration: the run's calibration of the share of readers; empty or None for none.

    A network that learns how many readers mark a pixel (targets `soft` or `levels`) also gives samples: masks as more
    and less generous readers would draw them, each the pixels whose share of readers is above a threshold in (0, 1).
    """

    def __init__(
        self,
        config: Config,
        dataset: shards.Dataset,
        variables: Any,
        *,
        flips: bool = False,
        calibration: Mapping[str, Any] | None = None,
    ):
        self.readers = dataset.readers
        self._dataset = dataset
        self._index = dataset.index
        self._batch_size = config.data.batch_size
        self._devices = mesh.make_mesh(self._batch_size)
        self._task = segment.make(config, intensity=dataset.intensity, readers=self.readers, mesh=self._devices)
        self._slices = loader.Slices(
            dataset, crop_px=config.data.crop_px, crop_at=config.data.crop_at, context=Context.of(config)
        )
        self._variables = jax.device_put(variables, mesh.replicated(self._devices))
        self._flips = flips
        self._calibration = calibration or {}
        self._thresholds = _SHARES if config.targets in ("soft", "levels") else None
        self._forward = jax.jit(
            self._predict,
            in_shardings=(mesh.replicated(self._devices), mesh.split(self._devices)),
            out_shardings=mesh.replicated(self._devices),
        )

    def _predict(self, variables: Any, batch: Any) -> dict[str, jax.Array]:
        predict = functools.partial(self._task.predict, variables["params"], variables["model_state"])
        predicted = segment.over_flips(predict, batch) if self._flips else predict(batch)
        predicted["drawn"] = calibrate.drawn_share(predicted["share"], self._calibration)
        shares = calibrate.shares_of(self._calibration)
        predicted["share"] = calibrate.calibrated_share(predicted["share"], shares)
        return predicted

    def predict(self, batch: loader.Batch) -> dict[str, np.ndarray]:
        """The task's predictions, see `lungjax.tasks.segment.make`, with flips and calibration where chosen: `image`,
        `logit` and `share`, (batch, height, width) float32; and `drawn`, by which samples are drawn.
        """
        return _on_host(self._start(batch))

    def predictions(self, rows: np.ndarray) -> Iterator[tuple[loader.Batch, dict[str, np.ndarray]]]:
        """All `rows` in order, in batches without padding: what was read, and as `predict`.

        The device already computes the next batch, and threads read those after it, while the caller uses this one.
        """
        previous = None
        for batch in loader.eval_batches(self._slices, rows, batch_size=self._batch_size):
            started = batch, self._start(batch)
            if previous is not None:
                yield _without_padding(*previous)
            previous = started
        if previous is not None:
            yield _without_padding(*previous)

    def _start(self, batch: loader.Batch) -> dict[str, jax.Array]:
        return self._forward(self._variables, mesh.to_devices(batch, self._devices))

    def tally(self, rows: np.ndarray) -> Tally:
        """Predicts and counts the slices of these rows; a pixel is predicted where its logit is above 0."""
        tally = Tally(readers=self.readers, thresholds=self._thresholds)
        with tqdm(total=len(rows), unit="slice", desc="evaluate", disable=None) as progress:
            for batch, predicted in self.predictions(rows):
                places = self._places(batch["row"], batch["corner"])
                tally.add(predicted["share"], predicted["logit"] > 0, batch["readers"], places, predicted["drawn"])
                progress.update(len(places))
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

    def draw_examples(self, rows: np.ndarray, tally: Tally, out: Path) -> list[Path]:
        """Draws the worst and the best slices, one a patient, and slices spread evenly from the worst to the best.

        Returns:
          The files written: `OUT.worst.png`, `OUT.spread.png` and `OUT.best.png`.
        """
        dice = metrics.scores(tally.slices.counts(overlap_matrix.pairs_of(self.readers).model)[0])["dice"]
        order = np.argsort(dice, kind="stable")
        order = order[
            sections.has_majority(tally.slices)[order]
        ]  # Where the majority is empty there is nothing to compare.
        if len(order) == 0:
            return []
        spread = np.linspace(0, len(order) - 1, 2 * SHOWN + 1).round().astype(int)[1::2]
        sheets = {"worst": self._one_a_patient(rows[order]), "spread": rows[order[spread]]}
        sheets["best"] = self._one_a_patient(rows[order[::-1]])
        batch, predicted = (
            _joined(parts) for parts in zip(*self.predictions(np.concatenate([*sheets.values()])), strict=True)
        )
        written, start = [], 0
        for name, picked in sheets.items():
            stop = start + len(picked)
            shown, shown_predicted = ({key: part[start:stop] for key, part in of.items()} for of in (batch, predicted))
            shown["spacing_mm"] = self._index["column_spacing_mm"].iloc[picked].to_numpy()
            titles = [f"{r.patient_id}, slice {r.slice_index}" for r in self._index.iloc[picked].itertuples()]
            path = out.with_suffix(f".{name}.png")
            examples.draw_examples(self._task.name, shown, shown_predicted, titles, path, readers=self.readers)
            written.append(path)
            start = stop
        return written

    def _one_a_patient(self, rows: np.ndarray) -> np.ndarray:
        """The first `SHOWN` patients' first slices, in the order given."""
        first = ~self._index["patient_id"].iloc[rows].duplicated().to_numpy()
        return rows[first][:SHOWN]


def _on_host(predicted: dict[str, jax.Array]) -> dict[str, np.ndarray]:
    return {name: np.asarray(part) for name, part in predicted.items()}


def _without_padding(
    batch: loader.Batch, predicted: dict[str, jax.Array]
) -> tuple[loader.Batch, dict[str, np.ndarray]]:
    slices = int((batch["weight"] > 0).sum())  # Padding comes last.
    return {name: part[:slices] for name, part in batch.items()}, {
        name: part[:slices] for name, part in _on_host(predicted).items()
    }


def _joined(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
