"""One command at a time writes a folder: who comes second is told so, and the first loses nothing.

The lock is an empty file that the operating system has locked for the process that opened it. So a process that is
killed leaves no lock behind, only the empty file, and a copy of the folder, on whatever computer, is not locked.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from lungjax import platforms
from lungjax.errors import InputError

NAME = "lungjax.lock"
"""Of the file that is locked, where it lies in the folder itself."""

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}
_NO_FILE = {errno.EACCES, errno.EPERM, errno.EROFS}


def path_of(out: Path) -> Path:
    """The file to lock for what is written to `out`: beside it, as `OUT.lock`, for at the end `out` may be renamed.

    It lies in `out` itself where that is a mount point, for what is beside it lies on another disk, which other
    computers do not see; and where nothing can be made beside it.
    """
    out = Path(os.path.abspath(out))
    return out / NAME if platforms.is_fixed(out) else out.with_name(f"{out.name}.lock")


@contextlib.contextmanager
def hold(file: Path, *, of: Path, option: str) -> Iterator[None]:
    """Holds a lock until the block ends. The folder of `file` is made, and removed again if it is empty then.

    Where the file system knows no locks, as some network file systems, a warning is printed instead.

    Args:
      file: to lock, see `path_of`.
      of: what it stands for, for the message.
      option: of the command, that names another one.

    Raises:
      InputError: another process holds it, or the file cannot be made.
    """
    with contextlib.ExitStack() as held:
        missing = [folder for folder in file.parents if not folder.exists()]
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            held.callback(_remove_empty, missing)
            locked = held.enter_context(platforms.lock_file(file))
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                reason = error.strerror or error
                raise InputError(f"{of} cannot be made ({reason}); {option} must name a place to write.") from error
            warning = f"{file}: this file system knows no locks; start no second command that writes {of}."
            print(f"lungjax: warning: {warning}", file=sys.stderr)
            locked = True
        if not locked:
            raise InputError(
                f"{of} is in use by another lungjax process; wait for it to end, or name another {option}."
            )
        yield


def _remove_empty(folders: list[Path]) -> None:
    with contextlib.suppress(OSError):  # Something is in it.
        for folder in folders:
            folder.rmdir()
