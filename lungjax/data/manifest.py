"""What a dataset folder says of itself: `manifest.json` and `index.csv`."""

from __future__ import annotations

import collections
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import lungjax
from lungjax.data import splits
from lungjax.data.records import SCHEMA_VERSION
from lungjax.errors import InputError

MANIFEST = "manifest.json"
INDEX = "index.csv"
QUARANTINE = "quarantine.jsonl"

_NAMES = ("shard", "patient_id", "study_uid", "series_uid", "sop_uid", "split")
_FLOATS = ("z_mm", "slice_spacing_mm", "row_spacing_mm", "column_spacing_mm", "malignancy_median", "lung_area_mm2")


def write_manifest(
    path: Path,
    index: pd.DataFrame,
    *,
    source: Mapping[str, str],
    intensity: str,
    readers: int,
    nodules: int,
    annotations: int,
    ambiguous_nodules: Sequence[Mapping[str, Any]],
) -> None:
    """Writes `manifest.json` of a folder whose other files are all in place; the same folder, the same bytes.

    Args:
      path: the folder.
      index: its index.
      source: `format` and `name` of what it was made from.
      intensity: see `lungjax.ct.scan.Intensity`.
      readers: how many looked at each scan; the majority of one is that one.
      nodules, annotations: how many nodules, and readers' outlines of them, all scans have.
      ambiguous_nodules: `series_uid`, `nodule` and number of `readings` of those with more than four readings, which
        are several nodules that touch, or one that a reader drew twice.
    """
    records = collections.Counter(index["shard"].tolist())
    files = {name: _file(path, name, count) for name, count in records.items()}
    files[INDEX] = _file(path, INDEX, len(index))
    files[QUARANTINE] = _file(path, QUARANTINE, len((path / QUARANTINE).read_text().splitlines()))
    patients = splits.assign(index["patient_id"])
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "lungjax": lungjax.__version__,
        "source": dict(source),
        "intensity": intensity,
        "readers": readers,
        "counts": {
            "patients": len(patients),
            "scans": len(set(index["series_uid"])),
            "slices": len(index),
            "slices_with_nodules": int(np.count_nonzero(index["readers_marked"])),
            "nodules": nodules,
            "annotations": annotations,
        },
        "ambiguous_nodules": list(ambiguous_nodules),
        "files": dict(sorted(files.items())),
        "split": {
            "salt": splits.SALT,
            "shares": {"train": splits.TRAIN_SHARE, "val": splits.VAL_SHARE},
            "always_test": list(splits.ALWAYS_TEST),
            "patients": patients,
            "digest": splits.digest(patients),
        },
    }
    temporary = path / (MANIFEST + ".tmp")
    temporary.write_text(json.dumps(manifest, indent=1, allow_nan=False) + "\n")
    temporary.replace(path / MANIFEST)  # Whole or not at all: with a manifest a folder is a data set.


def read_manifest(path: Path) -> dict[str, Any]:
    """`manifest.json` of a folder, parsed.

    Raises:
      InputError: there is none, it is damaged, or of another schema version.
    """
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        version = manifest["schema_version"]
    except FileNotFoundError:
        raise InputError(
            f"{path} has no {MANIFEST}, so it is no finished data set; make one with `lungjax prepare`."
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path / MANIFEST} is damaged ({error!r}); prepare the data again.") from error
    if version != SCHEMA_VERSION:
        raise InputError(f"{path} has schema version {version}, this lungjax reads {SCHEMA_VERSION}; prepare it again.")
    if missing := sorted({"source", "intensity", "counts", "files", "split"} - manifest.keys()):
        raise InputError(f"{path / MANIFEST} is damaged (it has no {missing[0]!r}); prepare the data again.")
    return manifest


def foreign_files(path: Path) -> list[str]:
    """What lies in a folder and is of no data set of ours, sorted; without a manifest of ours that is everything."""
    names = {entry.name for entry in path.iterdir()}
    try:
        described = json.loads((path / MANIFEST).read_text())
        ours = {MANIFEST, *(name.split("/")[0] for name in described["files"])} if "lungjax" in described else set()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        ours = set()
    return sorted(names - ours)


def read_index(path: Path) -> pd.DataFrame:
    """`index.csv` of a folder, numbers to the last bit; only in a column of numbers is `nan` a NaN."""
    try:
        return pd.read_csv(
            path / INDEX,
            dtype=dict.fromkeys(_NAMES, str),
            converters=dict.fromkeys(_FLOATS, float),  # Exact, as the default of some pandas is not.
            keep_default_na=False,
        )
    except (OSError, ValueError) as error:
        raise InputError(f"{path / INDEX} cannot be read ({error}); prepare the data again.") from error


def write_index(path: Path, index: pd.DataFrame) -> None:
    """Writes `index.csv` so that `read_index` gives the same table back."""
    index.to_csv(path / INDEX, index=False, na_rep="nan", lineterminator="\n")


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _file(path: Path, name: str, records: int) -> dict[str, Any]:
    return {"sha256": sha256(path / name), "bytes": (path / name).stat().st_size, "records": records}
