"""Copies of a prepared folder with another split: the folds of a cross-validation."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from lungjax.data import manifest, splits
from lungjax.data.shards import open_dataset

SALT = "lungjax-folds-1"
VAL_SHARE = 1 / 8
"""Share of the patients outside a fold that are used for calibration."""


def fold_of(patient_id: str, folds: int) -> int:
    """The fold in which a patient is tested: a pure function of the ID."""
    return _hash_number(f"{SALT}/{patient_id}") % folds


def assign(patient_ids: Iterable[str], fold: int, folds: int) -> dict[str, splits.Split]:
    """The split of every patient: those of the fold are `test`; of the others one in eight is `val`.

    Patients of `splits.ALWAYS_TEST` are `test` in every fold.
    """

    def split_of(patient_id: str) -> splits.Split:
        if patient_id in splits.ALWAYS_TEST or fold_of(patient_id, folds) == fold:
            return "test"
        return "val" if _hash_number(f"{SALT}/val/{patient_id}") < VAL_SHARE * 2**64 else "train"

    return {patient_id: split_of(patient_id) for patient_id in sorted(set(patient_ids))}


def write(source: Path, out: Path, *, fold: int, folds: int) -> Path:
    """Writes a prepared folder with the shards of `source`, as hard links, whose test patients are those of a fold.

    Args:
      source: a prepared folder.
      out: the folder to make; an existing one is left unchanged.
      fold: number of the fold, from 0.
      folds: number of folds.

    Returns:
      `out`.

    Raises:
      InputError: `source` is not a prepared folder.
    """
    if out.exists():
        return out
    dataset = open_dataset(source)
    new_manifest = manifest.read_manifest(source)
    patients = assign(dataset.index["patient_id"], fold, folds)
    temporary = out.with_name(out.name + ".partial")
    shutil.rmtree(temporary, ignore_errors=True)
    for name in new_manifest["files"]:
        (temporary / name).parent.mkdir(parents=True, exist_ok=True)
        if name != manifest.INDEX:
            _link(source / name, temporary / name)
    index = dataset.index.assign(split=[patients[patient] for patient in dataset.index["patient_id"]])
    manifest.replace_index(temporary, new_manifest, index)
    new_manifest["split"] = {"salt": SALT, "fold": fold, "folds": folds, "patients": patients}
    new_manifest["split"]["digest"] = splits.digest(patients)
    manifest.save_manifest(temporary, new_manifest)
    temporary.replace(out)
    return out


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # Another file system.
        shutil.copyfile(source, target)


def _hash_number(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
