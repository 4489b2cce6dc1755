"""The unfinished data set `OUT.partial`: a part for each finished scan, so that a second run can resume.

plan.json               what is being prepared; a run with another source or format is refused
parts/<hash>.json       index rows of a finished scan; written last, so it marks the scan as done
parts/<hash>.array_record
merge.json              written once all scans are read: which parts make up which shard
shards/, index.csv, quarantine.jsonl, manifest.json    the final data set

The run that works there has locked `OUT.partial.lock`, an empty file. It lies beside the folder, which is renamed at
the end: Windows renames no folder with an open file in it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lungjax import json_files, locks, unfinished
from lungjax.ct import lungs
from lungjax.ct.scan import READERS, Scan
from lungjax.ct.source import Entry
from lungjax.data import manifest, records, shards
from lungjax.errors import InputError
from lungjax.preparation import slice_records

PLAN, MERGE, PARTS = "plan.json", "merge.json", "parts"
_VERSION = "lungjax version"
"""A key of every plan."""


def name_of(entry: Entry) -> str:
    """The part's file name without suffix; it changes as soon as anything in the entry changes."""
    return hashlib.sha256(repr(entry).encode()).hexdigest()[:32]


def write(folder: Path, entry: Entry, scan: Scan, *, readers: int) -> None:
    """Writes the part of one scan that `readers` readers looked at; it is done once its last file exists."""
    rows: list[tuple[Any, ...]] = []
    lung_columns = lungs.index_columns(scan)

    def encoded() -> Iterator[bytes]:
        for record in slice_records.slice_records(scan):
            rows.append(slice_records.index_row(record, scan, lung_columns[record.slice_index], readers=readers))
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
def open_partial(out: Path, plan: dict[str, Any], *, overwrite: bool) -> Iterator[Path]:
    """Creates `OUT.partial` or resumes it, and locks it against a second run.

    Raises:
      InputError: it cannot be made, belongs to another plan, or another run is using it.
    """
    unfinished.refuse_fixed(out)
    folder = out.with_name(out.name + ".partial")
    with contextlib.ExitStack() as held:
        held.enter_context(locks.hold(folder.with_name(folder.name + ".lock"), of=folder, option="--out"))
        if not overwrite and (out / manifest.MANIFEST).exists():  # It was not yet when this run began.
            raise InputError(f"{out} was finished by another lungjax process just now; run the command again.")
        with _name_another(folder):
            folder.mkdir(exist_ok=True)
        if not _is_partial(folder):
            raise InputError(
                f"{folder} exists and was not made by `lungjax prepare`; name another --out, or remove it."
            )
        if overwrite:
            for path in sorted(folder.iterdir(), key=lambda path: path.name == PLAN):  # The plan, our mark, goes last.
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        _check_plan(folder, plan)
        (folder / PARTS).mkdir(exist_ok=True)
        (folder / shards.SHARDS).mkdir(exist_ok=True)
        yield folder


@contextlib.contextmanager
def _name_another(folder: Path) -> Iterator[None]:
    """Tells the user what to do where a folder cannot be made."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{folder} cannot be made ({error.strerror or error}); name an --out that can be written."
        ) from error


def _is_partial(folder: Path) -> bool:
    """Whether it has a plan or a manifest, or only the files of a run that was killed before its plan was written."""
    if (folder / PLAN).exists():
        return _is_plan(folder / PLAN)
    others = {*manifest.foreign_files(folder)}
    if is_described(folder):  # A run deletes this file last; without a manifest the folder is not ours.
        others.discard(MERGE)
    if not others <= {f"{PLAN}.tmp"}:
        return False
    return all(path.stat().st_size == 0 or _is_plan(path) for path in (folder / name for name in others))


def _is_plan(file: Path) -> bool:
    try:
        return _VERSION in json_files.read(file)
    except (OSError, ValueError, TypeError):
        return False


def _check_plan(folder: Path, plan: dict[str, Any]) -> None:
    file = folder / PLAN
    if file.exists():
        old_plan = json_files.read(file)
    elif is_described(folder):  # Killed after the plan was deleted.
        source = manifest.read_manifest(folder)["source"]
        old_plan = {**plan, "format": source["format"], "source": str(Path(plan["source"]).parent / source["name"])}
    else:
        old_plan = plan
    changed = [name for name in plan if old_plan.get(name) != plan[name]]
    if changed and (any((folder / PARTS).glob("*.json")) or is_planned(folder) or is_described(folder)):
        name = changed[0]
        raise InputError(
            f"{folder} was begun with {name} {old_plan.get(name)!r}, not {plan[name]!r}; name another --out, or "
            "start again with --overwrite."
        )
    write_json(file, plan)  # A different plan replaces the old one only where nothing was prepared yet.


def is_planned(folder: Path) -> bool:
    """Whether all scans have been read and only merging is left."""
    return (folder / MERGE).exists()


def is_described(folder: Path) -> bool:
    """Whether the data set is complete and only has to be renamed."""
    return (folder / manifest.MANIFEST).exists()


def read(folder: Path, name: str) -> dict[str, Any]:
    """What `write` stored about the scan with this `name_of`, without its records."""
    return json.loads((folder / PARTS / f"{name}.json").read_text())


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file completely or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(value))
    temporary.replace(path)
