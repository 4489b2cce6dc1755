"""A folder and everything below it; what is not looked into is told, not passed over in silence."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from lungjax.ct.entry import Quarantined
from lungjax.errors import Fault


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
