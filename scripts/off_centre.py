"""How well segmenters outline nodules that are not in the middle of their input.

    python scripts/off_centre.py [--models segmenter detector] [--data data/slices] [--split val] \
        [--moved-px 0 8 16 24 32]

LIDC's crops have their nodule in the middle, and a network may learn that. Here each slice, with its masks, is moved by
a number of pixels, in turn down, up, right and left; the gap is filled by mirroring the image. Prints a table: pooled
Dice, and the mean Dice of slices whose majority is not empty, with 95 % intervals by bootstrap over patients.

These also change because part of the slice, and of its nodules, is no longer there, and because what is mirrored in may
be a nodule that no mask knows. So what the place alone does is given, too: pooled Dice of the pixels that are
still in view, less that of the same pixels where they were, with the interval of the difference.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from lungjax import metrics
from lungjax.data import intensity, loader, shards, splits
from lungjax.data.context import Context
from lungjax.errors import InputError
from lungjax.evaluation.run_segmentation import Scorer
from lungjax.evaluation.stats import figures
from lungjax.prediction.sliding_window import Segmenter
from lungjax.preparation.builtin import resolve
from lungjax.train.trained import Trained, open_trained

WAYS = ((1, 0), (-1, 0), (0, 1), (0, -1))
"""The directions in which slices are moved: row, column."""


def moved(slices: np.ndarray, rows: np.ndarray, distance_px: int, *, beyond: Any) -> np.ndarray:
    """Moves each slice in a direction chosen by its row in the data set; `beyond` is numpy.pad's mode for the gap."""
    room = np.pad(slices, [(0, 0), (distance_px, distance_px), (distance_px, distance_px)], mode=beyond)
    height, width = slices.shape[1:]
    out = np.empty_like(slices)
    for number, row in enumerate(rows):
        down, right = (distance_px * (1 - way) for way in WAYS[row % len(WAYS)])
        out[number] = room[number, down : down + height, right : right + width]
    return out


def scored(model: Trained, dataset: shards.Dataset, rows: np.ndarray, distances_px: Sequence[int]) -> Iterator[dict]:
    """For each distance, the figures of the moved slices, see `lungjax.evaluation.stats.figures.estimate`; under
    "in_view" of the pixels still in view, and under "against" those of these pixels where they were.
    """
    if Context.of(model.config).slices:
        raise InputError(
            f"{model.path}: is shown neighbouring slices (config.data.context), and these are moved alone."
        )
    marked = _tiled(model, dataset) if model.config.data.crop_px else _whole(model, dataset)
    data = model.config.data
    slices = loader.Slices(dataset, crop_px=0, crop_at=data.crop_at)
    patients = dataset.index["patient_id"].iloc[rows].tolist()
    for distance_px in distances_px:
        counts = []
        for batch in loader.eval_batches(slices, rows, batch_size=data.batch_size):
            move = functools.partial(moved, rows=batch["row"], distance_px=distance_px)
            majority = metrics.majority(batch["readers"], readers=dataset.readers)
            there, after = (move(of, beyond="constant") for of in (majority, marked({**batch})))
            found = marked({**batch, "image": move(batch["image"], beyond="reflect")})
            shown = move(np.ones(majority.shape, bool), beyond="constant")
            each = [metrics.confusion(of, there) for of in (found, found & shown, after)]
            counts.append(np.stack(each)[:, batch["weight"] > 0])
        found, in_view, where_it_was = np.concatenate(counts, axis=1)[:, None]
        yield _figures(found, in_view, where_it_was, patients)


def _whole(model: Trained, dataset: shards.Dataset) -> Callable[[dict], np.ndarray]:
    """What a network that was trained on whole slices marks in a batch of them."""
    scorer = Scorer(model.config, dataset, model.variables)
    return lambda batch: scorer.predict(batch)["logit"] > 0


def _tiled(model: Trained, dataset: shards.Dataset) -> Callable[[dict], np.ndarray]:
    """What a network that was trained on crops marks in a batch of slices, in tiles as `lungjax predict` lays them."""
    segmenter = Segmenter(model)
    to_hu = jax.jit(functools.partial(intensity.to_hu, intensity=dataset.intensity))
    return lambda batch: segmenter.predict(np.asarray(to_hu(batch["image"])).clip(-32000, 32000)) > 0.5


def _figures(each: np.ndarray, in_view: np.ndarray, where_it_was: np.ndarray, patients: Sequence[str]) -> dict:
    """The figures of confusion counts (1, slices, 4): of moved slices, and of what is in view, moved and before."""
    own = each[..., 0] + each[..., 2] > 0
    dice = {"dice": (metrics.scores(each)["dice"], own)}
    moved_section, before = (
        figures.pooled_section(("in_view",), model_counts=counts, reader_counts=None, patients=patients)
        for counts in (in_view, where_it_was)
    )
    return figures.estimate(
        [
            figures.pooled_section(("pooled",), model_counts=each, reader_counts=None, patients=patients),
            figures.means_section(("per_slice",), model=dice, readers=None, patients=patients),
        ]
    ) | figures.estimate([moved_section], against=[before])


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=str(__doc__), formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", type=Path, default=[Path("segmenter"), Path("detector")])
    parser.add_argument("--data", default="data/slices", help="a prepared folder; default: %(default)s")
    parser.add_argument("--split", choices=("val", "test"), default="val", help="default: %(default)s")
    parser.add_argument("--moved-px", nargs="+", type=int, default=[0, 8, 16, 24, 32], help="default: %(default)s")
    given = parser.parse_args(argv)
    if min(given.moved_px) < 0:
        parser.error("--moved-px takes distances, 0 or more")
    try:
        dataset = shards.open_dataset(resolve(given.data))
        print(
            "| model | moved by | pooled Dice | Dice per slice | in view, moved less unmoved |\n|---|---|---|---|---|"
        )
        for path in given.models:
            model = open_trained(path)
            if model.config.task != "segment":
                raise InputError(f"{path} is a network of the task {model.config.task!r}; give segmenters.")
            splits.lock(model.patients, dataset.manifest["split"]["patients"], where=given.data)
            rows = loader.select_rows(dataset, split=given.split, slices=model.config.data.slices)
            reports = scored(model, dataset, rows, given.moved_px)
            progress = tqdm(reports, desc=str(path), total=len(given.moved_px), unit="distance", disable=None)
            for distance_px, report in zip(given.moved_px, progress, strict=True):
                lost = report["against"]["difference"]["in_view"]
                cells = (_cell(section["dice"]) for section in (report["pooled"], report["per_slice"], lost))
                print(f"| {path} | {distance_px} px | {' | '.join(cells)} |", flush=True)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _cell(figure: dict[str, float]) -> str:
    return "{value:.3f} [{low:.3f}, {high:.3f}]".format(**figure)


if __name__ == "__main__":
    sys.exit(main())
