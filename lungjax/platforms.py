"""What Linux, macOS and Windows do differently: how many cores there are, and how a file is locked."""

from __future__ import annotations

import os
from typing import IO

try:
    import fcntl
except ImportError:  # Windows has none.
    fcntl = None
try:
    import msvcrt
except ImportError:  # Only Windows has it.
    msvcrt = None


def core_count() -> int:
    """How many cores this process may use, at least 1; on macOS and Windows, how many the computer has."""
    if hasattr(os, "sched_getaffinity"):  # Linux: a job of Slurm's, say, may use some of them only.
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def try_lock(file: IO) -> bool:
    """Locks a file for whoever opened it, without waiting; the lock ends as the file is closed.

    Args:
      file: open for writing.

    Returns:
      False where it is locked already: by another process, or by another `open` of this one.

    Raises:
      OSError: its file system knows no locks.
    """
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
    if msvcrt is None:
        raise OSError("this operating system can lock no file: Python has neither fcntl nor msvcrt here")
    file.seek(0)  # Windows locks bytes, not files: the first one, which need not exist.
    try:
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # pyright: ignore[reportAttributeAccessIssue]
    except PermissionError:
        return False
    return True
