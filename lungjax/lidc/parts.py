"""The unfinished data set `OUT.partial`: a part for each scan that is done, so that a second run resumes.

plan.json               what is being prepared; a run with another source or format is refused
parts/<hash>.json       index rows of a finished scan; written last, it says the scan is done
parts/<hash>.array_record
merge.json              once all scans are read: which parts make which shard
shards/, index.csv, quarantine.jsonl, manifest.json    the data set itself, as it will be
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lungjax.data import manifest, records, shards, slicing, splits
from lungjax.lidc import lungs
from lungjax.lidc.formats.entry import Entry, Quarantined
from lungjax.lidc.scan import READERS, InputError, Scan

SHARD_BYTES = 16 * 2**20
"""Smaller scans share a shard until it holds this much; a larger one is its own, and its part need not be copied."""

_PLAN, _MERGE, _PARTS, _LOCK = "plan.json", "merge.json", "parts", "lock"
_VERSION = "lungjax version"
"""A key of every plan."""


def name_of(entry: Entry) -> str:
    """The part's file name, without suffix: another one as soon as anything about the entry changes."""
    return hashlib.sha256(repr(entry).encode()).hexdigest()[:32]


def write(folder: Path, entry: Entry, scan: Scan) -> None:
    """Writes the part of one scan; until its last file is in place the scan counts as not done."""
    rows: list[tuple[Any, ...]] = []
    lung = lungs.index_columns(scan)

    def encoded() -> Iterator[bytes]:
        for record in slicing.slice_records(scan):
            rows.append(slicing.index_row(record, scan, lung[record.slice_index]))
            yield records.encode(record)

    data = folder / _PARTS / (name_of(entry) + shards.SUFFIX)
    shards.write_shard(data, encoded())
    part = {
        "patient_id": scan.patient_id,
        "series_uid": scan.series_uid,
        "intensity": scan.intensity,
        "nodules": len(scan.nodules),
        "annotations": sum(len(nodule.readings) for nodule in scan.nodules),
        "ambiguous": [
            {"series_uid": scan.series_uid, "nodule": nodule.index, "readings": len(nodule.readings)}
            for nodule in scan.nodules
            if len(nodule.readings) > READERS
        ],
        "bytes": data.stat().st_size,
        "rows": rows,
    }
    _write_json(data.with_suffix(".json"), part)


def is_done(folder: Path, entry: Entry) -> bool:
    """Whether the part of this scan is complete."""
    return (folder / _PARTS / f"{name_of(entry)}.json").exists()


