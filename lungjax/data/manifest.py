"""The files that describe a data set folder: `manifest.json` and `index.csv`."""

from __future__ import annotations

import collections
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd

from lungjax import json_files
from lungjax.ct.scan import READERS, Intensity
from lungjax.data import splits
from lungjax.data.records import SCHEMA_VERSION
from lungjax.errors import InputError
from lungjax.version import VERSION

MANIFEST = "manifest.json"
INDEX = "index.csv"
QUARANTINE = "quarantine.jsonl"

_MOST_PLANES = 64
_NAMES = ("shard", "patient_id", "study_uid", "series_uid", "sop_uid", "split")
FLOATS = {"z_mm", "slice_spacing_mm", "row_spacing_mm", "column_spacing_mm", "malignancy_median", "lung_area_mm2"}
"""The columns of the index that need not be whole numbers."""


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
    """Writes `manifest.json` of a folder whose other files are complete; the same folder gives the same bytes.

    Args:
      path: the folder.
      index: its index.
      source: `format` and `name` of the source.
      intensity: see `lungjax.ct.scan.Intensity`.
      readers: number of readers who looked at each scan; a single reader is the majority.
      nodules, annotations: number of nodules, and of the readers' annotations of them, in all scans.
      ambiguous_nodules: `series_uid`, `nodule` and number of `readings` of each nodule with more than four readings:
        several nodules that touch, or one that a reader drew twice.
    """
    records = collections.Counter(index["shard"].tolist())
    files = {name: _file(path, name, count) for name, count in records.items()}
    files[INDEX] = _file(path, INDEX, len(index))
    files[QUARANTINE] = _file(path, QUARANTINE, len((path / QUARANTINE).read_text().splitlines()))
    patients = splits.assign(index["patient_id"])
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "lungjax": VERSION,
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
    save_manifest(path, manifest)


def save_manifest(path: Path, manifest: Mapping[str, Any]) -> None:
    """Writes `manifest.json` into a folder, sealed."""
    temporary = path / (MANIFEST + ".tmp")
    temporary.write_text(json.dumps(json_files.sealed(manifest), indent=1, allow_nan=False) + "\n")
    temporary.replace(path / MANIFEST)  # Complete or not at all: the manifest makes the folder a data set.


def read_manifest(path: Path) -> dict[str, Any]:
    """The parsed `manifest.json` of a folder.

    Raises:
      InputError: there is none, or it is damaged or has another schema version.
    """
    try:
        manifest = json_files.read(path / MANIFEST)
        version = manifest["schema_version"]
    except FileNotFoundError:
        raise InputError(
            f"{path} has no {MANIFEST}, so it is not a finished data set; make one with `lungjax prepare`."
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path / MANIFEST} is damaged ({error!r}); prepare the data again.") from error
    if version != SCHEMA_VERSION:
        raise InputError(
            f"{path} has schema version {version}, but this lungjax reads {SCHEMA_VERSION}; prepare it again."
        )
    if missing := sorted({"source", "intensity", "counts", "files", "split"} - manifest.keys()):
        raise InputError(f"{path / MANIFEST} is damaged (it has no {missing[0]!r}); prepare the data again.")
    try:
        _check(manifest := json_files.unsealed(manifest))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path / MANIFEST} is damaged ({error}); prepare or copy the data again.") from error
    return manifest


def _check(manifest: Mapping[str, Any]) -> None:
    """Raises an error of any kind where a value is not of the kind that `write_manifest` writes."""
    source, files = manifest["source"], manifest["files"]
    planes, readers = source.get("planes", 1), manifest.get("readers", READERS)
    known = [
        all(isinstance(source[name], str) for name in ("format", "name")),
        isinstance(planes, int) and 1 <= planes <= _MOST_PLANES,
        isinstance(readers, int) and 1 <= readers <= READERS,
        manifest["intensity"] in get_args(Intensity),
        all(isinstance(count, int) for count in manifest["counts"].values()),
        all(split in get_args(splits.Split) for split in manifest["split"]["patients"].values()),
        isinstance(manifest["split"]["digest"], str),
        {INDEX, QUARANTINE} <= files.keys(),
        all(isinstance(file["bytes"], int) and isinstance(file["sha256"], str) for file in files.values()),
        not any(Path(name).is_absolute() or ".." in Path(name).parts for name in files),
    ]
    if not all(known):
        raise ValueError("a value in it is of another kind than lungjax writes")


def identity(manifest: Mapping[str, Any]) -> str:
    """Sixteen hex digits of the content of a data set, wherever it lies."""
    files = {name: file["sha256"] for name, file in manifest["files"].items()}
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:16]


def foreign_files(path: Path) -> list[str]:
    """Names in a folder that do not belong to a data set, sorted; everything, if there is no manifest of lungjax."""
    names = {entry.name for entry in path.iterdir()}
    try:
        manifest = json_files.read(path / MANIFEST)
        ours = {MANIFEST, *(name.split("/")[0] for name in manifest["files"])} if "lungjax" in manifest else set()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        ours = set()
    return sorted(names - ours)


def read_index(path: Path) -> pd.DataFrame:
    """The `index.csv` of a folder, with exact numbers; `nan` means NaN only in columns of numbers.

    Raises:
      InputError: it cannot be read.
    """
    try:
        return pd.read_csv(
            path / INDEX,
            dtype=dict.fromkeys(_NAMES, str),
            converters=dict.fromkeys(FLOATS, float),  # Exact, unlike the default of some versions of pandas.
            keep_default_na=False,
        )
    except (OSError, ValueError, OverflowError) as error:
        raise InputError(f"{path / INDEX} cannot be read ({error}); prepare the data again.") from error


def write_index(path: Path, index: pd.DataFrame) -> None:
    """Writes `index.csv` so that `read_index` returns the same table."""
    index.to_csv(path / INDEX, index=False, na_rep="nan", lineterminator="\n")


def replace_index(path: Path, manifest: dict[str, Any], index: pd.DataFrame) -> None:
    """Writes another index into a folder, and its size and digest into the manifest, which is not written yet."""
    write_index(path, index)
    manifest["files"][INDEX] |= {"bytes": (path / INDEX).stat().st_size, "sha256": sha256(path / INDEX)}


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _file(path: Path, name: str, records: int) -> dict[str, Any]:
    return {"sha256": sha256(path / name), "bytes": (path / name).stat().st_size, "records": records}
