"""The JSON file that `lungjax evaluate` writes, and beside it what has the same name and another suffix."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from lungjax import locks
from lungjax.errors import InputError


@contextlib.contextmanager
def held(out: Path) -> Iterator[Path]:
    """Holds the lock of a file to write until the block ends; its folder is made, and removed if it stays empty.

    Raises:
      InputError: its folder cannot be made, it is a folder itself, or another process writes it.
    """
    if out.is_dir():
        raise InputError(f"{out} is a folder; --out names the JSON file to write.")
    with locks.hold(locks.path_of(out), of=out, option="--out"):
        yield out
