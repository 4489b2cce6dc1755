"""What the user says of a source that its files do not: whose scans they are, and which marks are nodules."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from lungjax import tables
from lungjax.ct.source import Entry, Quarantined
from lungjax.errors import InputError

BY_NAME = ("nifti", "unmarked")
"""Formats whose files need not record a patient."""
LABELLED = "nifti"
"""The format with label maps."""


@dataclasses.dataclass(frozen=True)
class Choices:
    """See the module.

    Attributes:
      labels: the numbers in label maps that are nodules; empty for all but 0.
      unlabelled_is_empty: a scan without a label map has no nodule; otherwise it is not known.
      patients: a CSV file with the columns case and patient, for scans without a PatientID.
    """

    labels: tuple[int, ...] = ()
    unlabelled_is_empty: bool = False
    patients: Path | None = None

    def check(self, name: str) -> None:
        """Raises an InputError where a format knows better than the user."""
        if self.patients is not None and name not in BY_NAME:
            raise InputError(f"--patients is for the formats {', '.join(BY_NAME)}; {name} records patients itself.")
        if (self.labels or self.unlabelled_is_empty) and name != LABELLED:
            raise InputError(f"--label and --unlabelled-is-empty are for the format {LABELLED}, not for {name}.")

    def as_text(self) -> str:
        """For comparison with those of an earlier run."""
        table = "" if self.patients is None else self.patients.read_text(encoding="utf-8-sig", errors="replace")
        return f"labels {list(self.labels)}, unlabelled is empty {self.unlabelled_is_empty}, patients {table!r}"


def apply(
    choices: Choices, name: str, entries: Sequence[Entry], *, scored: bool
) -> tuple[list[Entry], list[Quarantined]]:
    """The scans of a format once the user's choices are applied, and those that are left out by them.

    Args:
      choices: by the user.
      name: of the format.
      entries: its scans.
      scored: the marks are a reference; without a label map there is none.

    Raises:
      InputError: the table cannot be read.
    """
    patients = None if choices.patients is None else read_patients(choices.patients)
    kept, left_out = [], []
    has_labels = scored or (name == LABELLED and any(entry.locator[1] for entry in entries))
    for entry in entries:
        if patients is not None:
            if entry.key not in patients:
                message = f"{choices.patients} names no patient for {entry.key}; add a line for it"
                left_out.append(Quarantined(entry.key, entry.where, "not_in_table", message))
                continue
            entry = dataclasses.replace(entry, patient_id=patients[entry.key])
        if name == LABELLED:
            if has_labels and not entry.locator[1] and not choices.unlabelled_is_empty:
                message = f"{entry.where} has no label map; fetch it, or say --unlabelled-is-empty if it has no nodule"
                left_out.append(Quarantined(entry.key, entry.where, "missing_mask", message))
                continue
            entry = dataclasses.replace(entry, locator=(*entry.locator[:2], choices.labels))
        kept.append(entry)
    return kept, left_out


def read_patients(path: Path) -> dict[str, str]:
    """The patient of each case, from a table with the columns `case` and `patient`.

    Raises:
      InputError: it cannot be read, lacks a column, or names two patients for a case.
    """
    patients: dict[str, str] = {}
    for line, row in tables.read(path, ("case", "patient")):
        case, patient = row["case"], row["patient"]
        if case and patient and patients.setdefault(case, patient) != patient:
            raise InputError(f"{path}, line {line}: names {patients[case]} and {patient} for the case {case}.")
    return patients
