"""A prepared folder once more, with another split: the folds of a cross-validation."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from lungjax.data import manifest, splits
from lungjax.data.shards import open_dataset

SALT = "lungjax-folds-1"
VAL_SHARE = 1 / 8
"""Of the patients outside a fold: they calibrate."""


def fold_of(patient_id: str, folds: int) -> int:
    """The fold in which a patient is tested: a pure function of the id."""
    return _number(f"{SALT}/{patient_id}") % folds


def assign(patient_ids: Iterable[str], fold: int, folds: int) -> dict[str, splits.Split]:
    """Every patient with its split: the fold's are `test`, of the others one in eight `val`.

    Those of `splits.ALWAYS_TEST` are `test` in every fold.
    """

    def split_of(patient_id: str) -> splits.Split:
        if patient_id in splits.ALWAYS_TEST or fold_of(patient_id, folds) == fold:
            return "test"
        return "val" if _number(f"{SALT}/val/{patient_id}") < VAL_SHARE * 2**64 else "train"

    return {patient_id: split_of(patient_id) for patient_id in sorted(set(patient_ids))}


def write(source: Path, out: Path, *, fold: int, folds: int) -> Path:
    """Writes a prepared folder whose shards are those of `source`, by hard links, and whose test patients are a fold.

    Args:
      source: a prepared folder.
      out: to be made; one that is there is left as it is.
      fold: from 0.
      folds: how many.

    Returns:
      `out`.

    Raises:
      InputError: `source` is no prepared folder.
    """
    if out.exists():
        return out
    dataset = open_dataset(source)
    described = manifest.read_manifest(source)
    patients = assign(dataset.index["patient_id"], fold, folds)
    temporary = out.with_name(out.name + ".partial")
    shutil.rmtree(temporary, ignore_errors=True)
    for name in described["files"]:
        (temporary / name).parent.mkdir(parents=True, exist_ok=True)
        if name != manifest.INDEX:
            _link(source / name, temporary / name)
    index = dataset.index.assign(split=[patients[patient] for patient in dataset.index["patient_id"]])
    manifest.write_index(temporary, index)
    size = (temporary / manifest.INDEX).stat().st_size
    described["files"][manifest.INDEX] |= {"sha256": manifest.sha256(temporary / manifest.INDEX), "bytes": size}
    described["split"] = {"salt": SALT, "fold": fold, "folds": folds, "patients": patients}
    described["split"]["digest"] = splits.digest(patients)
    (temporary / manifest.MANIFEST).write_text(json.dumps(described, indent=1, allow_nan=False) + "\n")
    temporary.replace(out)
    return out


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # Another file system.
        shutil.copyfile(source, target)


def _number(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
