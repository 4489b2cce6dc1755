"""Where a command works until its result is complete: a hidden folder on the disk of the result."""

from __future__ import annotations

import contextlib
import glob
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lungjax import platforms
from lungjax.errors import InputError


@contextlib.contextmanager
def beside(out: Path) -> Iterator[Path]:
    """Makes an empty folder beside `out`, and removes it at the end; what is renamed from there to `out` is complete.

    What killed processes left there is removed first, so no two may make the same `out` at once: see `lungjax.locks`.
    Folders above `out` are made.

    Raises:
      InputError: one of them cannot be made, because a file is there.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"{out} cannot be made ({error.strerror}); name another folder.") from error
    prefix = f".{out.name}.lungjax-"
    for left in out.parent.glob(f"{glob.escape(prefix)}*"):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=prefix) as holder:
        yield Path(holder)


def refuse_fixed(out: Path) -> None:
    """Raises InputError where no folder can replace `out`: a mount point, or a link to what is not there."""
    if out.is_symlink() and not out.exists():
        raise InputError(f"{out} is a link to what is not there; remove it, or name another folder.")
    if platforms.is_fixed(out):
        raise InputError(
            f"{out} cannot be replaced: it is a mount point, or lies in a folder that you cannot write; name a folder "
            f"in it, as {out / 'new'}."
        )
