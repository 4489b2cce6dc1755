"""Patients to train, val or test, by hash: the same patient lands in the same split on every source."""

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
"""Patients whose DICOM is public test material elsewhere: never trained on, whatever their hash."""


_UNKNOWN = "unknown/"
"""Begins the id of a scan whose patient the source does not tell: `unknown/<split>/<name>`."""


def unknown(split: Split, name: str) -> str:
    """The id that stands for a patient whom the source does not tell, in the split that the source gives."""
    return f"{_UNKNOWN}{split}/{name}"


def is_unknown(patient_id: str) -> bool:
    """Whether an id stands for a scan whose patient the source does not tell."""
    return patient_id.startswith(_UNKNOWN)


def split_of(patient_id: str) -> Split:
    """The split of one patient: a pure function of the id, so two data sets can never disagree.

    SHA-256 of salt and id, its first 8 bytes read as a number in [0, 1): below 0.70 train, below 0.80 val,
    else test. An id made by `unknown` names its split.
    """
    for split in SPLITS:
        if patient_id.startswith(f"{_UNKNOWN}{split}/"):
            return split
    if patient_id in ALWAYS_TEST:
        return "test"
    position = _position(f"{SALT}/{patient_id}")
    if position < TRAIN_SHARE:
        return "train"
    return "val" if position < TRAIN_SHARE + VAL_SHARE else "test"


def some_of(patient_ids: Iterable[str], share: float, *, seed: int) -> set[str]:
    """A share of the patients, rounded up: the first of them in an order by hash of `seed` and id.

    Of one seed, a smaller share lies within a larger one; which patients come first depends on nothing but their ids.
    """
    ordered = sorted(set(patient_ids), key=lambda patient_id: _position(f"{SALT}/share-{seed}/{patient_id}"))
    return set(ordered[: math.ceil(round(share * len(ordered), 6))])  # 0.07 * 100 is a little more than 7.


def _position(name: str) -> float:
    """A number in [0, 1) by hash."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64


def assign(patient_ids: Iterable[str]) -> dict[str, Split]:
    """Every distinct patient, in sorted order, with its split; what a manifest stores."""
    return {patient_id: split_of(patient_id) for patient_id in sorted(set(patient_ids))}


def digest(assignment: Mapping[str, Split]) -> str:
    """Sixteen hex digits that name an assignment of patients to splits."""
    return hashlib.sha256(json.dumps(dict(sorted(assignment.items()))).encode()).hexdigest()[:16]


def lock(trained_with: Mapping[str, Split], data: Mapping[str, Split], *, where: str) -> None:
    """The leak lock: refuses data that puts a patient into another split than a checkpoint's training did.

    Args:
      trained_with: patients and splits of the data the checkpoint was trained on.
      data: patients and splits of the data about to be used.
      where: the data's path, for the message.

    Raises:
      InputError: some patient of both changes its split; names how many and one of them. Or nobody can know,
        because one side does not tell its patients and they are not the very same scans.
    """
    if trained_with != data and any(map(is_unknown, (*trained_with, *data))):
        raise InputError(
            f"{where}: does not tell its patients, or the checkpoint's data did not: somebody trained on may be among "
            "those tested on; use the data that the checkpoint was trained with."
        )
    moved = sorted(p for p in data.keys() & trained_with.keys() if data[p] != trained_with[p])
    if moved:
        first = moved[0]
        raise InputError(
            f"{where}: {len(moved)} patients lie in another split than when the checkpoint was trained "
            f"(first: {first}, now {data[first]}, then {trained_with[first]}); prepare the data again with this "
            "version of lungjax, or train anew."
        )
