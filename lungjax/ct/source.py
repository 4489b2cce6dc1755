"""A source before any voxel is read: its files, the scans they make up, and what cannot become a scan."""

from __future__ import annotations

import dataclasses
import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lungjax.ct.faults import NOTES, Note
from lungjax.errors import Fault, plain

if TYPE_CHECKING:
    from lungjax.ct.scan import Scan

_OF_THE_SYSTEM = re.compile(r"\.git|\.AppleDouble|__MACOSX|@eaDir|#recycle|\$RECYCLE\.BIN|\.Trash.*")
"""Folders of copies, of what was deleted, and of files that have the names of others."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """One scan to prepare; small and picklable, because it is sent to a worker process.

    Attributes:
      key: unique in the source and the same on every run, for instance a SeriesInstanceUID.
      patient_id: the patient's ID.
      where: path or name by which a person can find it; for messages.
      locator: what the format's own `read` needs to find the voxels; picklable, deterministic.
    """

    key: str
    patient_id: str
    where: str
    locator: Any


@dataclasses.dataclass(frozen=True)
class Quarantined:
    """A series, or a file that belongs to none, that is not prepared, and the reason; a line of `quarantine.jsonl`.

    Attributes:
      key: unique in the source, as in `Entry`.
      where: path or name by which a person can find it.
      name: stable identifier of the fault, as in `Fault`, or of a note: see `lungjax.ct.faults`.
      message: one sentence: what, where, what to do.
    """

    key: str
    where: str
    name: str
    message: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", plain(self.message))


_FILE_FAULTS = ("missing_tag", "unreadable_file", "unreadable_folder", "link")
"""What a file may have that belongs to no series; a series, too, may lack a tag."""


def chief(quarantined: Sequence[Quarantined]) -> Quarantined:
    """The first fault of a series, or else of a file beside it, or else the first note: what says most."""

    def rank(each: Quarantined) -> tuple[bool, int]:
        return each.name in NOTES, _FILE_FAULTS.index(each.name) + 1 if each.name in _FILE_FAULTS else 0

    return min(quarantined, key=rank)


@dataclasses.dataclass(frozen=True)
class Check:
    """What a format can report about a scan before it reads any voxel.

    Attributes:
      slices: the number of images.
      faults: why the scan would be quarantined, first the fault that `read` raises; empty if only its voxels could
        still show one.
      notes: anything else worth knowing.
    """

    slices: int
    faults: tuple[Fault, ...] = ()
    notes: tuple[Note, ...] = ()


class Reader(Protocol):
    """A module that finds the scans of a source and reads them; one for each kind of source."""

    __name__: str

    def matches(self, source: Path, /) -> bool:
        """Whether a source is of this kind, judged by names and first bytes."""
        ...

    def find(self, source: Path, /) -> tuple[list[Entry], list[Quarantined]]:
        """Finds every scan, and everything that cannot become one; both sorted by key."""
        ...

    def read(self, entry: Entry, /) -> Scan:
        """Reads one scan; raises a `Fault` where that fails."""
        ...


def walk(source: Path, *, skip_prefix: str | None = None) -> Iterator[tuple[Path, Fault | None]]:
    """Yields files in a fixed order, and everything that is not opened, each with its fault.

    Links to folders are not followed: they may lead in a circle, or to the same scans twice (`link`). Links to files
    count as files. A folder may be closed to this user (`unreadable_folder`). Reading a pipe could block for ever
    (`unreadable_file`).

    What version control and file systems keep for themselves is left out: git-annex, for instance, keeps every file a
    second time. Other hidden folders are walked: some are named after a series.

    Args:
      source: the folder.
      skip_prefix: folders whose names begin with it are skipped.
    """
    errors: list[OSError] = []
    for folder, folders, names in os.walk(source, onerror=errors.append):
        folders[:] = sorted(
            name
            for name in folders
            if not (_OF_THE_SYSTEM.fullmatch(name) or (skip_prefix is not None and name.startswith(skip_prefix)))
        )
        for name in folders:
            path = Path(folder, name)
            if path.is_symlink():
                message = f"{path} is a link to a folder, which is not followed; put the folder itself there"
                yield path, Fault("link", message)
        for name in sorted(names):
            path = Path(folder, name)
            yield path, _special_file_fault(path)
    for error in errors:
        message = f"{error.filename} cannot be opened ({error.strerror}); check its permissions"
        yield Path(error.filename), Fault("unreadable_folder", message)


def _special_file_fault(path: Path) -> Fault | None:
    try:
        mode = path.stat().st_mode
    except OSError:  # Opening the file will raise the same error.
        return None
    if stat.S_ISREG(mode):
        return None
    return Fault("unreadable_file", f"{path} is a pipe, a socket or a device, not a file; remove it")


def quarantine_path(source: Path, path: Path, fault: Fault) -> Quarantined:
    """The entry for a path that `walk` yields with a fault; its key ends in a slash, unlike a scan's."""
    return Quarantined(f"{path.relative_to(source).as_posix()}/", str(path), fault.name, fault.message)
