"""Prepares a source as a data set: reads scans in parallel, quarantines faulty ones, resumes an unfinished run."""

from __future__ import annotations

import dataclasses
import functools
import os
import time
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from lungjax import paths, platforms
from lungjax.ct.source import Entry, Quarantined
from lungjax.data import manifest, shards
from lungjax.data.index_columns import ROW_COLUMNS
from lungjax.data.records import SCHEMA_VERSION
from lungjax.errors import Fault, InputError, NothingDone
from lungjax.preparation import merge, parts, sources, spread, summary
from lungjax.preparation.choices import Choices
from lungjax.preparation.summary import Summary
from lungjax.version import VERSION


def prepare(
    source: Path | str,
    out: Path | str,
    *,
    format: str = "auto",
    workers: int | None = None,
    dask: str | None = None,
    overwrite: bool = False,
    without_patients: bool = False,
    choices: Choices = sources.NO_CHOICES,
) -> Summary:
    """Prepares a data set; its bytes depend only on the source, not on workers or restarts.

    Args:
      source: folder or archive of scans.
      out: folder to make; until it is complete, all work is in `OUT.partial`, where a second run resumes.
      format: one of `sources.FORMATS`, or `auto` to detect it.
      workers: number of processes; None for one per core. Each holds one scan in memory.
      dask: address of a Dask scheduler, whose workers then read the scans.
      overwrite: start again, even if `out` is complete or another run is unfinished.
      without_patients: also accept a source that does not record patients; its own split is then kept.
      choices: what the user says of the source.

    Raises:
      InputError: `source` does not exist or has no known format, `out` is not a data set, nothing could be prepared,
        or a worker process died twice on the same scan.
    """
    started = time.monotonic()
    source, out = (Path(os.path.abspath(paths.local(path))) for path in (source, out))
    if not source.exists():
        raise InputError(f"{source}: no such file or folder; --source names a folder of scans or an archive.")
    if _is_complete(out, overwrite=overwrite) and not overwrite:
        _check_complete(out, source, format)
        return summary.summarize(out, was_complete=True, new_slices=0, seconds=0.0)
    name = sources.format_of(source, format)
    choices.check(name)
    one_process = sources.FORMATS[name].ONE_PROCESS
    if one_process and dask is not None:
        raise InputError(f"{source} ({name}) is read by a single process, which holds all of it; leave out --dask.")
    if not sources.FORMATS[name].HAS_PATIENT_IDS and not without_patients:
        raise InputError(
            f"{source} ({name}) does not record patients: no split and no confidence intervals by patient are "
            "possible, and it can never be mixed with data that record them; if that is what you want, add "
            "--without-patients."
        )
    count = workers if workers is not None else platforms.core_count()
    if count < 1:
        raise InputError(f"--workers {count}: at least one is needed.")
    readers = sources.readers_of(name)
    plan = {
        "source": str(source),
        "format": name,
        "schema_version": SCHEMA_VERSION,
        "number of index columns": len(ROW_COLUMNS),
        "readers": readers,
        "lungjax version": VERSION,
        **({} if choices == sources.NO_CHOICES else {"choices": choices.as_text()}),
    }
    new_slices = 0
    with parts.open_partial(out, plan, overwrite=overwrite) as folder:
        if not parts.is_described(folder):
            if not parts.is_planned(folder):
                new_slices = _read_all(folder, name, source, choices, 1 if one_process else count, dask)
            for _ in spread.run(merge.merge, merge.shards_to_write(folder), workers=count):
                pass
        merge.finish(folder, out, {"format": name, "name": source.name}, readers=readers)
    return summary.summarize(out, was_complete=False, new_slices=new_slices, seconds=time.monotonic() - started)


def _is_complete(out: Path, *, overwrite: bool) -> bool:
    """Whether `out` is a data set. Refuses any other folder, and to overwrite a data set with foreign files in it."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    foreign = manifest.foreign_files(out) if out.is_dir() else [manifest.MANIFEST]
    if manifest.MANIFEST in foreign or not (out / manifest.MANIFEST).is_file():
        raise InputError(f"{out} exists and is not a lungjax data set; name another --out.")
    if foreign and overwrite:
        raise InputError(f"{out} also holds {foreign[0]!r}, which --overwrite would delete; move it away first.")
    return True


def _check_complete(out: Path, source: Path, format: str) -> None:
    """Checks that a finished data set is complete and was made from this source in this format."""
    recorded = shards.open_dataset(out).manifest["source"]
    if recorded["name"] != source.name or format not in ("auto", recorded["format"]):
        raise InputError(
            f"{out} was made from {recorded['name']!r} as {recorded['format']}, not from {source.name!r} as {format}; "
            "name another --out, or replace it with --overwrite."
        )


def _read_all(folder: Path, name: str, source: Path, choices: Choices, count: int, dask: str | None) -> int:
    """Reads every scan that has no part yet; returns the number of slices read."""
    entries, quarantined = sources.find(name, source, choices)
    todo = [entry for entry in entries if not parts.is_done(folder, entry)]
    new_slices = 0
    bar = tqdm(total=len(entries), initial=len(entries) - len(todo), unit="scan", disable=None)
    with bar:
        read = functools.partial(_read_one, folder, name)
        for _, result in spread.run(read, todo, workers=count, dask=dask, paths=[folder, source]):
            if isinstance(result, Quarantined):
                quarantined = [*quarantined, result]
            else:
                new_slices += result
            bar.set_postfix(slices=new_slices, quarantined=len(quarantined), refresh=False)
            bar.update()
    faulty = {line.key for line in quarantined}
    done = [entry for entry in entries if entry.key not in faulty]
    if not done:
        raise _nothing_prepared(folder, source, quarantined)
    merge.plan_merge(folder, done, quarantined)
    return new_slices


def _read_one(folder: Path, name: str, entry: Entry) -> int | Quarantined:
    """Reads one scan in a worker process; returns its number of slices, or why it is quarantined."""
    try:
        scan = sources.FORMATS[name].read(entry)
    except Fault as fault:
        return Quarantined(entry.key, entry.where, fault.name, fault.message)
    parts.write(folder, entry, scan, readers=sources.readers_of(name))
    return len(scan.voxels)


def _nothing_prepared(folder: Path, source: Path, quarantined: Sequence[Quarantined]) -> InputError:
    lines = [dataclasses.asdict(line) for line in quarantined]
    merge.write_quarantine(folder, lines)
    if not lines:
        return InputError(f"{source} holds no scans of this format; check the path and --format.")
    return NothingDone(
        f"{source}: nothing could be prepared, {len(lines)} quarantined, the first because {lines[0]['message']}; "
        f"all reasons are in {folder / manifest.QUARANTINE}."
    )
