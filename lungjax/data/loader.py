"""Shards to batches: a Grain pipeline whose global order depends on the seed alone.

The unit of the pipeline is a whole batch of row numbers. Each process takes its own part of every batch, so one
process or many, with worker processes or without, see the same batches in the same order; and the position is
one integer for each worker, which the checkpoint stores.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import grain
import numpy as np
import pandas as pd

from lungjax.data import crop, index_columns, splits
from lungjax.data.neighbours import Neighbours
from lungjax.data.shards import Dataset
from lungjax.data.splits import Split
from lungjax.data.workers import outlive_signals_not_the_parent
from lungjax.errors import InputError

Batch = Mapping[str, np.ndarray]
"""One batch: `image` (b, h, w) int16 HU, uint8 or float32; `readers` (b, h, w) uint8, a bit a reader; `row` (b,)
int32, the row of the index; `corner` (b, 2) int32, row and column in the slice of the image's upper left pixel, below
0 where a crop is larger than the slice; `scan` (b,) int32; `z_mm` (b,) float32, NaN where unknown; `weight` (b,)
float32, 0 for padding. Of pairs also `partner` (b, h, w), as `image`, of a slice near it. Of patches of nodules also
`spacing_mm` (b,) float32; `ratings` (b, 4, 9) int32, 0 where a reader gave none; `label` (b,) float32, 1 malignant, 0
benign, NaN neither."""


def select_rows(dataset: Dataset, *, split: Split | None, slices: str, share: float = 1.0, seed: int = 0) -> np.ndarray:
    """Index rows of one split.

    Args:
      dataset: an opened data set.
      split: `train`, `val` or `test`; None for all.
      slices: `all`; `lung` for slices with at least `slicing.LUNG_MM2` of lung; `nodule` for slices in which at
        least one reader marked something; `rated` for those whose nodule a reader rated.
      share: of the patients who have such slices, see `splits.some_of`; `seed` says which.

    Returns:
      (n,) int64 row numbers, ascending.

    Raises:
      InputError: nothing is left, or `lung` is asked of a source without lung areas.
    """
    index = dataset.index
    chosen = np.ones(len(index), bool)
    if split is not None:
        chosen &= (index["split"] == split).to_numpy()
    if slices == "nodule":
        chosen &= (index["readers_marked"] > 0).to_numpy()
    elif slices == "lung":
        chosen &= _lung_area_mm2(dataset) >= index_columns.LUNG_MM2
    elif slices == "rated":
        chosen &= index["malignancy_median"].notna().to_numpy()
    elif slices != "all":
        raise InputError(f"config.data.slices is {slices!r}; use 'all', 'lung', 'nodule' or 'rated'.")
    if share < 1:
        some = splits.some_of(index["patient_id"][chosen], share, seed=seed)
        chosen &= index["patient_id"].isin(sorted(some)).to_numpy()
    rows = np.flatnonzero(chosen)
    if rows.size == 0:
        raise InputError(
            f"{dataset.path}: no slice in split {split or 'all'} with slices={slices!r}; prepare more patients."
        )
    return rows


def _lung_area_mm2(dataset: Dataset) -> np.ndarray:
    """float64 (slices,), from the index, whose older versions lack it."""
    area_mm2 = dataset.index.get("lung_area_mm2")
    if area_mm2 is None or area_mm2.isna().all():
        raise InputError(
            f"{dataset.path} has no lung areas: its source lost HU or spacing, or an older lungjax prepared it; "
            "use config.data.slices='all' or 'nodule', or prepare it again with --overwrite."
        )
    return area_mm2.to_numpy()


class Slices:
    """Reads rows of a data set as batches.

    Args:
      dataset: where the slices lie.
      crop_px: side of the square crop; 0 takes whole slices, which must then have one size.
      crop_at: `nodule` centres crops near the readers' marks where there are any, on one nodule where they lie too
        far apart; `random` anywhere.
    """

    def __init__(self, dataset: Dataset, *, crop_px: int, crop_at: str):
        if crop_at not in ("nodule", "random"):
            raise InputError(f"config.data.crop_at is {crop_at!r}; use 'nodule' or 'random'.")
        self.dataset = dataset
        self.crop_px = crop_px
        self.crop_at = crop_at
        index = dataset.index
        # One study is one CT scan; the crops of a source without UIDs carry the patient there.
        self._scan = pd.factorize(index["study_uid"])[0].astype(np.int32)
        self._z_mm = index["z_mm"].to_numpy(np.float32)
        self._boxes_px = index[["row_min", "row_max", "column_min", "column_max"]].to_numpy()

    def rows(self, *, split: Split | None, slices: str, share: float = 1.0, seed: int = 0) -> np.ndarray:
        """What `select_rows` says of its data set."""
        return select_rows(self.dataset, split=split, slices=slices, share=share, seed=seed)

    def index_rows(self, rows: np.ndarray) -> np.ndarray:
        """Rows of the index that `rows` are made of."""
        return rows

    def batch(self, rows: np.ndarray, uniform: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """The batch of `rows` (b,); `uniform` (b, 3) in [0, 1) places crops and picks nodules, None centres them."""
        images, readers = self.dataset.pixels(rows)
        corners = [(0, 0)] * len(rows)
        if self.crop_px:
            draws = [None] * len(rows) if uniform is None else list(uniform)
            corners = [self._corner(*one) for one in zip(rows, readers, draws, strict=True)]
            images = [crop.cut(image, at, self.crop_px) for image, at in zip(images, corners, strict=True)]
            readers = [crop.cut(mask, at, self.crop_px, 0) for mask, at in zip(readers, corners, strict=True)]
        shapes = {image.shape for image in images}
        if len(shapes) > 1:
            raise InputError(
                f"{self.dataset.path}: slices have several sizes {sorted(shapes)}; set config.data.crop_px."
            )
        return {
            "image": np.stack(images),
            "readers": np.stack(readers),
            "row": rows.astype(np.int32),
            "corner": np.array(corners, np.int32).reshape(-1, 2),
            "scan": self._scan[rows],
            "z_mm": self._z_mm[rows],
            "weight": np.ones(len(rows), np.float32),
        }

    def _corner(self, row: int, readers: np.ndarray, draws: np.ndarray | None) -> tuple[int, int]:
        place, pick = (None, None) if draws is None else (draws[:2], float(draws[2]))
        if self.crop_at == "random":
            return crop.start(readers.shape, None, self.crop_px, place)
        box = crop.nodule_box(readers, tuple(self._boxes_px[row].tolist()), self.crop_px, pick)
        return crop.start(readers.shape, box, self.crop_px, place)


@dataclasses.dataclass(frozen=True)
class _Decode(grain.transforms.RandomMap):
    """Row numbers of a global batch -> this process's contiguous share of it."""

    slices: Slices
    neighbours: Neighbours | None
    process_index: int
    process_count: int

    def random_map(self, element: np.ndarray, rng: np.random.Generator) -> Batch:  # pyright: ignore[reportIncompatibleMethodOverride]
        uniform = rng.random((len(element), 3))  # Drawn for the global batch: the same on any process count.
        share = len(element) // self.process_count
        mine = slice(self.process_index * share, (self.process_index + 1) * share)
        batch = self.slices.batch(element[mine], uniform[mine])
        if self.neighbours is not None:
            partners = self.neighbours.pick(element, rng.random(len(element)))
            batch["partner"] = self.slices.batch(partners[mine], uniform[mine])["image"]  # Cropped at the same place.
        return batch


