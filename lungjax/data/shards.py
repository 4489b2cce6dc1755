"""The data set folder: ArrayRecord files of slices, an index that pandas reads, and a manifest.

DIR/manifest.json       schema version, source, intensity, readers, counts, every file's SHA-256, the split
DIR/index.csv           one line per slice, sorted by patient, series and slice
DIR/quarantine.jsonl    one line per series that was not prepared, with the reason
DIR/shards/*.array_record
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from lungjax import paths
from lungjax.ct.scan import READERS, Intensity
from lungjax.data import index_columns, records
from lungjax.data.manifest import FLOATS, INDEX, QUARANTINE, read_index, read_manifest, sha256
from lungjax.data.records import SliceRecord
from lungjax.errors import InputError

SHARDS = "shards"
SUFFIX = ".array_record"

# One record per chunk, because reads are random. Measured on LIDC-IDRI-0003: Snappy reduces the filtered pixels to 45 %
# of raw int16. zstd reduces them to 35 % at level 1, and no further at higher levels, but takes 2.5 times as long to
# compress and 1.7 times as long to decompress: with zstd `prepare` ran at 58 % of the rate of reading the DICOM files
# alone, with Snappy at 83 %.
_WRITER_OPTIONS = "group_size:1,snappy"
_OPEN_FILES = 256
"""Number of shards that one process keeps open; opening one again takes a tenth of the time of reading a slice."""

Decoded = TypeVar("Decoded")


class Dataset:
    """An opened data set. Picklable; a copy in another process opens its files again.

    Attributes:
      path: the folder.
      manifest: the parsed `manifest.json`.
    """

    def __init__(self, path: Path, manifest: dict[str, Any], index: pd.DataFrame):
        self.path = path
        self.manifest = manifest
        self._index: pd.DataFrame | None = index
        codes, names = pd.factorize(index["shard"])
        self._shard_names = list(names)
        self._shard_of_row = codes.astype(np.int32)
        self._position_of_row = index["position"].to_numpy(np.int32)
        self._open_shards()

    def _open_shards(self) -> None:
        self._readers: dict[int, ArrayRecordReader] = {}
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        # The index is large, and a worker that only reads pixels does not need it.
        return {**self.__dict__, "_index": None, "_readers": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open_shards()

    def __len__(self) -> int:
        return len(self._position_of_row)

    @property
    def index(self) -> pd.DataFrame:
        """`index.csv`: one line per slice; see `index_columns.ROW_COLUMNS`."""
        if self._index is None:
            self._index = read_index(self.path)
        return self._index

    @property
    def intensity(self) -> Intensity:
        """The meaning of a pixel's value, see `lungjax.ct.scan.Intensity`."""
        return self.manifest["intensity"]

    @property
    def readers(self) -> int:
        """Number of readers who looked at each scan; older versions did not record it and assumed LIDC's four."""
        return self.manifest.get("readers", READERS)

    @property
    def planes(self) -> int:
        """Of how many planes, one below the other, each image consists: 1, but for candidates."""
        return int(self.manifest["source"].get("planes", 1))

    def read(self, rows: Sequence[int] | np.ndarray) -> list[SliceRecord]:
        """The records of these rows of the index, in the same order.

        Raises:
          InputError: a shard is damaged; the message names it.
        """
        return self._decode_rows(rows, records.decode)

    def pixels(self, rows: Sequence[int] | np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Images (rows, columns) and readers' bits, uint8 (rows, columns), of these rows; faster than `read`.

        Raises:
          InputError: a shard is damaged; the message names it.
        """
        pairs = self._decode_rows(rows, records.decode_pixels)
        return [image for image, _ in pairs], [readers for _, readers in pairs]

    def nodules(self, rows: Sequence[int] | np.ndarray) -> list[tuple[dict[str, Any], ...]]:
        """The nodules of these rows, as `SliceRecord.nodules`.

        Raises:
          InputError: a shard is damaged; the message names it.
        """
        return self._decode_rows(rows, records.decode_nodules)

    def _decode_rows(self, rows: Sequence[int] | np.ndarray, decode: Callable[[bytes], Decoded]) -> list[Decoded]:
        rows = np.asarray(rows, np.int64)
        decoded = []
        for shard, position in zip(
            self._shard_of_row[rows].tolist(), self._position_of_row[rows].tolist(), strict=True
        ):
            try:
                # One at a time: its bytes are then still in the processor's cache, and their memory is used again.
                (data,) = self._reader(shard).read([position])
                decoded.append(decode(data))
            except (RuntimeError, IndexError, InputError) as error:
                name = self._shard_names[shard]
                raise InputError(f"{self.path / name} is damaged ({error}); prepare the data again.") from error
        return decoded

    def _reader(self, shard: int) -> ArrayRecordReader:
        with self._lock:
            if shard not in self._readers:
                self._readers[shard] = _open(self.path / self._shard_names[shard])
            reader = self._readers[shard] = self._readers.pop(shard)  # Moved to the end: closed last.
            if len(self._readers) > _OPEN_FILES:
                del self._readers[next(iter(self._readers))]  # Closed once no thread reads from it.
            return reader


def open_dataset(path: Path | str, *, verify: bool = False) -> Dataset:
    """Opens a prepared folder and checks that it is complete.

    Args:
      path: the folder that `lungjax prepare --out` made.
      verify: also compare the SHA-256 of every file, not of the index alone, which reads all of them.

    Raises:
      InputError: there is no such folder, it is not a finished data set or has another schema version, a file is
        missing or differs in size or in content (the shards' with `verify`), or there are no slices.
    """
    path = paths.local(path)
    if not path.is_dir():
        raise InputError(f"{path}: no such folder; make it with `lungjax prepare --source SCANS --out {path}`.")
    manifest = read_manifest(path)
    for name, expected in manifest["files"].items():
        file = path / name
        size = file.stat().st_size if file.is_file() else None
        if size != expected["bytes"]:
            problem = "is missing" if size is None else f"has {size} bytes instead of {expected['bytes']}"
            raise InputError(f"{file} {problem}; prepare or copy the data again.")
        # Records hold checksums of their own; the index, whose every digit may be a label, does not.
        if (verify or name == INDEX) and sha256(file) != expected["sha256"]:
            raise InputError(f"{file} is damaged (its SHA-256 is not the manifest's); prepare or copy the data again.")
    index = read_index(path)
    required = {"row", "shard", "position", "split"} | {
        name for name in index_columns.ROW_COLUMNS if "lung" not in name
    }
    if missing := sorted(required - set(index.columns)):  # Older versions have no columns of lungs.
        raise InputError(f"{path / INDEX} is damaged (it has no column {missing[0]!r}); prepare the data again.")
    if not index["split"].equals(index["patient_id"].map(manifest["split"]["patients"])):
        raise InputError(f"{path}: index and manifest disagree on the split of the patients; prepare the data again.")
    if index.empty:
        raise InputError(f"{path}: the data set holds no slices; see {path / QUARANTINE} for the reasons.")
    whole = [name for name in index.columns if name in ("position", *index_columns.NUMBERS) and name not in FLOATS]
    if (
        any(index[name].dtype.kind != "i" for name in whole)
        or np.isinf(index[[*FLOATS & {*index.columns}]].to_numpy(float)).any()
        or (index["position"].to_numpy() < 0).any()
        or not {*index["shard"]} <= manifest["files"].keys()
    ):
        raise InputError(f"{path / INDEX} is damaged (a value is of another kind); prepare the data again.")
    return Dataset(path, manifest, index)


def write_shard(path: Path, data: Iterable[bytes]) -> int:
    """Writes records to an ArrayRecord file, completely or not at all; returns their number.

    Raises:
      InputError: the file cannot be written, for instance because the disk is full.
    """
    temporary = path.with_name(path.name + ".tmp")
    count = 0
    try:
        writer = ArrayRecordWriter(str(temporary), _WRITER_OPTIONS)
        for record in data:
            writer.write(record)
            count += 1
        writer.close()
    except RuntimeError as error:  # ArrayRecord raises nothing else.
        temporary.unlink(missing_ok=True)
        raise InputError(f"{path} cannot be written: {error}") from error
    temporary.replace(path)
    return count


def read_shard(path: Path) -> Iterator[bytes]:
    """Yields all records of an ArrayRecord file, in order, one at a time."""
    reader = _open(path)
    for position in range(reader.num_records()):
        yield reader.read([position])[0]
    reader.close()


def _open(path: Path) -> ArrayRecordReader:
    # The options that Grain uses: with random reads, read-ahead only costs time.
    return ArrayRecordReader(str(path), "readahead_buffer_size:0", file_reader_buffer_size=32768)
