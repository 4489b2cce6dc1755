"""DICOM files in any tree, however nested or named, grouped by SeriesInstanceUID from their headers alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from tqdm import tqdm

from lungjax.ct import dicom, file_tree
from lungjax.ct.entry import Quarantined
from lungjax.errors import Fault

ReadHeader = Callable[[Path], dicom.Header | None]

_OTHER_FILES = {
    ".xml",
    ".png",
    ".jpg",
    ".jpeg",
    ".txt",
    ".csv",
    ".json",
    ".zip",
    ".tar",
    ".gz",
    ".pdf",
    ".html",
}
"""Never DICOM, so not worth opening; LIDC brings an XML with each series."""


def matches(source: Path) -> bool:
    """Whether a folder holds any DICOM file; stops at the first."""
    return source.is_dir() and any(fault is None and _is_dicom(path) for path, fault in _files(source))


def group(source: Path, read_header: ReadHeader) -> tuple[dict[str, tuple[str, list[Path]]], list[Quarantined]]:
    """Every series under a folder: SeriesInstanceUID -> modality and files.

    Quarantined are single files and folders: `unreadable_file`, `missing_tag`, `link`, `unreadable_folder`.
    """
    found: dict[str, tuple[str, list[Path]]] = {}
    quarantined: list[Quarantined] = []
    for path, fault in tqdm(list(_files(source)), desc="finding series", unit="file", leave=False, disable=None):
        if fault:
            quarantined.append(file_tree.not_entered(source, path, fault))
            continue
        try:
            header = _header(path, read_header)
        except Fault as fault:
            key = path.relative_to(source).as_posix()
            quarantined.append(Quarantined(key, str(path), fault.name, fault.message))
            continue
        if header is not None:
            found.setdefault(header.series_uid, (header.modality, []))[1].append(path)
    return found, quarantined


def _files(source: Path) -> Iterator[tuple[Path, Fault | None]]:
    """Files that may be DICOM, in a fixed order; hidden ones (`._000001.dcm` of macOS) are not. Else as `tree.walk`."""
    for path, fault in file_tree.walk(source):
        if fault or not (path.name.startswith(".") or path.suffix.lower() in _OTHER_FILES):
            yield path, fault


def _is_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _header(path: Path, read_header: ReadHeader) -> dicom.Header | None:
    header = read_header(path)
    if header is None and path.suffix.lower() == ".dcm":
        raise Fault("unreadable_file", f"{path} is named like DICOM and is not; fetch it again")
    if header is not None and not header.series_uid:
        raise Fault("missing_tag", f"{path} has no SeriesInstanceUID, so it belongs to no scan")
    return header
