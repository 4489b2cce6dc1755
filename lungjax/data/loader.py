"""Reads shards as batches: a Grain pipeline whose global order depends only on the seed.

The unit of the pipeline is a whole batch of row numbers, of which each process takes its part. So one process or many,
with or without worker processes, see the same batches in the same order, and a run can go on with another number of
either: its position is the number of batches it has taken.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import grain
import numpy as np
import pandas as pd

from lungjax.ct.scan import Intensity
from lungjax.data import crop, index_columns, records, splits
from lungjax.data.context import NO_CONTEXT, Context
from lungjax.data.neighbours import Neighbours
from lungjax.data.shards import Dataset
from lungjax.data.splits import Split
from lungjax.data.workers import init_grain_worker
from lungjax.errors import InputError

Batch = Mapping[str, np.ndarray]
"""One batch: `image` (b, h, w) int16 HU, uint8 or float32, or, with the slice's context, (b, planes, h, w); `readers`
(b, h, w) uint8, one bit per reader, but not for pretraining; `row` (b,) int32, the row of the index; `corner` (b, 2)
int32, row and column in the slice of the image's upper left pixel, negative where a crop is larger than the slice;
`scan` (b,) int32; `z_mm` (b,) float32, NaN where unknown; `weight` (b,) float32, 0 for padding. Pairs also have
`partner`, like `image`, of a neighbouring slice. Patches of nodules also have `spacing_mm` (b,) float32; `ratings`
(b, 4, 9) int32, 0 where a reader gave none; `label` (b,) float32, 1 malignant, 0 benign, NaN neither."""


def select_rows(dataset: Dataset, *, split: Split | None, slices: str, share: float = 1.0, seed: int = 0) -> np.ndarray:
    """Index rows of one split.

    Args:
      dataset: an opened data set.
      split: `train`, `val` or `test`; None for all.
      slices: `all`; `lung` for slices with at least `index_columns.LUNG_MM2` of lung; `nodule` for slices in which at
        least one reader marked something; `rated` for slices with a nodule that a reader rated.
      share: share of the patients with such slices, see `splits.sample_patients`.
      seed: determines which patients are taken.

    Returns:
      (n,) int64 row numbers, ascending.

    Raises:
      InputError: no slice is left, or `lung` is requested for a source without lung areas.
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
        raise InputError(f"config.data.slices is {slices!r}; use one of {', '.join(index_columns.SELECTIONS)}.")
    if share < 1:
        sample = splits.sample_patients(index["patient_id"][chosen], share, seed=seed)
        chosen &= index["patient_id"].isin(sorted(sample)).to_numpy()
    rows = np.flatnonzero(chosen)
    if rows.size == 0:
        raise InputError(
            f"{dataset.path}: no slice in split {split or 'all'} with slices={slices!r}; prepare more patients."
        )
    return rows


def _lung_area_mm2(dataset: Dataset) -> np.ndarray:
    """float64 (slices,), from the index; indices of older versions have no such column."""
    area_mm2 = dataset.index.get("lung_area_mm2")
    if area_mm2 is None or area_mm2.isna().all():
        raise InputError(
            f"{dataset.path} has no lung areas: its source lost HU or spacing, or an older lungjax prepared it; "
            "use config.data.slices='all' or 'nodule', or prepare it again with --overwrite."
        )
    return area_mm2.to_numpy()


def crop_bytes(data: Any) -> int:
    """How many bytes a crop takes at least, with its context, by `config.data`; 0 for whole slices."""
    return 2 * Context.of({"data": data}).planes * data.get("crop_px", 0) ** 2


Plan = Mapping[str, np.ndarray]
"""A batch without its pixels: in their place `place`, int32 (b,) or (b, planes), the index rows of the images. Pairs
also have `partner_place` and `partner_corner` (b, 2), as `corner`."""


