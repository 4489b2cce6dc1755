"""What a format finds in a source before it reads any voxel: scans to prepare, and what cannot be one."""

from __future__ import annotations

import dataclasses
from typing import Any

from lungjax.errors import Fault


@dataclasses.dataclass(frozen=True)
class Entry:
    """One scan to prepare; small and picklable, for it travels to a worker process.

    Attributes:
      key: unique in the source and the same on every run (a SeriesInstanceUID, say).
      patient_id: whose scan it is.
      where: path or name a person can find it by; for messages.
      locator: what the format's own `read` needs to find the voxels; picklable, deterministic.
    """

    key: str
    patient_id: str
    where: str
    locator: Any


@dataclasses.dataclass(frozen=True)
class Quarantined:
    """One series, or one file that belongs to none, that is not prepared, and why; a line of `quarantine.jsonl`.

    Attributes:
      key: unique in the source, as in `Entry`.
      where: path or name a person can find it by.
      name: stable identifier of the fault, as in `Fault`, or of a note: see `lungjax.ct.faults`.
      message: one sentence: what, where, what to do.
    """

    key: str
    where: str
    name: str
    message: str


@dataclasses.dataclass(frozen=True)
class Note:
    """Something worth knowing of a scan that is prepared all the same; names as in `lungjax.ct.faults`."""

    name: str
    message: str


@dataclasses.dataclass(frozen=True)
class Check:
    """What a format can tell of a scan before it reads any voxel.

    Attributes:
      slices: how many images there are.
      faults: why it would be quarantined, first what `read` raises; none where only voxels could tell more.
      notes: what else there is to know.
    """

    slices: int
    faults: tuple[Fault, ...] = ()
    notes: tuple[Note, ...] = ()
