"""`lungjax doctor`: what `prepare` would quarantine, and what is missing, without reading a voxel."""

from __future__ import annotations

import collections
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lungjax.ct import faults
from lungjax.ct.source import Check, Entry, Quarantined
from lungjax.errors import InputError, counted
from lungjax.lidc import annotations
from lungjax.lidc.annotations import ScanRow
from lungjax.preparation import sources
from lungjax.preparation.choices import Choices
from lungjax.preparation.sources import FORMATS, NO_CHOICES, format_of

_MAX_LISTED = 5
"""How many notes of one name the table lists; `--json` has all."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """One fault or note: its stable name (see `lungjax.ct.faults`), where it is, and one sentence."""

    name: str
    where: str
    message: str


@dataclasses.dataclass(frozen=True)
class Report:
    """What a source contains.

    Attributes:
      source: folder or archive.
      format: one of `FORMATS`.
      patients, scans: their numbers, including faulty ones; `patients` is None where the source does not record them.
      slices: in all scans; None where the format cannot count them without reading.
      missing_patients: patients of LIDC-IDRI that the source lacks; empty if none of its patients is from LIDC-IDRI.
      faults: what `prepare` would quarantine, as far as can be known without reading voxels.
      notes: anything else worth knowing.
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
        """Everything but `source`, as JSON types."""
        fields = dataclasses.asdict(self)
        del fields["source"]
        return fields

    def text(self) -> str:
        """Tables for the screen, without a newline at the end."""
        slices = "" if self.slices is None else f", {counted(self.slices, 'slice')}"
        patients = "patients unknown" if self.patients is None else counted(self.patients, "patient")
        lines = [f"{self.source}: format {self.format}, {patients}, {counted(self.scans, 'scan')}{slices}"]
        if self.missing_patients:
            missing = f"{len(self.missing_patients):,} of LIDC-IDRI's patients are missing"
            lines.append(f"{missing}: {_ranges(self.missing_patients)}")
        lines += ["", "faults: prepare quarantines these", *_table(self.faults, faults.FAULTS, len(self.faults))]
        lines += ["", "notes: no action needed", *_table(self.notes, faults.NOTES, _MAX_LISTED)]
        if self.slices is None:
            more = "For this format only names were checked; prepare may find any fault in the files."
        else:
            more = f"Only prepare reads voxels and may find more faults: {', '.join(faults.IN_VOXELS)}."
        return "\n".join([*lines, "", more])


def examine(source: Path | str, *, format: str = "auto", choices: Choices = NO_CHOICES) -> Report:
    """Checks names and headers; for a format without checks, only what its `find` reports.

    Args:
      source: as for `prepare`.
      format: one of `FORMATS`, or `auto` to detect it.
      choices: what the user says of the source.

    Raises:
      InputError: `source` does not exist, has no known format, or holds no scan of it.
    """
    source = Path(os.path.abspath(source))
    if not source.exists():
        raise InputError(f"{source}: no such file or folder; name a folder of scans or an archive.")
    name = format_of(source, format)
    entries, quarantined, checked = _examine_format(name, source, choices)
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
        patients=len(patients) if FORMATS[name].HAS_PATIENT_IDS else None,
        scans=len(entries),
        slices=sum(check.slices for _, check in checks) if checked is not None else None,
        missing_patients=tuple(sorted(missing)),
        faults=tuple(_faults(checks, quarantined)),
        notes=tuple(_notes(checks, entries, quarantined, scans)),
    )


def _examine_format(
    name: str, source: Path, choices: Choices
) -> tuple[list[Entry], list[Quarantined], dict[str, Check] | None]:
    """All scans, what is quarantined, and a check of each scan by its key; None where the format has no checks."""
    pairs, quarantined = sources.examine(name, source, choices)
    entries = [entry for entry, _ in pairs]
    checks = {entry.key: check for entry, check in pairs if check is not None}
    return entries, quarantined, checks if len(checks) == len(pairs) else None


def _faults(checks: Sequence[tuple[Entry, Check]], quarantined: Sequence[Quarantined]) -> list[Finding]:
    listed = [Finding(line.name, line.where, line.message) for line in quarantined if line.name in faults.FAULTS]
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
    notes = [
        Finding(note.name, entry.where, f"{entry.patient_id}: {note.message}")
        for entry, check in checks
        for note in check.notes
    ]
    notes += [Finding(line.name, line.where, line.message) for line in quarantined if line.name in faults.NOTES]
    split = {line.where for line in quarantined if line.name == "several_reconstructions"}
    whole = [item for item in [*entries, *quarantined] if item.where not in split]
    folders = collections.Counter(item.where for item in whole)
    notes += [
        Finding("mixed_series", where, f"{where} holds {count} series") for where, count in folders.items() if count > 1
    ]
    series_uids = {entry.key for entry in entries}
    patients = {row.patient_id for row in scans if row.series_uid in series_uids}
    notes += [
        Finding("missing_scan", row.patient_id, f"{row.patient_id}: the series {row.series_uid} is missing")
        for row in scans
        if row.patient_id in patients and row.series_uid not in series_uids
    ]
    return notes


def _table(findings: Sequence[Finding], meanings: dict[str, str], shown: int) -> list[str]:
    """Lines grouped by name, the most common first."""
    if not findings:
        return ["  none"]
    lines = []
    for name, count in collections.Counter(finding.name for finding in findings).most_common():
        lines.append(f"  {name} ({count:,}): {meanings[name]}")
        lines += [f"    {finding.message}" for finding in findings if finding.name == name][:shown]
        if count > shown:
            lines.append(f"    and {count - shown:,} more; --json lists all")
    return lines


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
