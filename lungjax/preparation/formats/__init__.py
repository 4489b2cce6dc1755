"""One file a source format: each finds its scans and reads one as a `Scan`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from tqdm import tqdm

from lungjax.ct.source import Check, Entry, Quarantined, Reader

Found = tuple[list[Entry], list[Quarantined]]


class Format(Reader, Protocol):
    """What every module of a format offers; to add one, write such a module and name it in `preparation.sources`."""

    @property
    def READERS(self) -> int:
        """How many readers' masks a slice has."""
        ...

    @property
    def ONE_PROCESS(self) -> bool:
        """Whether one process must read all of a source, for it is one object in memory."""
        ...

    @property
    def TELLS_PATIENTS(self) -> bool:
        """Whether a source tells whose scan each is."""
        ...

    def examine(self, source: Path, /) -> tuple[list[tuple[Entry, Check | None]], list[Quarantined]]:
        """What `find` finds, and what can be told of each scan without its voxels; None where that is nothing."""
        ...


def examined(
    found: Found, check: Callable[[Entry], Check]
) -> tuple[list[tuple[Entry, Check | None]], list[Quarantined]]:
    """What a format found, each scan with its check."""
    entries, quarantined = found
    bar = tqdm(entries, desc="checking", unit="scan", leave=False, disable=None)
    return [(entry, check(entry)) for entry in bar], quarantined


def unexamined(found: Found) -> tuple[list[tuple[Entry, Check | None]], list[Quarantined]]:
    """What a format found, of whose scans only their voxels could tell more."""
    entries, quarantined = found
    return [(entry, None) for entry in entries], quarantined
