"""What a format finds in a source before it reads any voxel: scans to prepare, and what cannot be one."""

from __future__ import annotations

import dataclasses
from typing import Any


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
    """One series that is not prepared, and why; a line of `quarantine.jsonl`.

    Attributes:
      key: unique in the source, as in `Entry`.
      where: path or name a person can find it by.
      name: stable identifier of the fault, as in `Fault`.
      message: one sentence: what, where, what to do.
    """

    key: str
    where: str
    name: str
    message: str
