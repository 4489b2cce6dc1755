"""The well-known 8-bit LIDC crops (the Kaggle layout): a folder, a `.zip` or a `.tar`, read in place.

    <anything>/<patient>/nodule-<k>/{images,mask-0,...,mask-3}/slice-<n>.png

Each nodule folder is a scan of its own: what lay between two nodules is not in the source, nor are HU,
positions and ratings.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from lungjax.lidc.formats import archive
from lungjax.lidc.formats.entry import Entry, Quarantined
from lungjax.lidc.scan import RATING_NAMES, READERS, Fault, Nodule, Reading, Scan

_LAYOUT = re.compile(
    r"(?P<folder>(?:.*/)?(?P<patient>[^/]+)/nodule-(?P<nodule>\d+))/(?P<kind>images|mask-\d+)/slice-(?P<number>\d+)\.png"
)
_KINDS = ("images", *(f"mask-{reader}" for reader in range(READERS)))


def matches(source: Path) -> bool:
    """Whether a folder or archive holds any file of this layout; reads names only."""
    return archive.is_source(source) and any(_LAYOUT.fullmatch(name) for name, _ in archive.members(source))


def find(source: Path) -> tuple[list[Entry], list[Quarantined]]:
    """Every nodule folder, by names alone; both lists sorted by key, which is `<patient>/nodule-<k>`.

    Quarantined are folders of the same patient and nodule in two places (`duplicate_series`).

    Raises:
      InputError: the archive cannot be read, or holds a name or link that leads out of it.
    """
    folders: dict[str, dict[tuple[str, int], archive.Place]] = {}
    for name, place in archive.members(source):
        part = _LAYOUT.fullmatch(name)
        if part:
            files = folders.setdefault(part["folder"], {})
            files[part["kind"], int(part["number"])] = place
    entries: dict[str, Entry] = {}
    quarantined: list[Quarantined] = []
    for folder in sorted(folders):
        patient_id, nodule = folder.split("/")[-2:]
        key = f"{patient_id}/{nodule}"
        where = f"{source}/{folder}"
        if key in entries:
            message = f"{where} is the same nodule as {entries[key].where}; keep one of them"
            quarantined.append(Quarantined(folder, where, "duplicate_series", message))
        else:
            locator = (str(source), tuple(sorted(folders[folder].items())))
            entries[key] = Entry(key, patient_id, where, locator)
    return sorted(entries.values(), key=lambda one: one.key), sorted(quarantined, key=lambda one: one.key)


def read(entry: Entry) -> Scan:
    """One nodule: its slices in the order of their numbers, and a reading for each mask that is not empty.

    Raises:
      Fault: `missing_image`, `missing_mask`, `mask_shape`, `mixed_geometry`, `unreadable_file`, `not_8_bit`
        or `too_many_readers`.
    """
    source, files = entry.locator
    by_kind: dict[str, dict[int, archive.Place]] = {kind: {} for kind in _KINDS}
    for (kind, number), place in files:
        by_kind.setdefault(kind, {})[number] = place
    _check_numbers(by_kind, entry.where)
    with archive.opened(Path(source)) as load:
        stacks = {kind: _stack(by_kind[kind], kind, load, entry.where) for kind in _KINDS}
    voxels = stacks["images"]
    readings = []
    for slot in range(READERS):
        mask = stacks[f"mask-{slot}"]
        if mask.shape != voxels.shape:
            sizes = f"{mask.shape[1:]} pixels, the images {voxels.shape[1:]}"
            raise Fault("mask_shape", f"{entry.where}/mask-{slot} has {sizes}")
        if mask.any():
            readings.append(_reading(slot, mask > 0))
    slices = len(voxels)
    return Scan(
        patient_id=entry.patient_id,
        study_uid=entry.patient_id,
        series_uid=entry.key,
        voxels=voxels,
        intensity="unit",
        z_mm=np.full(slices, np.nan),
        spacing_mm=(math.nan, math.nan, math.nan),
        sop_uids=("",) * slices,
        padding_hu=None,
        nodules=(Nodule(0, tuple(readings)),) if readings else (),
    )


def _check_numbers(by_kind: Mapping[str, Mapping[int, object]], where: str) -> None:
    """Every slice has an image and one mask of each reader, and no mask is one too many."""
    images = by_kind["images"].keys()
    for kind, numbers in by_kind.items():
        if kind not in _KINDS:
            raise Fault("too_many_readers", f"{where}/{kind}: LIDC has {READERS} readers, mask-0 to mask-3")
        if missing := sorted(images - numbers.keys()):
            raise Fault("missing_mask", f"{where}/{kind} has no slice-{missing[0]}.png, images has; fetch it again")
        if extra := sorted(numbers.keys() - images):
            raise Fault("missing_image", f"{where}/images has no slice-{extra[0]}.png, {kind} has; fetch it again")


def _stack(numbers: Mapping[int, archive.Place], kind: str, load: archive.Load, where: str) -> np.ndarray:
    """uint8 (slices, rows, columns), ascending by number."""
    images = [_image(load, numbers[number], f"{where}/{kind}/slice-{number}.png") for number in sorted(numbers)]
    shapes = sorted({image.shape for image in images})
    if len(shapes) > 1:
        raise Fault("mixed_geometry", f"{where}/{kind} has slices of several sizes: {shapes}")
    return np.stack(images)


def _image(load: archive.Load, place: archive.Place, where: str) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(load(place)), formats=("PNG",)) as image:
            if image.mode != "L":
                raise Fault("not_8_bit", f"{where} has mode {image.mode}, not 8-bit grey")
            return np.asarray(image)
    except UnidentifiedImageError as error:  # Its message holds an address in memory, another on each run.
        raise Fault("unreadable_file", f"{where} cannot be read (it is no PNG); fetch it again") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise Fault("unreadable_file", f"{where} cannot be read ({error}); fetch it again") from error


def _reading(slot: int, mask: np.ndarray) -> Reading:
    """The reading within its bounding box; the layout carries no ratings."""
    box = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        marked = np.flatnonzero(mask.any(axis=others))
        box.append(slice(int(marked[0]), int(marked[-1]) + 1))
    origin = (box[0].start, box[1].start, box[2].start)
    return Reading(slot, -1, (0,) * len(RATING_NAMES), mask[tuple(box)].copy(), origin)
