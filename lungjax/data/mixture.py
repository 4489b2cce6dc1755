"""Several data sets, drawn from at rates that a configuration sets: crops around nodules, lungs of whole scans, ..."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grain
import numpy as np
import pandas as pd

from lungjax.data import shards, splits
from lungjax.data.context import Context
from lungjax.data.loader import Slices
from lungjax.data.shards import Dataset
from lungjax.data.splits import Split
from lungjax.errors import InputError

MIXED = "mixed"
"""In place of one `lungjax.ct.scan.Intensity`: each image of a batch has its own, see `Mixture.batch`."""


@dataclasses.dataclass(frozen=True)
class Part:
    """One of the data sets.

    Attributes:
      name: of the part, for messages.
      slices: reads it.
      chosen: `config.data.parts.NAME.slices`, which of its slices.
      rate: how often it is drawn from, beside the other parts' rates.
    """

    name: str
    slices: Slices
    chosen: str
    rate: float


class Mixture:
    """Reads batches of several data sets; to the loop it is one data set whose rows are those of all parts.

    Args:
      parts: at least one. All have as many readers, and agree on the split of each patient.

    Attributes:
      parts: as above.
      patients: the split of each patient of all parts.
      intensity: that of all parts, or `MIXED`.
      readers: how many looked at each scan.
      index: the rows of all parts, one part after the other.

    Raises:
      InputError: two parts disagree on a patient's split or on the number of readers, or one has z-scores and another
        has not: what was z-scored cannot be told from HU once both are in one batch.
    """

    def __init__(self, parts: Sequence[Part]):
        self.parts = tuple(parts)
        self.patients: dict[str, Split] = {}
        for part in parts:
            own = part.slices.dataset.manifest["split"]["patients"]
            self.patients = splits.joined(self.patients, own, where=str(part.slices.dataset.path))
        readers = {part.slices.dataset.readers for part in parts}
        if len(readers) > 1:
            raise InputError(
                f"config.data.parts have {sorted(readers)} readers; only data of equally many can be mixed."
            )
        self.readers = readers.pop()
        self._intensities = [part.slices.dataset.intensity for part in parts]
        self.intensity = self._intensities[0] if len({*self._intensities}) == 1 else MIXED
        if self.intensity == MIXED and "zscore" in self._intensities:
            raise InputError("config.data.parts: z-scored slices cannot be mixed with others; leave them out.")
        self.index = pd.concat([part.slices.dataset.index for part in parts], ignore_index=True)
        lengths = [len(part.slices.dataset) for part in parts]
        self._starts = np.cumsum([0, *lengths])
        scans = [int(part.slices.scan_count) for part in parts]
        self._first_scan = np.cumsum([0, *scans])

    def rows(self, *, split: Split | None, slices: str, share: float = 1.0, seed: int = 0) -> np.ndarray:
        """(n,) rows of `index` of a split, of all parts; see `lungjax.data.loader.select_rows`."""
        del slices  # Each part has its own.
        each = [
            start + part.slices.rows(split=split, slices=part.chosen, share=share, seed=seed)
            for start, part in zip(self._starts, self.parts, strict=False)
        ]
        return np.concatenate(each)

    def index_rows(self, rows: np.ndarray) -> np.ndarray:
        """The index rows that make up `rows`, with their context."""
        which = self._part_of(rows)
        each = [
            start + part.slices.index_rows(rows[which == number] - start)
            for number, (start, part) in enumerate(zip(self._starts, self.parts, strict=False))
        ]
        return np.concatenate(each)

    def endless(self, rows: np.ndarray, *, seed: int) -> grain.MapDataset:
        """Rows for training without an end: of each part in turn, as often as its rate says; so every batch is mixed
        alike. Each part is reshuffled when all of it was drawn."""
        which = self._part_of(rows)
        each = [part.slices.endless(rows[which == number], seed=seed) for number, part in enumerate(self.parts)]
        return grain.MapDataset.mix(each, weights=[part.rate for part in self.parts]).seed(seed)

    def _part_of(self, rows: np.ndarray) -> np.ndarray:
        """(n,) the number of each row's part."""
        return np.searchsorted(self._starts, rows, side="right") - 1

    def batch(self, rows: np.ndarray, uniform: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """The batch of `rows` (b,) of `index`, as `Slices.batch` gives it.

        Where intensities are `MIXED`, `image` is int16, or float32 if a part has fractions, and `scaled` (b,) float32
        is 0 for HU, 1 for values that a source has scaled.
        """
        return self._joined(rows, uniform, lambda slices: slices.batch)

    def plan(self, rows: np.ndarray, uniform: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """The `lungjax.data.loader.Plan` of that batch."""
        return self._joined(rows, uniform, lambda slices: slices.plan)

    def _joined(
        self, rows: np.ndarray, uniform: np.ndarray | None, reader: Callable[[Slices], Callable[..., Any]]
    ) -> dict[str, np.ndarray]:
        which = self._part_of(rows)
        joined: dict[str, np.ndarray] = {}
        for number in np.unique(which):
            places = np.flatnonzero(which == number)
            own = None if uniform is None else uniform[places]
            batch = reader(self.parts[number].slices)(rows[places] - self._starts[number], own)
            batch["row"] += np.int32(self._starts[number])
            batch["scan"] += np.int32(self._first_scan[number])
            if "place" in batch:
                batch["place"] += np.int32(self._starts[number])
            else:
                batch["image"] = batch["image"].astype(self.dtype, copy=False)
            if self.intensity == MIXED:
                batch["scaled"] = np.full(len(places), self._intensities[number] != "hu", np.float32)
            for name, values in batch.items():
                if name not in joined:
                    joined[name] = np.zeros((len(rows), *values.shape[1:]), values.dtype)
                if joined[name].shape[1:] != values.shape[1:]:
                    raise InputError(
                        f"config.data.parts.{self.parts[number].name} gives images of {values.shape[1:]} and another "
                        f"part of {joined[name].shape[1:]}; set config.data.crop_px."
                    )
                joined[name][places] = values
        return joined

    def pixels(self, index_rows: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Images, of `dtype`, and readers' bits, each (rows, columns) and whole, of these rows of `index`."""
        which = self._part_of(index_rows)
        pairs: list[Any] = [None] * len(index_rows)
        for number in np.unique(which):
            places = np.flatnonzero(which == number)
            own = self.parts[number].slices.pixels(index_rows[places] - self._starts[number])
            for place, image, bits in zip(places, *own, strict=True):
                pairs[place] = image.astype(self.dtype, copy=False), bits
        return [image for image, _ in pairs], [bits for _, bits in pairs]

    def sizes_px(self, index_rows: np.ndarray) -> np.ndarray:
        """(n, 2): rows and columns of the images of these rows of `index`."""
        return np.concatenate([part.slices.sizes_px(slice(None)) for part in self.parts])[index_rows]

    def shaped(self, images: Any) -> Any:
        """Images (..., rows, columns) as a batch has them."""
        return self.parts[0].slices.shaped(images)

    @property
    def crop_px(self) -> int:
        """That of all parts."""
        return self.parts[0].slices.crop_px

    @property
    def context(self) -> Context:
        """That of all parts."""
        return self.parts[0].slices.context

    @property
    def marks(self) -> bool:
        """That of all parts."""
        return self.parts[0].slices.marks

    @property
    def dtype(self) -> np.dtype:
        """Of an image's pixels: int16, or float32 if a part has fractions, where intensities are mixed."""
        return np.result_type(*[part.slices.dtype for part in self.parts])


def open_parts(parts: Mapping[str, Any], open_slices: Callable[[Dataset, Any], Slices]) -> Mixture:
    """The mixture of a configuration.

    Args:
      parts: `config.data.parts`: by name, `path` of a prepared folder; `slices` and `crop_at` as in `config.data`;
        `rate`, how often it is drawn from beside the others. A part without a path, or of rate 0, is left out.
      open_slices: makes a reader of a data set and its part of the configuration.

    Raises:
      InputError: as for `Mixture`, a path is no data set, or no part is left.
    """
    opened = []
    for name, part in sorted(parts.items()):
        if part.rate < 0:
            raise InputError(f"config.data.parts.{name}.rate is {part.rate}; it must be 0 or more.")
        if part.path and part.rate:
            opened.append(Part(name, open_slices(_open(name, part.path), part), part.slices, float(part.rate)))
    if not opened:
        raise InputError("config.data.parts: no part has a path and a rate above 0; set both of at least one.")
    return Mixture(opened)


def _open(name: str, path: str) -> Dataset:
    try:
        return shards.open_dataset(path)
    except InputError as error:
        raise InputError(f"config.data.parts.{name}: {error}") from error