class Batches(Protocol):
    """What rows are drawn and read from for training: one data set, or several.

    Attributes:
      crop_px: side of the square crops; 0 where images are taken whole.
      context: which slices an image shows, of which the middle one has the marks.
      marks: whether batches have the readers' marks.
      dtype: of `image`.
    """

    @property
    def crop_px(self) -> int: ...

    @property
    def context(self) -> Context: ...

    @property
    def marks(self) -> bool: ...

    @property
    def dtype(self) -> np.dtype: ...

    def endless(self, rows: np.ndarray, *, seed: int) -> grain.MapDataset:
        """Rows for training without an end."""
        ...

    def index_rows(self, rows: np.ndarray) -> np.ndarray:
        """The index rows that make up `rows`, with their context."""
        ...

    def batch(self, rows: np.ndarray, uniform: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """The batch of `rows` (b,); `uniform` (b, 3) in [0, 1) places crops."""
        ...

    def plan(self, rows: np.ndarray, uniform: np.ndarray) -> dict[str, np.ndarray]:
        """The same without pixels, see `Plan`."""
        ...

    def pixels(self, index_rows: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Images and readers' bits, each (rows, columns) and whole."""
        ...

    def sizes_px(self, index_rows: np.ndarray) -> np.ndarray:
        """(n, 2): rows and columns of these images."""
        ...

    def shaped(self, images: Any) -> Any:
        """Images (..., rows, columns), of NumPy or JAX, as a batch has them."""
        ...


Reads = Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]]
"""(rows (b,), uniform (b, 3)) -> a batch or a plan."""


