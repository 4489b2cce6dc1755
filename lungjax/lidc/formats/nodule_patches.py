"""Nodules as HU patches with their readers' ratings, one `.npz` file: no masks, one image a nodule.

    hu (n, rows, columns) int16, patient_id, series_uid, sop_uid (n,), z_mm, pixel_spacing_mm (n,),
    reader_ratings (n, readers, ratings) 0 where a reader gave none, rating_names (ratings,)

A series is a scan, its patches ordered by their position; a reader who rated a nodule is a reading without a pixel.
What is made of them: gradings, not outlines.
"""

from __future__ import annotations

import functools
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from lungjax.lidc import annotations
from lungjax.lidc.formats.entry import Entry, Quarantined
from lungjax.lidc.scan import RATING_NAMES, READERS, InputError, Nodule, Reading, Scan

IN_MEMORY = True
"""One file, read as a whole."""

_TEXTS = ("patient_id", "series_uid", "sop_uid")
_NUMBERS = ("z_mm", "pixel_spacing_mm")
_KEYS = ("hu", *_TEXTS, *_NUMBERS, "reader_ratings", "rating_names")


def matches(source: Path) -> bool:
    """Whether this is an `.npz` file with all that a patch needs; reads names only."""
    if not source.is_file() or source.suffix.lower() != ".npz":
        return False
    try:
        with zipfile.ZipFile(source) as file:
            return {f"{key}.npy" for key in _KEYS} <= {*file.namelist()}
    except (OSError, zipfile.BadZipFile):
        return False


def find(source: Path) -> tuple[list[Entry], list[Quarantined]]:
    """Every series, sorted by key, its SeriesInstanceUID; nothing is quarantined.

    Raises:
      InputError: the file is damaged or laid out otherwise, or a series has several patients.
    """
    patches = _patches(source)
    rows: dict[str, list[int]] = {}
    for row, uid in enumerate(patches["series_uid"].tolist()):
        rows.setdefault(uid, []).append(row)
    entries = []
    for uid, mine in sorted(rows.items()):
        patients = sorted(set(patches["patient_id"][mine].tolist()))
        if len(patients) > 1:
            raise _other_layout(source, f"the series {uid} is of {patients[0]} and of {patients[1]}")
        entries.append(Entry(uid, patients[0], f"{source}: {uid}", (str(source), tuple(mine))))
    return entries, []


def read(entry: Entry) -> Scan:
    """One series: a slice a nodule, from the lowest to the highest."""
    source, rows = entry.locator
    patches = _patches(Path(source))
    ordered = sorted(rows, key=lambda row: (patches["z_mm"][row], row))
    known = annotations.scan_row(entry.key)
    pixel_mm = float(patches["pixel_spacing_mm"][ordered[0]])
    columns = [patches["rating_names"].tolist().index(name) for name in RATING_NAMES]
    ratings = patches["reader_ratings"][ordered][..., columns]  # (nodules, readers, 9)
    return Scan(
        patient_id=entry.patient_id if known is None else known.patient_id,
        study_uid=entry.key if known is None else known.study_uid,
        series_uid=entry.key,
        voxels=np.ascontiguousarray(patches["hu"][ordered]),
        intensity="hu",
        z_mm=patches["z_mm"][ordered].astype(np.float64),
        spacing_mm=(math.nan, pixel_mm, pixel_mm),
        sop_uids=tuple(patches["sop_uid"][ordered].tolist()),
        padding_hu=None,
        nodules=tuple(Nodule(index, _readings(index, of_readers)) for index, of_readers in enumerate(ratings)),
    )


def _readings(index: int, ratings: np.ndarray) -> tuple[Reading, ...]:
    """Of those who rated, (readers, 9); in the slice of the nodule, without a pixel."""
    nowhere = np.zeros((1, 1, 1), bool)
    return tuple(
        Reading(slot, -1, tuple(of_one.tolist()), nowhere, (index, 0, 0))
        for slot, of_one in enumerate(ratings)
        if of_one.any()
    )


@functools.lru_cache(maxsize=1)
def _patches(source: Path) -> dict[str, np.ndarray]:
    try:
        with source.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            patches = {key: file[key] for key in _KEYS}
    except KeyError as error:
        raise _other_layout(source, f"it has no {error.args[0]}") from error
    except (OSError, ValueError, EOFError, MemoryError, zipfile.BadZipFile) as error:
        raise InputError(f"{source} cannot be read as .npz ({error}); fetch it again.") from error
    _check(patches, source)
    return patches


def _check(patches: dict[str, np.ndarray], source: Path) -> None:
    hu: Any = patches["hu"]
    if hu.dtype != np.int16 or hu.ndim != 3 or not hu.size:
        raise _other_layout(source, f"hu is {hu.dtype} {hu.shape}")
    wanted = {**dict.fromkeys(_TEXTS, "U"), **dict.fromkeys(_NUMBERS, "f")}
    for key, kind in wanted.items():
        if patches[key].shape != (len(hu),) or patches[key].dtype.kind != kind:
            raise _other_layout(source, f"{key} is {patches[key].dtype} {patches[key].shape}")
    names, ratings = patches["rating_names"], patches["reader_ratings"]
    if missing := sorted({*RATING_NAMES} - {*names.tolist()}):
        raise _other_layout(source, f"rating_names has no {missing[0]}")
    shape = (len(hu), READERS, len(names))
    if ratings.shape != shape or ratings.dtype.kind not in "iu" or ratings.min() < 0 or ratings.max() > 6:
        raise _other_layout(source, f"reader_ratings is {ratings.dtype} {ratings.shape}, not 0 to 6 {shape}")
    if not (np.isfinite(patches["z_mm"]).all() and (patches["pixel_spacing_mm"] > 0).all()):
        raise _other_layout(source, "z_mm or pixel_spacing_mm are not all numbers")


def _other_layout(source: Path, what: str) -> InputError:
    return InputError(f"{source} is laid out otherwise than patches of nodules: {what}; check --source.")