@contextlib.contextmanager
def opened(out: Path, plan: dict[str, Any], *, overwrite: bool) -> Iterator[Path]:
    """`OUT.partial`, made or taken up again, and locked against a second run.

    Raises:
      InputError: it cannot be made, belongs to another plan, or another run is at work in it.
    """
    folder = out.with_name(out.name + ".partial")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be made ({error.strerror}); name an --out that can be written.") from error
    if not _is_ours(folder):
        raise InputError(f"{folder} exists and was not made by `lungjax prepare`; name another --out, or remove it.")
    with (folder / _LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{folder} is in use by another `lungjax prepare`; wait for it to finish.") from None
        if overwrite:
            for path in sorted(folder.iterdir(), key=lambda path: path.name == _PLAN):  # Last what makes it ours.
                if path.name != _LOCK:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        _check_plan(folder, plan)
        (folder / _PARTS).mkdir(exist_ok=True)
        (folder / shards.SHARDS).mkdir(exist_ok=True)
        yield folder


def _is_ours(folder: Path) -> bool:
    """Whether it has our plan or our manifest, or no more than a run leaves that is killed before its plan is whole."""
    if (folder / _PLAN).exists():
        return _is_plan(folder / _PLAN)
    others = {*manifest.foreign_files(folder)}
    if is_described(folder):  # What a run takes away last; without a manifest it is none of ours.
        others.discard(_MERGE)
    if not others <= {_LOCK, f"{_PLAN}.tmp"}:
        return False
    return all(path.stat().st_size == 0 or _is_plan(path) for path in (folder / name for name in others))


def _is_plan(file: Path) -> bool:
    try:
        return _VERSION in json.loads(file.read_text())
    except (OSError, ValueError, TypeError):
        return False


def _check_plan(folder: Path, plan: dict[str, Any]) -> None:
    file = folder / _PLAN
    begun_with = any((folder / _PARTS).glob("*.json")) or is_planned(folder) or is_described(folder)
    if not file.exists() or not begun_with:  # A run that prepared nothing is in nobody's way.
        _write_json(file, plan)
        return
    begun = json.loads(file.read_text())
    changed = [name for name in plan if begun.get(name) != plan[name]]
    if changed:
        name = changed[0]
        raise InputError(
            f"{folder} was begun with {name} {begun.get(name)!r}, not {plan[name]!r}; name another --out, or "
            "start afresh with --overwrite."
        )


@dataclasses.dataclass(frozen=True)
class Shard:
    """A shard to write: `path`, from `parts` in this order."""

    path: Path
    parts: tuple[Path, ...]


def plan_merge(folder: Path, entries: Sequence[Entry], quarantined: Sequence[Quarantined]) -> None:
    """Fixes which part goes into which shard, and what is quarantined, now that all scans have been read."""
    parts = [{"name": name_of(entry), **_read_part(folder, name_of(entry))} for entry in entries]
    parts.sort(key=lambda part: (part["patient_id"], part["series_uid"]))
    groups: list[list[str]] = []
    room = 0
    for part in parts:
        if room <= 0 or part["bytes"] >= SHARD_BYTES:
            groups.append([])
            room = SHARD_BYTES
        groups[-1].append(part["name"])
        room -= part["bytes"]
    lines = [dataclasses.asdict(one) for one in sorted(quarantined, key=lambda one: (one.key, one.where))]
    _write_json(folder / _MERGE, {"groups": groups, "quarantined": lines})


def is_planned(folder: Path) -> bool:
    """Whether all scans have been read and only merging is left."""
    return (folder / _MERGE).exists()


def is_described(folder: Path) -> bool:
    """Whether the data set is whole and only its name is left to give."""
    return (folder / manifest.MANIFEST).exists()


def shards_to_write(folder: Path) -> list[Shard]:
    """Those that are not there yet."""
    groups = json.loads((folder / _MERGE).read_text())["groups"]
    planned = [
        Shard(
            folder / _shard_name(number),
            tuple(folder / _PARTS / (name + shards.SUFFIX) for name in group),
        )
        for number, group in enumerate(groups)
    ]
    return [shard for shard in planned if not shard.path.exists()]


def merge(shard: Shard) -> None:
    """The records of the parts, in one shard; the parts are gone afterwards."""
    if len(shard.parts) == 1:
        shard.parts[0].replace(shard.path)
        return
    shards.write_shard(shard.path, (record for part in shard.parts for record in shards.read_shard(part)))
    for part in shard.parts:
        part.unlink()


def finish(folder: Path, out: Path, source: dict[str, str]) -> None:
    """Index, quarantine and manifest; then nothing but the data set is left, and it takes its name.

    An older data set of that name is replaced.
    """
    if not is_described(folder):
        _describe(folder, source)
    shutil.rmtree(folder / _PARTS)
    for name in (_PLAN, _MERGE, _LOCK):
        (folder / name).unlink(missing_ok=True)
    for leftover in folder.glob("*.tmp"):
        leftover.unlink()
    if out.exists():
        old = out.with_name(out.name + ".old")
        if old.exists():  # Of a run that was killed just here.
            if manifest.foreign_files(old):
                raise InputError(f"{old} is in the way of the data set that {out} is replaced by; remove it.")
            shutil.rmtree(old)
        out.replace(old)
        folder.replace(out)
        shutil.rmtree(old)
    else:
        folder.replace(out)


def write_quarantine(folder: Path, lines: Sequence[dict[str, str]]) -> None:
    """`quarantine.jsonl`: one line a series, or file that belongs to none."""
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (folder / manifest.QUARANTINE).write_bytes(text.encode(errors="backslashreplace"))


def _describe(folder: Path, source: dict[str, str]) -> None:
    merged = json.loads((folder / _MERGE).read_text())
    tables: list[pd.DataFrame] = []
    totals = {"nodules": 0, "annotations": 0}
    ambiguous: list[dict[str, Any]] = []
    intensity = ""
    for number, group in enumerate(merged["groups"]):
        rows: list[list[Any]] = []
        for name in group:
            part = _read_part(folder, name)
            rows.extend(part["rows"])
            totals = {key: count + part[key] for key, count in totals.items()}
            ambiguous += part["ambiguous"]
            intensity = part["intensity"]
        table = pd.DataFrame(rows, columns=list(slicing.ROW_COLUMNS))
        table.insert(0, "shard", _shard_name(number))
        table.insert(1, "position", table.index)
        tables.append(table)
    index = pd.concat(tables, ignore_index=True)
    index.insert(0, "row", index.index)
    split = splits.assign(index["patient_id"])
    index["split"] = [split[patient_id] for patient_id in index["patient_id"]]
    manifest.write_index(folder, index)
    write_quarantine(folder, merged["quarantined"])
    manifest.write_manifest(folder, index, source=source, intensity=intensity, ambiguous_nodules=ambiguous, **totals)


def _shard_name(number: int) -> str:
    return f"{shards.SHARDS}/{number:05d}{shards.SUFFIX}"


def _read_part(folder: Path, name: str) -> dict[str, Any]:
    return json.loads((folder / _PARTS / f"{name}.json").read_text())


def _write_json(path: Path, value: Any) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(value))
    temporary.replace(path)
