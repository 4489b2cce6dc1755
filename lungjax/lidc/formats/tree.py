"""A folder and everything below it; what is not looked into is told, not passed over in silence."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from lungjax.lidc.formats.entry import Quarantined
from lungjax.lidc.scan import Fault


def walk(source: Path, *, but: str | None = None) -> Iterator[tuple[Path, Fault | None]]:
    """Files in a fixed order; and folders below the source that are not entered, each with the fault why.

    Links to folders are not followed: they may lead round in a circle, or to the same scans twice (`link`). Links
    to files are files. Folders may be closed to this user (`unreadable_folder`).

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
            yield Path(folder, name), None
    for error in closed:
        message = f"{error.filename} cannot be looked into ({error.strerror}); check its permissions"
        yield Path(error.filename), Fault("unreadable_folder", message)


def not_entered(source: Path, folder: Path, fault: Fault) -> Quarantined:
    """A folder of `walk`'s that comes with a fault; its key ends in a slash, which no scan's does."""
    return Quarantined(f"{folder.relative_to(source).as_posix()}/", str(folder), fault.name, fault.message)
