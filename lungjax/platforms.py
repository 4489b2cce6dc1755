"""What Linux, macOS and Windows do differently: cores and who uses them, the cache folder, mounts, locks of files."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import platform
import re
import sys
from collections.abc import Iterator
from pathlib import Path
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


def memory_bytes() -> int | None:
    """How much memory this process may use: that of the computer, or of its container; None where nobody says."""
    try:
        known = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf.
        return None
    with contextlib.suppress(OSError, ValueError):  # No container, or "max".
        known.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min(known)


def bind_to_cores(count: int) -> int:
    """Lets this process use `count` of its cores and no others; to be called before JAX starts its threads.

    Returns:
      To how many cores it is bound: fewer than `count` where it had fewer.

    Raises:
      OSError: this operating system binds no process to cores; only Linux does.
    """
    if not hasattr(os, "sched_setaffinity"):
        raise OSError("this operating system binds no process to cores, so a time per core cannot be taken; use Linux")
    cores = sorted(os.sched_getaffinity(0))[:count]
    os.sched_setaffinity(0, cores)
    return len(cores)


def cpu() -> str:
    """What kind of CPU this is: name and, on Linux, the instructions it has; equal for equal CPUs."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            first = "".join(itertools.takewhile(str.strip, lines))  # Of the first core: a blank line ends it.
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    fields = ("model name", "flags", "Features", "CPU implementer", "CPU part")
    return platform.machine() + "".join(line for line in first.splitlines(True) if line.startswith(fields))


def cache_folder() -> Path:
    """This user's folder for files that can be made again.

    Raises:
      OSError: the user has none.
    """
    try:
        if sys.platform == "darwin":
            return Path.home() / "Library" / "Caches"
        if sys.platform == "win32":
            return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
        given = os.environ.get("XDG_CACHE_HOME", "")
        return Path(given) if os.path.isabs(given) else Path.home() / ".cache"  # Relative ones are to be ignored.
    except RuntimeError as error:
        raise FileNotFoundError("this user has no home folder") from error


def is_private(folder: Path) -> bool:
    """Whether this user owns a folder and nobody else may write there; on Windows, True."""
    if not hasattr(os, "getuid"):
        return True
    status = folder.stat()
    return status.st_uid == os.getuid() and not status.st_mode & 0o022


def is_fixed(folder: Path) -> bool:
    """Whether a folder is there that cannot be replaced by another: a mount point, or what is in a folder that this
    user cannot write."""
    return folder.is_dir() and (_is_mount(folder) or not os.access(folder.absolute().parent, os.W_OK))


def _is_mount(path: Path) -> bool:
    if os.path.ismount(path):
        return True
    try:
        lines = Path("/proc/self/mountinfo").read_bytes().splitlines()  # It knows folders mounted within a disk, too.
    except OSError:
        return False
    places = (re.sub(rb"\\([0-7]{3})", lambda octal: bytes([int(octal[1], 8)]), line.split(b" ")[4]) for line in lines)
    return os.fsencode(os.path.realpath(path)) in places


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
        raise OSError(errno.ENOLCK, "this operating system can lock no file: Python has neither fcntl nor msvcrt here")
    file.seek(0)  # Windows locks bytes, not files: the first one, which need not exist.
    try:
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # pyright: ignore[reportAttributeAccessIssue]
    except PermissionError:
        return False
    return True


@contextlib.contextmanager
def lock_file(path: Path) -> Iterator[bool]:
    """Makes a file and locks it, without waiting; whoever holds the lock removes the file at the end.

    Args:
      path: of no file yet, or of an empty one. Windows cannot rename the folder that it is in.

    Yields:
      False where it is locked already: by another process, or by another `lock_file` of this one.

    Raises:
      OSError: the file cannot be made, is somebody's for it is not empty, or its file system knows no locks.
    """
    if path.exists() and (not path.is_file() or path.stat().st_size):
        raise FileExistsError(f"{path} is in the way, and is no lock")
    file = _open_locked(path)
    try:
        yield file is not None
    finally:
        if file is not None:
            _remove_locked(file, path)


def _open_locked(path: Path) -> IO | None:
    while True:
        with contextlib.ExitStack() as closing:
            file = closing.enter_context(path.open("a"))
            if not try_lock(file):
                return None
            if os.fstat(file.fileno()).st_nlink:  # Or else its last holder removed it after we had opened it.
                closing.pop_all()
                return file


def _remove_locked(file: IO, path: Path) -> None:
    windows = fcntl is None
    with file:
        if not windows:  # While it is locked, for a file that is free may be locked by somebody else the next moment.
            path.unlink(missing_ok=True)
    if windows:  # It removes no file that is open, be it our own, or the next holder's by now.
        with contextlib.suppress(PermissionError):
            path.unlink(missing_ok=True)
