"""Whole scans to look at, for `lungjax predict`: DICOM, NIfTI, MetaImage, prepared data; by the same readers."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

from lungjax.ct.entry import Entry, Quarantined
from lungjax.ct.scan import Scan
from lungjax.data import scans
from lungjax.errors import InputError
from lungjax.preparation import sources
from lungjax.preparation.formats import dicom_ct, luna16, nifti

_FORMATS: tuple[ModuleType, ...] = (scans, dicom_ct, luna16, nifti)
"""The first that fits a folder reads it."""
_NIFTI = re.compile(r"(?P<case>[^.].*?)\.nii(?:\.gz)?")


def find(source: Path) -> tuple[ModuleType, list[Entry], list[Quarantined]]:
    """The format that reads a source, its scans and what is none, sorted by key.

    Args:
      source: a folder of DICOM, NIfTI or MetaImage, a prepared data set, or one NIfTI file.

    Raises:
      InputError: nothing is there, or no scans are.
    """
    if not source.exists():
        raise InputError(f"{source}: no such file or folder; give a folder of DICOM, a NIfTI file or prepared data.")
    if source.is_file():
        name = _NIFTI.fullmatch(source.name)
        if name is None:
            raise InputError(f"{source} is no NIfTI file; of DICOM give the folder that holds the series.")
        return nifti, [Entry(name["case"], name["case"], str(source), (str(source), None))], []
    for module in _FORMATS:
        if module.matches(source):
            return module, *sources.only_utf8(*module.find(source))
    raise InputError(f"{source} holds no scans: no DICOM, NIfTI or MetaImage files, and no prepared data.")


def read(module: ModuleType, entry: Entry) -> Scan:
    """One scan.

    Raises:
      Fault: why it cannot be read, as the format's own `read` says.
    """
    return module.read(entry)
