"""One module per source format: each finds the scans of a source and reads them as `Scan`s."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from tqdm import tqdm

from lungjax.ct.source import Check, Entry, Quarantined, Reader

FoundScans = tuple[list[Entry], list[Quarantined]]


class Format(Reader, Protocol):
    """The interface of a format module; to add a format, write such a module and list it in `preparation.sources`."""

    @property
    def READERS(self) -> int:
        """The number of readers' masks that a slice has."""
        ...

    @property
    def ONE_PROCESS(self) -> bool:
        """Whether a single process must read the whole source, because it is one object in memory."""
        ...

    @property
    def HAS_PATIENT_IDS(self) -> bool:
        """Whether a source assigns each scan to a patient."""
        ...

    def examine(self, source: Path, /) -> tuple[list[tuple[Entry, Check | None]], list[Quarantined]]:
        """As `find`, with a check of each scan that reads no voxels; None for formats without such a check."""
        ...


def with_checks(
    found_scans: FoundScans, check: Callable[[Entry], Check]
) -> tuple[list[tuple[Entry, Check | None]], list[Quarantined]]:
    """The result of `examine` for a format whose scans can be checked without reading voxels."""
    entries, quarantined = found_scans
    bar = tqdm(entries, desc="checking", unit="scan", leave=False, disable=None)
    return [(entry, check(entry)) for entry in bar], quarantined


def without_checks(found_scans: FoundScans) -> tuple[list[tuple[Entry, Check | None]], list[Quarantined]]:
    """The result of `examine` for a format whose scans cannot be checked without reading voxels."""
    entries, quarantined = found_scans
    return [(entry, None) for entry in entries], quarantined
