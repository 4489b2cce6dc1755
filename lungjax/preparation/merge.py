"""Merges parts into shards once all scans have been read, writes index and manifest, and renames the data set."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lungjax.ct.source import Entry, Quarantined
from lungjax.data import index_columns, manifest, shards, splits
from lungjax.errors import InputError
from lungjax.preparation import parts

SHARD_BYTES = 16 * 2**20
"""Smaller scans share a shard of up to this size; a larger scan is a shard of its own, so its part is not copied."""


@dataclasses.dataclass(frozen=True)
class Shard:
    """A shard to write to `path`, from `parts` in this order."""

    path: Path
    parts: tuple[Path, ...]


def plan_merge(folder: Path, entries: Sequence[Entry], quarantined: Sequence[Quarantined]) -> None:
    """Records which parts make up which shard, and what is quarantined, once all scans have been read."""
    scans = [{"name": parts.name_of(entry), **parts.read(folder, parts.name_of(entry))} for entry in entries]
    scans.sort(key=lambda part: (part["patient_id"], part["series_uid"]))
    groups: list[list[str]] = []
    room = 0
    for part in scans:
        if room <= 0 or part["bytes"] >= SHARD_BYTES:
            groups.append([])
            room = SHARD_BYTES
        groups[-1].append(part["name"])
        room -= part["bytes"]
    lines = [dataclasses.asdict(line) for line in sorted(quarantined, key=lambda line: (line.key, line.where))]
    parts.write_json(folder / parts.MERGE, {"groups": groups, "quarantined": lines})


def shards_to_write(folder: Path) -> list[Shard]:
    """The planned shards that do not exist yet."""
    groups = json.loads((folder / parts.MERGE).read_text())["groups"]
    planned = [
        Shard(
            folder / _shard_name(number),
            tuple(folder / parts.PARTS / (name + shards.SUFFIX) for name in group),
        )
        for number, group in enumerate(groups)
    ]
    return [shard for shard in planned if not shard.path.exists()]


def merge(shard: Shard) -> None:
    """Moves the records of the parts into one shard; the parts are deleted."""
    if len(shard.parts) == 1:
        shard.parts[0].replace(shard.path)
        return
    shards.write_shard(shard.path, (record for part in shard.parts for record in shards.read_shard(part)))
    for part in shard.parts:
        part.unlink()


def finish(folder: Path, out: Path, source: dict[str, str], *, readers: int) -> None:
    """Writes index, quarantine and manifest, deletes everything else, and renames the folder to `out`.

    An older data set of that name is replaced.
    """
    if not parts.is_described(folder):
        _describe(folder, source, readers)
    shutil.rmtree(folder / parts.PARTS)
    for name in (parts.PLAN, parts.MERGE):
        (folder / name).unlink(missing_ok=True)
    for leftover in folder.glob("*.tmp"):
        leftover.unlink()
    if out.exists():
        old = out.with_name(out.name + ".old")
        if old.exists():  # Left by a run that was killed at this point.
            if manifest.foreign_files(old):
                raise InputError(f"{old} is in the way: {out} is moved there while it is replaced; remove it.")
            shutil.rmtree(old)
        out.replace(old)
        folder.replace(out)
        shutil.rmtree(old)
    else:
        folder.replace(out)


def write_quarantine(folder: Path, lines: Sequence[dict[str, str]]) -> None:
    """Writes `quarantine.jsonl`: one line per series, or per file that belongs to none."""
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (folder / manifest.QUARANTINE).write_bytes(text.encode(errors="backslashreplace"))


def _describe(folder: Path, source: dict[str, str], readers: int) -> None:
    merged = json.loads((folder / parts.MERGE).read_text())
    tables: list[pd.DataFrame] = []
    totals = {"nodules": 0, "annotations": 0}
    ambiguous: list[dict[str, Any]] = []
    intensity = ""
    for number, group in enumerate(merged["groups"]):
        rows: list[list[Any]] = []
        for name in group:
            part = parts.read(folder, name)
            rows.extend(part["rows"])
            totals = {key: count + part[key] for key, count in totals.items()}
            ambiguous += part["ambiguous"]
            intensity = part["intensity"]
        table = pd.DataFrame(rows, columns=list(index_columns.ROW_COLUMNS))
        table.insert(0, "shard", _shard_name(number))
        table.insert(1, "position", table.index)
        tables.append(table)
    index = pd.concat(tables, ignore_index=True)
    index.insert(0, "row", index.index)
    split = splits.assign(index["patient_id"])
    index["split"] = [split[patient_id] for patient_id in index["patient_id"]]
    manifest.write_index(folder, index)
    write_quarantine(folder, merged["quarantined"])
    manifest.write_manifest(
        folder, index, source=source, intensity=intensity, readers=readers, ambiguous_nodules=ambiguous, **totals
    )


def _shard_name(number: int) -> str:
    return f"{shards.SHARDS}/{number:05d}{shards.SUFFIX}"
