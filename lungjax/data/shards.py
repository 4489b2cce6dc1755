"""The data set folder: ArrayRecord shards, an index table, a manifest. The only file that knows ArrayRecord."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from array_record.python import array_record_module as array_record

from lungjax.data import records, splits
from lungjax.lidc.scan import RATING_NAMES, InputError

MANIFEST = "manifest.json"
INDEX = "index.csv"
SHARDS = "shards"
_WRITE_OPTIONS = "group_size:1,zstd:1"  # A group a record: random access decompresses no neighbours.
_READ_OPTIONS = "readahead_buffer_size:0"
_TEXT = ("shard", "patient_id", "study_uid", "series_uid", "sop_uid", "split")


def write_shard(path: Path, slices: Iterable[records.SliceRecord]) -> None:
    """Writes one shard under a temporary name and renames it."""
    temporary = path.with_name(path.name + ".tmp")
    writer = array_record.ArrayRecordWriter(str(temporary), _WRITE_OPTIONS)
    try:
        for record in slices:
            writer.write(records.encode(record))
    finally:
        writer.close()
    temporary.replace(path)


def index_row(record: records.SliceRecord, shard: str, position: int) -> dict[str, Any]:
    """What the index table says of a slice."""
    marked = np.bitwise_count(record.readers)
    slots = [slot for slot in range(8) if (record.readers >> slot & 1).any()] if marked.any() else []
    rows, columns = np.nonzero(marked)
    malignancy = RATING_NAMES.index("malignancy")
    ratings = [r["ratings"][malignancy] for n in record.nodules for r in n["readings"] if r["ratings"][malignancy]]
    box = (rows.min(), rows.max(), columns.min(), columns.max()) if rows.size else (-1, -1, -1, -1)
    return {
        "shard": shard,
        "position": position,
        "patient_id": record.patient_id,
        "study_uid": record.study_uid,
        "series_uid": record.series_uid,
        "sop_uid": record.sop_uid,
        "slice_index": record.slice_index,
        "z_mm": record.z_mm,
        "rows": record.image.shape[0],
        "columns": record.image.shape[1],
        "slice_spacing_mm": record.spacing_mm[0],
        "row_spacing_mm": record.spacing_mm[1],
        "column_spacing_mm": record.spacing_mm[2],
        "nodules": len(record.nodules),
        "readers_marked": len(slots),
        "majority_px": int((marked >= 2).sum()),
        "malignancy_median": float(np.median(ratings)) if ratings else float("nan"),
        **dict(zip(("row_min", "row_max", "column_min", "column_max"), map(int, box), strict=True)),
        "split": splits.split_of(record.patient_id),
    }


def write_tables(folder: Path, rows: list[dict[str, Any]], *, source: str, intensity: str, counts: dict) -> None:
    """Writes the index and, last, the manifest of a folder whose shards are complete."""
    table = pd.DataFrame(rows)
    table.insert(0, "row", np.arange(len(table)))
    table.to_csv(folder / INDEX, index=False)
    assignment = splits.assign(table["patient_id"])
    held = table.groupby("shard").size()
    manifest = {
        "schema_version": records.SCHEMA_VERSION,
        "source": source,
        "intensity": intensity,
        "counts": counts,
        "files": {
            name: {"sha256": sha256(folder / name), "bytes": (folder / name).stat().st_size}
            | ({} if name == INDEX else {"records": int(held[name])})
            for name in [INDEX, *sorted(held.index)]
        },
        "split": {
            "salt": splits.SALT,
            "train_share": splits.TRAIN_SHARE,
            "val_share": splits.VAL_SHARE,
            "always_test": list(splits.ALWAYS_TEST),
            "digest": splits.digest(assignment),
            "patients": assignment,
        },
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Dataset:
    """A prepared folder. Picklable; opens a shard when it is first read from, once in each process.

    Attributes:
      path: the folder.
      manifest: as written by `prepare`.
      index: one row a slice, in the order of the rows.
      intensity: `hu` (int16) or `unit` (uint8).
    """

    def __init__(self, path: Path, manifest: dict[str, Any], index: pd.DataFrame):
        self.path = path
        self.manifest = manifest
        self.index = index
        self.intensity: str = manifest["intensity"]
        self._shards = index["shard"].to_numpy()
        self._positions = index["position"].to_numpy()
        self._readers: dict[str, Any] = {}

    def __len__(self) -> int:
        return len(self.index)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_readers": {}}

    def read(self, rows: Sequence[int] | np.ndarray) -> list[records.SliceRecord]:
        """The slices of index rows, whole."""
        return [records.decode(data) for data in self._bytes(rows)]

    def pixels(self, rows: Sequence[int] | np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Images (rows, columns) and readers' bits (rows, columns) uint8 of index rows."""
        pairs = [records.decode_pixels(data) for data in self._bytes(rows)]
        return [image for image, _ in pairs], [readers for _, readers in pairs]

    def _bytes(self, rows: Sequence[int] | np.ndarray) -> list[bytes]:
        out = []
        for row in rows:
            shard, position = self._shards[row], int(self._positions[row])
            try:
                if shard not in self._readers:
                    self._readers[shard] = array_record.ArrayRecordReader(str(self.path / shard), _READ_OPTIONS)
                out.append(self._readers[shard].read([position])[0])
            except (RuntimeError, ValueError, IndexError, OSError) as error:
                raise InputError(
                    f"{self.path / shard}: record {position} cannot be read ({_first_line(error)}); "
                    "the shard is damaged, prepare the data again."
                ) from error
        return out


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]


def open_dataset(path: Path | str, *, verify: bool = False) -> Dataset:
    """Opens a prepared folder, after a look at every file's presence and size.

    Args:
      path: the folder that `lungjax prepare` wrote.
      verify: compare every file's SHA-256 too.

    Raises:
      InputError: the folder is missing, unfinished, empty, damaged, or of another schema version.
    """
    path = Path(path)
    if not path.is_dir():
        raise InputError(f"{path}: no such folder; give the --out of `lungjax prepare`.")
    if not (path / MANIFEST).is_file():
        raise InputError(f"{path}: no {MANIFEST} in it, so it is no finished data set; run `lungjax prepare` (again).")
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        version, files = manifest["schema_version"], manifest["files"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path / MANIFEST}: is damaged ({error}); prepare the data again.") from error
    if version != records.SCHEMA_VERSION:
        raise InputError(
            f"{path}: has schema version {version}, this lungjax reads {records.SCHEMA_VERSION}; prepare it again."
        )
    for name, known in files.items():
        _check_file(path / name, known, verify=verify)
    index = pd.read_csv(path / INDEX, dtype=dict.fromkeys(_TEXT, str), keep_default_na=False, na_values={"z_mm": [""]} | {
        name: [""] for name in ("slice_spacing_mm", "row_spacing_mm", "column_spacing_mm", "malignancy_median")
    })
    if index.empty:
        raise InputError(f"{path}: holds no slice; see its quarantine.jsonl for the reasons.")
    return Dataset(path, manifest, index)


def _check_file(path: Path, known: dict[str, Any], *, verify: bool) -> None:
    if not path.is_file():
        raise InputError(f"{path}: is missing; prepare the data again.")
    size = path.stat().st_size
    if size != known["bytes"]:
        raise InputError(f"{path}: has {size} bytes instead of {known['bytes']}; it is damaged, prepare the data again.")
    if verify and sha256(path) != known["sha256"]:
        raise InputError(f"{path}: its SHA-256 is not the manifest's; it is damaged, prepare the data again.")
