"""All formats of sources, and the detection of a source's format."""

from __future__ import annotations

from pathlib import Path

from lungjax.ct import other_files
from lungjax.ct.source import Check, Entry, Quarantined
from lungjax.errors import InputError
from lungjax.preparation.choices import Choices, apply
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
NO_CHOICES = Choices()


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
    why = other_files.advice(sorted(source.rglob("*")) if source.is_dir() else [source]) or "; check the path"
    raise InputError(
        f"{source} holds neither DICOM files nor another known layout ({', '.join(list(FORMATS)[1:])}){why}."
    )


def readers_of(name: str) -> int:
    """The number of readers who looked at each scan of a format."""
    return FORMATS[name].READERS


def find(
    name: str, source: Path, choices: Choices = NO_CHOICES, *, scored: bool = False
) -> tuple[list[Entry], list[Quarantined]]:
    """The scans that a format finds in a source; scans whose names are not UTF-8 are quarantined (`not_utf8`).

    Args:
      name: of the format.
      source: folder or archive.
      choices: what the user says of the source.
      scored: the marks are a reference; a scan of which none are known is quarantined (`missing_mask`).

    Raises:
      InputError: the choices do not fit the format, or as the format's `find`.
    """
    choices.check(name)
    entries, quarantined = FORMATS[name].find(source, **_options(name, choices))
    kept, left_out = apply(choices, name, entries, scored=scored)
    return only_utf8(kept, [*quarantined, *left_out])


def examine(
    name: str, source: Path, choices: Choices = NO_CHOICES
) -> tuple[list[tuple[Entry, Check | None]], list[Quarantined]]:
    """As `find`, with a check of each scan, see `Format.examine`."""
    choices.check(name)
    pairs, quarantined = FORMATS[name].examine(source, **_options(name, choices))
    checks = {entry.key: check for entry, check in pairs}
    kept, left_out = apply(choices, name, [entry for entry, _ in pairs], scored=False)
    kept, quarantined = only_utf8(kept, [*quarantined, *left_out])
    return [(entry, checks[entry.key]) for entry in kept], quarantined


def _options(name: str, choices: Choices) -> dict[str, bool]:
    """Scans whose patients a table names need not record them."""
    return {"needs_patients": False} if FORMATS[name] is unmarked and choices.patients is not None else {}


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
