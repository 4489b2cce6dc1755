"""Assigns patients to train, val or test by hash: a patient is in the same split in every source."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from typing import Literal, get_args

from lungjax.errors import InputError

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

SALT = "lungjax-1"
TRAIN_SHARE = 0.70
VAL_SHARE = 0.10
ALWAYS_TEST = ("LIDC-IDRI-0001", "LIDC-IDRI-0003")
"""Patients whose DICOM files are public test material elsewhere: never trained on, whatever their hash."""

_UNKNOWN_PREFIX = "unknown/"
"""Prefix of the patient ID of a scan whose source does not record patients: `unknown/<split>/<name>`."""


def unknown_patient_id(split: Split, name: str) -> str:
    """The ID in place of a patient that the source does not record; it contains the source's own split."""
    return f"{_UNKNOWN_PREFIX}{split}/{name}"


def is_unknown(patient_id: str) -> bool:
    """Whether an ID takes the place of a patient that the source does not record."""
    return patient_id.startswith(_UNKNOWN_PREFIX)


def split_of(patient_id: str) -> Split:
    """The split of one patient: a pure function of the ID, so two data sets can never disagree.

    The first 8 bytes of the SHA-256 of salt and ID, read as a number in [0, 1): below 0.70 train, below 0.80 val, else
    test. An ID made by `unknown_patient_id` contains its split.
    """
    for split in SPLITS:
        if patient_id.startswith(f"{_UNKNOWN_PREFIX}{split}/"):
            return split
    if patient_id in ALWAYS_TEST:
        return "test"
    position = _hash_fraction(f"{SALT}/{patient_id}")
    if position < TRAIN_SHARE:
        return "train"
    return "val" if position < TRAIN_SHARE + VAL_SHARE else "test"


def sample_patients(patient_ids: Iterable[str], share: float, *, seed: int) -> set[str]:
    """A share of the patients, rounded up: the first in the order of a hash of `seed` and ID.

    With the same seed, a smaller share is a subset of a larger one; the order depends only on the IDs.
    """
    ordered = sorted(set(patient_ids), key=lambda patient_id: _hash_fraction(f"{SALT}/share-{seed}/{patient_id}"))
    return set(
        ordered[: math.ceil(round(share * len(ordered), 6))]
    )  # Without rounding, 0.07 * 100 is slightly more than 7.


def _hash_fraction(name: str) -> float:
    """A number in [0, 1) from the hash of a name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64


def assign(patient_ids: Iterable[str]) -> dict[str, Split]:
    """The split of every distinct patient, in sorted order, as a manifest stores it."""
    return {patient_id: split_of(patient_id) for patient_id in sorted(set(patient_ids))}


def digest(assignment: Mapping[str, Split]) -> str:
    """Sixteen hex digits that identify an assignment of patients to splits."""
    return hashlib.sha256(json.dumps(dict(sorted(assignment.items()))).encode()).hexdigest()[:16]


def lock(trained_with: Mapping[str, Split], data: Mapping[str, Split], *, where: str) -> None:
    """The leak lock: refuses data in which a patient's split differs from that in a checkpoint's training data.

    Args:
      trained_with: patients and splits of the data that the checkpoint was trained on.
      data: patients and splits of the data to be used.
      where: path of the data, for the message.

    Raises:
      InputError: a patient is in both with different splits; the message gives the number of such patients and the
        first. Or this cannot be checked, because one of them does not record patients and they are not the same scans.
    """
    if trained_with != data and any(map(is_unknown, (*trained_with, *data))):
        raise InputError(
            f"{where}: patients are not recorded here or in the checkpoint's data, so training patients may be among "
            "those tested; use the data that the checkpoint was trained with."
        )
    moved = sorted(p for p in data.keys() & trained_with.keys() if data[p] != trained_with[p])
    if moved:
        first = moved[0]
        raise InputError(
            f"{where}: {len(moved)} patients are in another split than when the checkpoint was trained "
            f"(first: {first}, now {data[first]}, then {trained_with[first]}); prepare the data again with this "
            "version of lungjax, or train again."
        )


def most_seen(*assignments: Mapping[str, Split]) -> dict[str, Split]:
    """The split of each patient of several networks that work together: train where one was trained on the patient,
    else val where one was chosen with the patient."""
    return {
        patient: next(split for split in SPLITS if any(known.get(patient) == split for known in assignments))
        for patient in sorted({patient for known in assignments for patient in known})
    }


def joined(first: Mapping[str, Split], second: Mapping[str, Split], *, where: str) -> dict[str, Split]:
    """The patients of two data sets that are trained on together, and the split of each.

    Args:
      first, second: patients and splits.
      where: path of the data of `second`, for the message.

    Raises:
      InputError: a patient is in both with different splits, or one of the two does not record patients.
    """
    if first and second:
        lock(first, second, where=where)
    return {**first, **second}
