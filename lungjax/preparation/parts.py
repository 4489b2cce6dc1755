"""The unfinished data set `OUT.partial`: a part for each scan that is done, so that a second run resumes.

plan.json               what is being prepared; a run with another source or format is refused
parts/<hash>.json       index rows of a finished scan; written last, it says the scan is done
parts/<hash>.array_record
merge.json              once all scans are read: which parts make which shard
shards/, index.csv, quarantine.jsonl, manifest.json    the data set itself, as it will be
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lungjax import platforms
from lungjax.ct import lungs
from lungjax.ct.scan import READERS, Scan
from lungjax.ct.source import Entry
from lungjax.data import manifest, records, shards
from lungjax.errors import InputError
from lungjax.preparation import slice_records

PLAN, MERGE, PARTS, LOCK = "plan.json", "merge.json", "parts", "lock"
_VERSION = "lungjax version"
"""A key of every plan."""


def name_of(entry: Entry) -> str:
    """The part's file name, without suffix: another one as soon as anything about the entry changes."""
    return hashlib.sha256(repr(entry).encode()).hexdigest()[:32]


def write(folder: Path, entry: Entry, scan: Scan, *, readers: int) -> None:
    """Writes the part of one scan, at which so many readers looked; until its last file is there it is not done."""
    rows: list[tuple[Any, ...]] = []
    lung = lungs.index_columns(scan)

    def encoded() -> Iterator[bytes]:
        for record in slice_records.slice_records(scan):
            rows.append(slice_records.index_row(record, scan, lung[record.slice_index], readers=readers))
            yield records.encode(record)

    data = folder / PARTS / (name_of(entry) + shards.SUFFIX)
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
    write_json(data.with_suffix(".json"), part)


def is_done(folder: Path, entry: Entry) -> bool:
    """Whether the part of this scan is complete."""
    return (folder / PARTS / f"{name_of(entry)}.json").exists()


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
    with (folder / LOCK).open("w") as lock:
        if not platforms.try_lock(lock):
            raise InputError(f"{folder} is in use by another `lungjax prepare`; wait for it to finish.")
        if not os.fstat(lock.fileno()).st_nlink:  # Its run finished between our opening it and locking it.
            raise InputError(f"{folder} was finished by another `lungjax prepare` just now; run the command again.")
        if overwrite:
            for path in sorted(folder.iterdir(), key=lambda path: path.name == PLAN):  # Last what makes it ours.
                if path.name != LOCK:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        _check_plan(folder, plan)
        (folder / PARTS).mkdir(exist_ok=True)
        (folder / shards.SHARDS).mkdir(exist_ok=True)
        yield folder


def _is_ours(folder: Path) -> bool:
    """Whether it has our plan or our manifest, or no more than a run leaves that is killed before its plan is whole."""
    if (folder / PLAN).exists():
        return _is_plan(folder / PLAN)
    others = {*manifest.foreign_files(folder)}
    if is_described(folder):  # What a run takes away last; without a manifest it is none of ours.
        others.discard(MERGE)
    if not others <= {LOCK, f"{PLAN}.tmp"}:
        return False
    return all(path.stat().st_size == 0 or _is_plan(path) for path in (folder / name for name in others))


def _is_plan(file: Path) -> bool:
    try:
        return _VERSION in json.loads(file.read_text())
    except (OSError, ValueError, TypeError):
        return False


def _check_plan(folder: Path, plan: dict[str, Any]) -> None:
    file = folder / PLAN
    if file.exists():
        begun = json.loads(file.read_text())
    elif is_described(folder):  # Killed after the plan was taken away.
        source = manifest.read_manifest(folder)["source"]
        begun = {**plan, "format": source["format"], "source": str(Path(plan["source"]).parent / source["name"])}
    else:
        begun = plan
    changed = [name for name in plan if begun.get(name) != plan[name]]
    if changed and (any((folder / PARTS).glob("*.json")) or is_planned(folder) or is_described(folder)):
        name = changed[0]
        raise InputError(
            f"{folder} was begun with {name} {begun.get(name)!r}, not {plan[name]!r}; name another --out, or "
            "start afresh with --overwrite."
        )
    write_json(file, plan)  # Another one only where nothing was prepared yet: that is in nobody's way.


def is_planned(folder: Path) -> bool:
    """Whether all scans have been read and only merging is left."""
    return (folder / MERGE).exists()


def is_described(folder: Path) -> bool:
    """Whether the data set is whole and only its name is left to give."""
    return (folder / manifest.MANIFEST).exists()


def read(folder: Path, name: str) -> dict[str, Any]:
    """What `write` stored of the scan with this `name_of`, apart from its records."""
    return json.loads((folder / PARTS / f"{name}.json").read_text())


def write_json(path: Path, value: Any) -> None:
    """Whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(value))
    temporary.replace(path)
