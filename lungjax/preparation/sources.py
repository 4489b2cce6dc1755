"""All formats of sources, and the detection of a source's format."""

from __future__ import annotations

from pathlib import Path

from lungjax.ct.source import Entry, Quarantined
from lungjax.errors import InputError
from lungjax.preparation.formats import (
    Format,
    jaeho_npy,
    lidc,
    luna16,
    lungd_png,
    nifti,
    nodule_patches,
    prob_unet_hdf5,
    prob_unet_pickle,
    slices,
    unmarked,
)

FORMATS: dict[str, Format] = {
    "lidc": lidc,
    "slices": slices,
    "lungd-png": lungd_png,
    "jaeho-npy": jaeho_npy,
    "luna16": luna16,
    "nifti": nifti,
    "prob-unet-pickle": prob_unet_pickle,
    "prob-unet-hdf5": prob_unet_hdf5,
    "nodule-patches": nodule_patches,
    "unmarked": unmarked,
}
"""`auto` tries them in this order."""


def format_of(source: Path, format: str) -> str:
    """The format's name; `auto` detects it.

    Raises:
      InputError: there is no such format, or no format fits.
    """
    if format != "auto":
        if format not in FORMATS:
            raise InputError(f"unknown format {format!r}; use one of: auto, {', '.join(FORMATS)}.")
        return format
    for name, module in FORMATS.items():
        if module.matches(source):
            return name
    raise InputError(
        f"{source} holds neither DICOM files nor another known layout ({', '.join(list(FORMATS)[1:])}); check --source."
    )


def readers_of(name: str) -> int:
    """The number of readers who looked at each scan of a format."""
    return FORMATS[name].READERS


def find(name: str, source: Path) -> tuple[list[Entry], list[Quarantined]]:
    """The scans that a format finds in a source; scans whose names are not UTF-8 are quarantined (`not_utf8`)."""
    return only_utf8(*FORMATS[name].find(source))


def only_utf8(entries: list[Entry], quarantined: list[Quarantined]) -> tuple[list[Entry], list[Quarantined]]:
    """Moves scans whose names are not UTF-8 from the entries to the quarantined (`not_utf8`)."""
    valid = []
    for entry in entries:
        if _is_utf8(entry.patient_id) and _is_utf8(entry.key):
            valid.append(entry)
        else:
            message = f"{entry.where} has a name that is not UTF-8; rename it"
            quarantined = [*quarantined, Quarantined(entry.key, entry.where, "not_utf8", message)]
    return valid, quarantined


def _is_utf8(name: str) -> bool:
    try:
        return bool(name.encode())
    except UnicodeEncodeError:  # Python represents the bytes of such a file name by lone surrogates.
        return False
