"""`lungjax doctor`: what `prepare` would quarantine and what is not there, without reading a voxel."""

from __future__ import annotations

import collections
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lungjax.ct import faults
from lungjax.ct.source import Check, Entry, Quarantined
from lungjax.errors import InputError
from lungjax.lidc import annotations
from lungjax.lidc.annotations import ScanRow
from lungjax.preparation.sources import FORMATS, format_of, only_utf8

_SHOWN = 5
"""Notes of one name that the table lists; `--json` has all."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """One fault or note: its stable name (see `lungjax.ct.faults`), where it is, and one sentence."""

    name: str
    where: str
    message: str


@dataclasses.dataclass(frozen=True)
class Report:
    """What a source holds.

    Attributes:
      source: folder or archive.
      format: one of `FORMATS`.
      patients, scans: how many there are, faulty ones among them; no patients are known where the source does not tell.
      slices: in all scans; None where the format cannot tell without reading.
      missing_patients: of LIDC-IDRI's, which are not there; empty where none of the patients is of LIDC-IDRI.
      faults: what `prepare` would quarantine as faulty, as far as can be told without voxels.
      notes: what else there is to know.
    """

    source: Path
    format: str
    patients: int | None
    scans: int
    slices: int | None
    missing_patients: tuple[str, ...]
    faults: tuple[Finding, ...]
    notes: tuple[Finding, ...]

    def as_json(self) -> dict[str, Any]:
        """Everything but `source`, of JSON's types."""
        fields = dataclasses.asdict(self)
        del fields["source"]
        return fields

    def text(self) -> str:
        """Tables for a person, without a newline at the end."""
        slices = "" if self.slices is None else f", {_count(self.slices, 'slice')}"
        patients = "patients unknown" if self.patients is None else _count(self.patients, "patient")
        held = f"{patients}, {_count(self.scans, 'scan')}{slices}"
        lines = [f"{self.source}: format {self.format}, {held}"]
        if self.missing_patients:
            missing = f"{len(self.missing_patients):,} of LIDC-IDRI's patients are not here"
            lines.append(f"{missing}: {_ranges(self.missing_patients)}")
        lines += ["", "faults: prepare quarantines these", *_table(self.faults, faults.FAULTS, len(self.faults))]
        lines += ["", "notes: nothing need be done", *_table(self.notes, faults.NOTES, _SHOWN)]
        if self.slices is None:
            more = "Of this format only files' names were looked at; prepare may find any fault of theirs."
        else:
            more = f"Only prepare reads voxels, and so may find more: {', '.join(faults.IN_VOXELS)}."
        return "\n".join([*lines, "", more])


def examine(source: Path | str, *, format: str = "auto") -> Report:
    """Looks at names and headers; a format without a `check` tells what its `find` does.

    Args:
      source: what `prepare` would be given.
      format: one of `FORMATS`, or `auto` to look.

    Raises:
      InputError: nothing at `source`, no known format, or nothing of it.
    """
    source = Path(os.path.abspath(source))
    if not source.exists():
        raise InputError(f"{source}: no such file or folder; name a folder of scans or an archive.")
    name = format_of(source, format)
    entries, quarantined, checked = _look(name, source)
    if not entries and not quarantined:
        raise InputError(f"{source} holds no scans of this format; check the path and --format.")
    checks = [(entry, checked[entry.key]) for entry in entries] if checked is not None else []
    scans = annotations.all_scans()
    lidc_patients = {row.patient_id for row in scans}
    patients = {entry.patient_id for entry in entries}
    missing = lidc_patients - patients if lidc_patients & patients else set()
    return Report(
        source=source,
        format=name,
        patients=len(patients) if FORMATS[name].TELLS_PATIENTS else None,
        scans=len(entries),
        slices=sum(one.slices for _, one in checks) if checked is not None else None,
        missing_patients=tuple(sorted(missing)),
        faults=tuple(_faults(checks, quarantined)),
        notes=tuple(_notes(checks, entries, quarantined, scans)),
    )


def _look(name: str, source: Path) -> tuple[list[Entry], list[Quarantined], dict[str, Check] | None]:
    """What is found, and what can be told of each scan, by its key; None where the format tells no more."""
    pairs, quarantined = FORMATS[name].examine(source)
    entries, quarantined = only_utf8([entry for entry, _ in pairs], quarantined)
    checks = {entry.key: check for entry, check in pairs if check is not None}
    return entries, quarantined, checks if len(checks) == len(pairs) else None


def _faults(checks: Sequence[tuple[Entry, Check]], quarantined: Sequence[Quarantined]) -> list[Finding]:
    listed = [Finding(one.name, one.where, one.message) for one in quarantined if one.name in faults.FAULTS]
    return listed + [
        Finding(fault.name, entry.where, f"{entry.patient_id}: {fault.message}")
        for entry, check in checks
        for fault in check.faults
    ]


def _notes(
    checks: Sequence[tuple[Entry, Check]],
    entries: Sequence[Entry],
    quarantined: Sequence[Quarantined],
    scans: Sequence[ScanRow],
) -> list[Finding]:
    found = [
        Finding(note.name, entry.where, f"{entry.patient_id}: {note.message}")
        for entry, check in checks
        for note in check.notes
    ]
    found += [Finding(one.name, one.where, one.message) for one in quarantined if one.name in faults.NOTES]
    folders = collections.Counter(one.where for one in [*entries, *quarantined])
    found += [
        Finding("mixed_series", where, f"{where} holds {count} series") for where, count in folders.items() if count > 1
    ]
    here = {entry.key for entry in entries}
    patients = {row.patient_id for row in scans if row.series_uid in here}
    found += [
        Finding("missing_scan", row.patient_id, f"{row.patient_id}: the series {row.series_uid} is not here")
        for row in scans
        if row.patient_id in patients and row.series_uid not in here
    ]
    return found


def _table(findings: Sequence[Finding], meanings: dict[str, str], shown: int) -> list[str]:
    """Grouped by name, the commonest first."""
    if not findings:
        return ["  none"]
    lines = []
    for name, count in collections.Counter(one.name for one in findings).most_common():
        lines.append(f"  {name} ({count:,}): {meanings[name]}")
        lines += [f"    {one.message}" for one in findings if one.name == name][:shown]
        if count > shown:
            lines.append(f"    and {count - shown:,} more; --json lists all")
    return lines


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' if number != 1 else ''}"


def _ranges(patients: Sequence[str]) -> str:
    """`LIDC-IDRI-0002, 0004 to 0010`."""
    prefix = "LIDC-IDRI-"
    runs: list[list[str]] = []
    for number in (patient.removeprefix(prefix) for patient in patients):
        if runs and int(number) == int(runs[-1][-1]) + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return prefix + ", ".join(run[0] if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs)