def train_batches(
    slices: Slices,
    rows: np.ndarray,
    *,
    batch_size: int,
    seed: int,
    workers: int,
    neighbours: Neighbours | None = None,
    process_index: int = 0,
    process_count: int = 1,
) -> grain.DatasetIterator:
    """Endless shuffled batches; reshuffled every epoch, and a batch may cross epochs so that no slice is dropped.

    Args:
      slices: reads the rows.
      rows: (n,) index rows to draw from.
      batch_size: slices in the global batch; a multiple of `process_count`.
      seed: of order and crops.
      workers: 0 decodes in threads of this process, otherwise in that many processes.
      neighbours: of the same rows, where batches are to have a `partner` of each slice.
      process_index, process_count: of `jax.distributed`.
    """
    _check_share(batch_size, process_count)
    pipeline = (
        grain.MapDataset.source(rows)  # pyright: ignore[reportArgumentType]  It asks for length and items alone.
        .seed(seed)
        .shuffle()
        .repeat()
        .batch(batch_size)
        .random_map(_Decode(slices, neighbours, process_index, process_count))
    )
    if workers:
        read = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
        processes = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2)
        return iter(pipeline.to_iter_dataset(read).mp_prefetch(processes, outlive_signals_not_the_parent))
    return iter(pipeline.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)))


def eval_batches(
    slices: Slices, rows: np.ndarray, *, batch_size: int, process_index: int = 0, process_count: int = 1
) -> Iterator[Batch]:
    """All `rows` once and in order, crops centred; the last batch is filled with copies of weight 0."""
    _check_share(batch_size, process_count)
    share = batch_size // process_count
    mine = slice(process_index * share, (process_index + 1) * share)
    for start in range(0, len(rows), batch_size):
        chosen = rows[start : start + batch_size]
        padded = np.concatenate([chosen, np.repeat(chosen[-1:], batch_size - len(chosen))])
        batch = slices.batch(padded[mine])
        batch["weight"] = (np.arange(batch_size) < len(chosen)).astype(np.float32)[mine]
        yield batch


def _check_share(batch_size: int, process_count: int) -> None:
    if batch_size % process_count:
        raise InputError(
            f"config.data.batch_size {batch_size} is no multiple of the {process_count} processes; change it."
        )
