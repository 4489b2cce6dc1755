"""Whole scans to look at, for `lungjax predict`: DICOM, NIfTI, MetaImage, prepared data."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from lungjax.ct import other_files
from lungjax.ct import read as ct
from lungjax.ct.scan import Scan
from lungjax.ct.series import is_even
from lungjax.ct.source import Entry, Quarantined, Reader
from lungjax.data import scans
from lungjax.errors import Fault, InputError
from lungjax.lidc import annotations, match
from lungjax.preparation import sources
from lungjax.preparation.formats import luna16, nifti

_READERS: tuple[Reader, ...] = (scans, ct, luna16, nifti)
"""The first that fits a source reads it."""


def find_scans(source: Path) -> tuple[Reader, list[Entry], list[Quarantined]]:
    """What reads a source, its scans and what is none, sorted by key.

    Args:
      source: a folder of DICOM, NIfTI or MetaImage, a prepared data set, or one file of NIfTI or MetaImage.

    Raises:
      InputError: nothing is there, or no scans are.
    """
    if not source.exists():
        raise InputError(f"{source}: no such file or folder; give a folder of DICOM, a NIfTI file or prepared data.")
    for reader in _READERS:
        if reader.matches(source):
            return reader, *sources.only_utf8(*reader.find(source))
    if source.is_file():
        why = other_files.advice([source]) or "; of DICOM give the folder that holds the series"
        raise InputError(f"{source} is no NIfTI or MetaImage file{why}.")
    why = other_files.advice(sorted(source.rglob("*")))
    raise InputError(f"{source} holds no scans: no DICOM, NIfTI or MetaImage files, and no prepared data{why}.")


def read(reader: Reader, entry: Entry) -> Scan:
    """One scan, with where it was read from; of a DICOM series that LIDC-IDRI has, all of it, as its database knows it.

    Raises:
      Fault: why it cannot be read, as the reader's own `read` says; or `lungjax.lidc.match`.
    """
    row = annotations.scan_row(entry.key) if reader is ct else None
    if row is None:
        scan = reader.read(entry)
    else:
        try:
            scan = ct.read(entry, uneven=not is_even(row.z_mm))
        except Fault as fault:
            if fault.name == "uneven_spacing" and len(entry.locator) < len(row.z_mm):  # The gap is what is missing.
                held = f"{len(entry.locator)} of {len(row.z_mm)} slices"
                message = f"{entry.where} has {held} ({fault.message}); fetch the series again"
                raise Fault("incomplete_series", message) from fault
            raise
        match.check_scan(scan, row, entry.where)
    is_dicom = reader is ct and Path(entry.where).is_dir()
    files = tuple(Path(path) for path in entry.locator) if is_dicom else ()
    return dataclasses.replace(scan, source=entry.where, dicom_files=files)
