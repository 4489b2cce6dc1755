"""Keeps the programs that JAX compiles, so that the next command need not compile them again.

That is JAX's persistent compilation cache; here it is said where it lies, and damaged files are removed. Each kind of
CPU has a folder of its own within the user's cache folder, for a program may use instructions that another CPU lacks.
Versions, options and devices are JAX's concern.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import warnings
import zlib
from pathlib import Path

from lungjax import platforms

MOST_BYTES = 2**28
"""The oldest programs are deleted beyond that; those of all bundled models take 1 MB."""
_FOLDER, _SECONDS = "JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"
_LEAST_SECONDS = "0.1"
"""To compile a program; to keep others would save nothing."""
_ZLIB = b"\x78"
"""With which a file begins that JAX compressed so that damage can be noticed."""


def keep() -> None:
    """Has JAX keep what it compiles in this process, and in those it starts; to be called before anything is compiled.

    Where the user has set JAX's own variables, these hold: `JAX_COMPILATION_CACHE_DIR` for another folder, and
    `JAX_ENABLE_COMPILATION_CACHE=false` for none. Where the folder cannot be used, nothing is kept.
    """
    # JAX compiles a program that it cannot read, and goes on if it cannot write it: nothing that a user must know.
    warnings.filterwarnings("ignore", r"Error (reading|writing) persistent compilation cache", UserWarning)
    if _FOLDER in os.environ:
        return
    try:
        folder = _make_folder()
        _clean(folder)
    except OSError:
        return
    os.environ[_FOLDER] = str(folder)
    os.environ.setdefault(_SECONDS, _LEAST_SECONDS)
    if "jax" in sys.modules:  # Which has read its variables already.
        import jax

        jax.config.update(_FOLDER.lower(), str(folder))
        jax.config.update(_SECONDS.lower(), float(os.environ[_SECONDS]))


def _make_folder() -> Path:
    """Raises an OSError where it cannot be made, or where others can write: a program from there is run."""
    cpu = hashlib.sha256(platforms.cpu().encode()).hexdigest()[:16]
    folder = platforms.cache_folder() / "lungjax" / "compiled" / cpu
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not platforms.is_private(folder):
        raise PermissionError(f"{folder} can be written by others")
    return folder


def _clean(folder: Path) -> None:
    """Deletes damaged files, for JAX never replaces one, and the oldest ones beyond `MOST_BYTES`."""
    total = 0
    for path in sorted(folder.glob("*-cache"), key=lambda path: -path.stat().st_mtime_ns):
        with contextlib.suppress(OSError):  # Another process may delete it, too.
            content = path.read_bytes()
            total += len(content)
            if total > MOST_BYTES or not _is_whole(content):
                path.unlink()


def _is_whole(content: bytes) -> bool:
    if not content.startswith(_ZLIB):
        return bool(content)
    try:
        zlib.decompress(content)
    except zlib.error:
        return False
    return True
