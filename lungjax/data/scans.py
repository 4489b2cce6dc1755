"""Reads the scans of a data set that `lungjax prepare` made, for `lungjax predict` and `lungjax mine`."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from lungjax.ct.scan import Scan
from lungjax.ct.source import Entry, Quarantined
from lungjax.data import shards
from lungjax.data.manifest import MANIFEST
from lungjax.errors import Fault


def matches(source: Path) -> bool:
    """Whether a folder is a prepared data set."""
    return (source / MANIFEST).is_file()


def find(source: Path) -> tuple[list[Entry], list[Quarantined]]:
    """Finds every series of the index, sorted by key, the SeriesInstanceUID; nothing is quarantined.

    Raises:
      InputError: the data set is damaged.
    """
    index = shards.open_dataset(source).index
    entries = [
        Entry(str(uid), str(rows["patient_id"].iloc[0]), f"{source} ({uid})", (str(source), str(uid)))
        for uid, rows in index.groupby("series_uid")
    ]
    return entries, []


def read(entry: Entry) -> Scan:
    """Reads one series, without nodules, and without `affine_lps`, which shards do not store.

    Raises:
      Fault: `mixed_geometry` where its slices differ in size, as crops do.
      InputError: the data set is damaged.
    """
    return read_with_marks(entry)[0]


def read_with_marks(entry: Entry) -> tuple[Scan, np.ndarray]:
    """As `read`, and the readers' bits, uint8 (slices, rows, columns)."""
    path, series_uid = entry.locator
    dataset = _open(path)
    index = dataset.index
    rows = index.index[index["series_uid"].astype(str) == series_uid]
    rows = rows[np.argsort(index.loc[rows, "slice_index"].to_numpy())]
    records = dataset.read(rows.to_numpy())
    if len({record.image.shape for record in records}) > 1:
        raise Fault("mixed_geometry", f"{entry.where} has slices of several sizes: they are crops, not a scan")
    first = records[0]
    scan = Scan(
        patient_id=first.patient_id,
        study_uid=first.study_uid,
        series_uid=first.series_uid,
        voxels=np.stack([record.image for record in records]),
        intensity=first.intensity,
        z_mm=np.array([record.z_mm for record in records]),
        spacing_mm=first.spacing_mm,
        sop_uids=tuple(record.sop_uid for record in records),
        padding_hu=first.padding_hu,
        nodules=(),
    )
    return scan, np.stack([record.readers for record in records])


_open = functools.lru_cache(maxsize=4)(shards.open_dataset)
"""Kept open: an index of thousands of scans takes longer to read than one scan."""
