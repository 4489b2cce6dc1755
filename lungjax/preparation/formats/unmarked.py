"""Chest CTs of people without nodules, as DICOM, NIfTI or MetaImage: every slice is an example of what is no nodule.

A scan that nobody has marked looks the same on disk, so this format is never detected: the user says by `--format
unmarked` that all nodules of these scans, namely none, are known.
"""

from __future__ import annotations

from pathlib import Path

from lungjax.ct import read as ct
from lungjax.ct import scan as ct_scan
from lungjax.ct.scan import Scan
from lungjax.ct.source import Check, Entry, Quarantined, quarantine_path, walk
from lungjax.errors import InputError
from lungjax.lidc import annotations
from lungjax.preparation.formats import with_checks

READERS = ct_scan.READERS
"""As in LIDC-IDRI, so that both can be mixed: none of them marked anything."""
ONE_PROCESS = False
HAS_PATIENT_IDS = True


def matches(source: Path) -> bool:
    """Never: nothing in a file says that a scan has no nodules."""
    del source
    return False


def find(source: Path, *, needs_patients: bool = True) -> tuple[list[Entry], list[Quarantined]]:
    """Finds every CT; both lists are sorted by key, the SeriesInstanceUID or a file's name without suffix.

    A NIfTI or MetaImage file counts as a patient of its own, unless BIDS names say otherwise. Quarantined are scans of
    LIDC-IDRI, whose readers looked for nodules (`has_readers`), DICOM without a PatientID (`missing_tag`), and what
    `lungjax.ct.read.find` lists.

    Raises:
      InputError: there is neither DICOM nor a NIfTI or MetaImage file.
    """
    files, quarantined = _volumes(source)
    if not files and not ct.matches(source):
        raise InputError(f"{source} holds no CT: neither DICOM nor files of NIfTI or MetaImage; check the path.")
    entries: list[Entry] = []
    for path in files or [source]:
        some, faulty = ct.find(path, needs_patients=needs_patients)
        quarantined += faulty
        for entry in some:
            if annotations.scan_row(entry.key) is None:
                entries.append(entry)
            else:
                message = f"{entry.where} is a scan of LIDC-IDRI, whose readers' nodules are known; prepare it as lidc"
                quarantined.append(Quarantined(entry.key, entry.where, "has_readers", message))
    return sorted(entries, key=lambda item: item.key), sorted(quarantined, key=lambda item: item.key)


def _volumes(source: Path) -> tuple[list[Path], list[Quarantined]]:
    """Files of NIfTI and MetaImage, sorted, and what could not be opened."""
    if source.is_file():
        return [source], []
    paths, quarantined = [], []
    for path, fault in walk(source):
        if fault:
            quarantined.append(quarantine_path(source, path, fault))
        elif ct.VOLUME.fullmatch(path.name):
            paths.append(path)
    return sorted(paths), quarantined


def examine(source: Path, *, needs_patients: bool = True) -> tuple[list[tuple[Entry, Check | None]], list[Quarantined]]:
    """As `find`, with a check of each scan by its headers and some planes."""
    return with_checks(find(source, needs_patients=needs_patients), ct.check)


def read(entry: Entry) -> Scan:
    """Reads one scan, without nodules.

    Raises:
      Fault: as `lungjax.ct.read.read`.
    """
    return ct.read(entry)