class Slices:
    """Reads rows of a data set as batches.

    Args:
      dataset: the data set with the slices.
      crop_px: side of the square crop; 0 takes whole slices, which must then all have the same size.
      crop_at: `nodule` places crops near the readers' marks where there are any, or near one nodule if the marks do not
        fit into one crop; `lung` centres them anywhere in the box of the lungs; `random` places them anywhere.
      marks: whether a batch has the readers' marks, which pretraining does not look at.
      context: which slices of its scan are shown with each slice.

    Raises:
      InputError: an unknown `crop_at`; or the data set has no lung areas, or no whole scans, where these are needed.
    """

    def __init__(
        self, dataset: Dataset, *, crop_px: int, crop_at: str, marks: bool = True, context: Context = NO_CONTEXT
    ):
        if crop_at not in crop.PLACES:
            raise InputError(f"config.data.crop_at is {crop_at!r}; use one of {', '.join(crop.PLACES)}.")
        self.dataset = dataset
        self.marks = marks
        self.planes = dataset.planes
        self.crop_px = crop_px
        self.crop_at = crop_at
        self.context = context
        self._shown = context.in_index(dataset).astype(np.int32) if context.slices else None
        index = dataset.index
        # One study is one CT scan; crops from a source without UIDs have the patient in this column.
        self._scan = pd.factorize(index["study_uid"])[0].astype(np.int32)
        self._z_mm = index["z_mm"].to_numpy(np.float32)
        self._boxes_px = index[["row_min", "row_max", "column_min", "column_max"]].to_numpy()
        self._sizes_px = index[["rows", "columns"]].to_numpy()
        if crop_at == "lung":
            _lung_area_mm2(dataset)  # Raises where the lungs are not known.
            self._lungs_px = index[
                [f"lung_{name}" for name in ("row_min", "row_max", "column_min", "column_max")]
            ].to_numpy()

    @property
    def index(self) -> pd.DataFrame:
        """That of the data set."""
        return self.dataset.index

    @property
    def intensity(self) -> Intensity:
        """That of the data set."""
        return self.dataset.intensity

    @property
    def dtype(self) -> np.dtype:
        """Of an image's pixels."""
        return records.DTYPES[self.intensity]

    @property
    def scan_count(self) -> int:
        """How many scans a batch's `scan` tells apart."""
        return int(self._scan.max()) + 1

    def rows(self, *, split: Split | None, slices: str, share: float = 1.0, seed: int = 0) -> np.ndarray:
        """The rows that `select_rows` selects from the data set."""
        return select_rows(self.dataset, split=split, slices=slices, share=share, seed=seed)

    def index_rows(self, rows: np.ndarray) -> np.ndarray:
        """The index rows that make up `rows`, with their context."""
        return rows if self._shown is None else self._shown[rows].ravel()

    def endless(self, rows: np.ndarray, *, seed: int) -> grain.MapDataset:
        """Rows for training without an end, reshuffled every epoch."""
        return grain.MapDataset.source(rows).seed(seed).shuffle().repeat()  # pyright: ignore[reportArgumentType]  It only needs length and items.

    def batch(self, rows: np.ndarray, uniform: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """The batch of `rows` (b,). `uniform` (b, 3) in [0, 1) places crops and picks nodules; None centres crops."""
        images, readers = self._planes(rows)
        shapes = [planes[0].shape for planes in images]
        corners = self._corners(rows, uniform, shapes, lambda place: readers[place])
        if self.crop_px:
            at, side_px = corners.tolist(), self.crop_px
            images = [[crop.cut(plane, c, side_px) for plane in planes] for planes, c in zip(images, at, strict=True)]
            readers = [crop.cut(mask, c, side_px, 0) for mask, c in zip(readers, at, strict=True)]
        if len(sizes := {planes[0].shape for planes in images}) > 1:
            raise InputError(
                f"{self.dataset.path}: slices have several sizes {sorted(sizes)}; set config.data.crop_px."
            )
        marks = {"readers": np.stack(readers)} if self.marks else {}
        several = np.stack([plane for planes in images for plane in planes])
        image = several if self._shown is None else several.reshape(len(rows), -1, *several.shape[1:])
        return {"image": self.shaped(image), **marks, **self.described(rows, corners)}

    def plan(self, rows: np.ndarray, uniform: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """The `Plan` of that batch, for which images are read only where a crop must choose among the marks in one."""
        shapes = [(int(height), int(width)) for height, width in self.sizes_px(rows)]
        corners = self._corners(rows, uniform, shapes, lambda place: self.pixels(rows[place : place + 1])[1][0])
        place = rows.astype(np.int32) if self._shown is None else self._shown[rows]
        return {"place": place, **self.described(rows, corners)}

    def described(self, rows: np.ndarray, corners: np.ndarray) -> dict[str, np.ndarray]:
        """What a batch of `rows` (b,) holds but for pixels; `corners` is `corner`."""
        return {
            "row": rows.astype(np.int32),
            "corner": corners,
            "scan": self._scan[rows],
            "z_mm": self._z_mm[rows],
            "weight": np.ones(len(rows), np.float32),
        }

    def shaped(self, images: Any) -> Any:
        """Images (..., rows, columns) as a batch has them: as they are."""
        return images

    def pixels(self, index_rows: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Images and readers' bits, each (rows, columns) and whole, as `Dataset.pixels`."""
        images, readers = self.dataset.pixels(index_rows)
        if self.planes > 1:  # One below the other, of which the middle one shows the candidate.
            images, readers = ([_middle(tall, self.planes) for tall in some] for some in (images, readers))
        return images, readers

    def _planes(self, rows: np.ndarray) -> tuple[list[list[np.ndarray]], list[np.ndarray]]:
        """Of rows (b,) the planes of each image, and the readers' bits of the slice itself, each (rows, columns)."""
        if self._shown is None:
            images, readers = self.pixels(rows)
            return [[image] for image in images], readers
        several, at = np.unique(self._shown[rows], return_inverse=True)  # Neighbours of one are often those of another.
        images, readers = self.pixels(several)
        at = at.reshape(len(rows), self.context.planes)
        return [[images[place] for place in places] for places in at], [
            readers[place] for place in at[:, self.context.slices]
        ]

    def sizes_px(self, index_rows: np.ndarray | slice) -> np.ndarray:
        """(n, 2): rows and columns of the images of these rows."""
        return self._sizes_px[index_rows] // [self.planes, 1]

    def _corners(
        self,
        rows: np.ndarray,
        uniform: np.ndarray | None,
        shapes: Sequence[tuple[int, ...]],
        marks: Callable[[int], np.ndarray],
    ) -> np.ndarray:
        """int32 (b, 2): a batch's `corner`. `marks` gives the readers' marks in the slice at a place of the batch."""
        if not self.crop_px:
            return np.zeros((len(rows), 2), np.int32)
        draws = [None] * len(rows) if uniform is None else list(uniform)
        corners = [
            self._corner(int(row), shapes[place], functools.partial(marks, place), draws[place])
            for place, row in enumerate(rows)
        ]
        return np.array(corners, np.int32)

    def _corner(
        self, row: int, shape: tuple[int, ...], marks: Callable[[], np.ndarray], draws: np.ndarray | None
    ) -> tuple[int, int]:
        position, nodule_draw = (None, None) if draws is None else (draws[:2], float(draws[2]))
        if self.crop_at == "random":
            return crop.crop_corner(shape, None, self.crop_px, position)
        if self.crop_at == "lung":
            return crop.centred_within(shape, tuple(self._lungs_px[row].tolist()), self.crop_px, position)

        def marked() -> np.ndarray:
            found = marks()
            if not found.any():
                raise InputError(
                    f"{self.dataset.path}: index.csv has marks in its row {row}, where the shard has none; "
                    "prepare or copy the data again."
                )
            return found

        box = crop.nodule_box(marked, tuple(self._boxes_px[row].tolist()), self.crop_px, nodule_draw)
        return crop.crop_corner(shape, box, self.crop_px, position)


def _middle(tall: np.ndarray, planes: int) -> np.ndarray:
    """The middle one of planes that lie one below the other."""
    return np.split(tall, planes)[planes // 2]


@dataclasses.dataclass(frozen=True)
class _Decode(grain.transforms.RandomMap):
    """Turns the row numbers of a global batch into this process's contiguous part of the batch."""

    read: Reads
    neighbours: Neighbours | None
    process_index: int
    process_count: int

    def random_map(self, element: np.ndarray, rng: np.random.Generator) -> Batch:  # pyright: ignore[reportIncompatibleMethodOverride]
        uniform = rng.random((len(element), 3))  # Drawn for the global batch, so independent of the process count.
        share = len(element) // self.process_count
        own_part = slice(self.process_index * share, (self.process_index + 1) * share)
        batch = self.read(element[own_part], uniform[own_part])
        if self.neighbours is not None:
            partners = self.neighbours.pick(element, rng.random(len(element)))
            partner = self.read(partners[own_part], uniform[own_part])  # Cropped at the same position.
            names = {"image": "partner"} if "image" in partner else {n: f"partner_{n}" for n in ("place", "corner")}
            batch |= {name: partner[of] for of, name in names.items()}
        return batch


Stream = grain.DatasetIterator
"""Batches one after the other, to be closed in the end."""


def train_batches(
    slices: Batches,
    rows: np.ndarray,
    *,
    batch_size: int,
    seed: int,
    workers: int,
    start: int = 0,
    neighbours: Neighbours | None = None,
    read: Reads | None = None,
    process_index: int = 0,
    process_count: int = 1,
) -> Stream:
    """Endless batches, reshuffled every epoch; a batch may cross epochs, so that no slice is dropped.

    Args:
      slices: gives the order of the rows, and reads them.
      rows: (n,) index rows to draw from.
      batch_size: slices in the global batch; a multiple of `process_count`.
      seed: determines the order and the crops.
      workers: number of processes that decode; 0 decodes in threads of this process. Batches do not depend on it.
      start: number of the first batch.
      read: what makes a batch of rows, if not `slices.batch`.
      neighbours: neighbours of the same rows, if batches are to have a `partner` of each slice.
      process_index, process_count: of `jax.distributed`.
    """
    _check_share(batch_size, process_count)
    pipeline = (
        slices.endless(rows, seed=seed)
        .batch(batch_size)
        .random_map(_Decode(read or slices.batch, neighbours, process_index, process_count))
        .slice(slice(start, None))
    )
    if workers:
        options = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
        processes = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2)
        return iter(pipeline.to_iter_dataset(options).mp_prefetch(processes, init_grain_worker))
    return iter(pipeline.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)))


def eval_batches(
    slices: Slices, rows: np.ndarray, *, batch_size: int, process_index: int = 0, process_count: int = 1
) -> Iterator[Batch]:
    """All `rows` once and in order, with centred crops; the last batch is padded with copies of weight 0.

    Threads read the next batches while the caller uses one.
    """
    _check_share(batch_size, process_count)
    share = batch_size // process_count
    own_part = slice(process_index * share, (process_index + 1) * share)

    def read(start: int) -> Batch:
        chosen = rows[start : start + batch_size]
        padded = np.concatenate([chosen, np.repeat(chosen[-1:], batch_size - len(chosen))])
        batch = slices.batch(padded[own_part])
        batch["weight"] = (np.arange(batch_size) < len(chosen)).astype(np.float32)[own_part]
        return batch

    starts = grain.MapDataset.source(range(0, len(rows), batch_size)).map(read)
    threads = grain.ReadOptions(num_threads=2, prefetch_buffer_size=2)
    with contextlib.closing(iter(starts.to_iter_dataset(threads))) as batches:
        yield from batches


def _check_share(batch_size: int, process_count: int) -> None:
    if batch_size % process_count:
        raise InputError(
            f"config.data.batch_size {batch_size} is not a multiple of the {process_count} processes; change it."
        )
