"""A source before any voxel is read: the files in it, the scans they make, and what cannot be one."""

from __future__ import annotations

import dataclasses
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lungjax.errors import Fault

if TYPE_CHECKING:
    from lungjax.ct.scan import Scan


@dataclasses.dataclass(frozen=True)
class Entry:
    """One scan to prepare; small and picklable, for it travels to a worker process.

    Attributes:
      key: unique in the source and the same on every run (a SeriesInstanceUID, say).
      patient_id: whose scan it is.
      where: path or name a person can find it by; for messages.
      locator: what the format's own `read` needs to find the voxels; picklable, deterministic.
    """

    key: str
    patient_id: str
    where: str
    locator: Any


@dataclasses.dataclass(frozen=True)
class Quarantined:
    """One series, or one file that belongs to none, that is not prepared, and why; a line of `quarantine.jsonl`.

    Attributes:
      key: unique in the source, as in `Entry`.
      where: path or name a person can find it by.
      name: stable identifier of the fault, as in `Fault`, or of a note: see `lungjax.ct.faults`.
      message: one sentence: what, where, what to do.
    """

    key: str
    where: str
    name: str
    message: str


@dataclasses.dataclass(frozen=True)
class Note:
    """Something worth knowing of a scan that is prepared all the same; names as in `lungjax.ct.faults`."""

    name: str
    message: str


@dataclasses.dataclass(frozen=True)
class Check:
    """What a format can tell of a scan before it reads any voxel.

    Attributes:
      slices: how many images there are.
      faults: why it would be quarantined, first what `read` raises; none where only voxels could tell more.
      notes: what else there is to know.
    """

    slices: int
    faults: tuple[Fault, ...] = ()
    notes: tuple[Note, ...] = ()


class Reader(Protocol):
    """What finds the scans of a source, and reads one: a module for each kind of source."""

    def matches(self, source: Path, /) -> bool:
        """Whether a source is of this kind, from names and first bytes."""
        ...

    def find(self, source: Path, /) -> tuple[list[Entry], list[Quarantined]]:
        """Every scan, and what cannot be one; both sorted by key."""
        ...

    def read(self, entry: Entry, /) -> Scan:
        """One scan; a `Fault` where it cannot be read."""
        ...


def walk(source: Path, *, but: str | None = None) -> Iterator[tuple[Path, Fault | None]]:
    """Files in a fixed order; and what below the source is not looked into, each with the fault why.

    Links to folders are not followed: they may lead round in a circle, or to the same scans twice (`link`). Links
    to files are files. Folders may be closed to this user (`unreadable_folder`). A pipe would be waited for without
    end (`unreadable_file`).

    Args:
      source: the folder.
      but: folders whose names begin so are passed over.
    """
    closed: list[OSError] = []
    for folder, folders, names in os.walk(source, onerror=closed.append):
        folders[:] = sorted(name for name in folders if but is None or not name.startswith(but))
        for name in folders:
            path = Path(folder, name)
            if path.is_symlink():
                message = f"{path} is a link to a folder, which is not followed; put the folder itself there"
                yield path, Fault("link", message)
        for name in sorted(names):
            path = Path(folder, name)
            yield path, _no_file(path)
    for error in closed:
        message = f"{error.filename} cannot be looked into ({error.strerror}); check its permissions"
        yield Path(error.filename), Fault("unreadable_folder", message)


def _no_file(path: Path) -> Fault | None:
    try:
        mode = path.stat().st_mode
    except OSError:  # Who opens it will tell.
        return None
    if stat.S_ISREG(mode):
        return None
    return Fault("unreadable_file", f"{path} is a pipe, a socket or a device, and no file; remove it")


def not_entered(source: Path, folder: Path, fault: Fault) -> Quarantined:
    """What comes with a fault from `walk`; its key ends in a slash, which no scan's does."""
    return Quarantined(f"{folder.relative_to(source).as_posix()}/", str(folder), fault.name, fault.message)
