"""Source -> shards, in parallel processes; faulty scans are quarantined, finished ones are never done again.

While it runs, `OUT.partial/` holds the shards done so far, each with a note of its rows. At the end the tables are
written and `OUT.partial/done` is renamed to OUT: a folder named OUT is always whole.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import json
import multiprocessing
import os
import shutil
import time
from collections import Counter
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import ModuleType
from typing import Any

from tqdm import tqdm

from lungjax.data import records, shards
from lungjax.lidc.formats import lidc, slices
from lungjax.lidc.formats.entry import Entry, Quarantined
from lungjax.lidc.scan import Fault, InputError, Scan

FORMATS: dict[str, ModuleType] = {"lidc": lidc, "slices": slices}
QUARANTINE = "quarantine.jsonl"


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a preparation did.

    Attributes:
      out: the finished folder.
      counts: patients, scans, slices, slices_with_nodules, nodules, annotations.
      splits: patients of each split.
      quarantined: number of series by the name of their fault.
      seconds: wall time of this call.
      resumed_slices: of `counts["slices"]`, those an earlier call had done.
    """

    out: Path
    counts: dict[str, int]
    splits: dict[str, int]
    quarantined: dict[str, int]
    seconds: float
    resumed_slices: int

    def text(self) -> str:
        patients = ", ".join(f"{self.splits.get(name, 0)} {name}" for name in ("train", "val", "test"))
        fresh = self.counts["slices"] - self.resumed_slices
        lines = [
            f"{self.out}: {self.counts['scans']} scans, {self.counts['slices']} slices, {self.counts['nodules']} "
            f"nodules of {self.counts['patients']} patients ({patients})",
            f"{fresh} slices in {self.seconds:.1f} s ({fresh / max(self.seconds, 1e-9):.0f} slices/s)"
            + (f", {self.resumed_slices} were done before" if self.resumed_slices else ""),
        ]
        if self.quarantined:
            named = ", ".join(f"{count} {name}" for name, count in sorted(self.quarantined.items()))
            lines.append(f"quarantined: {named}; reasons in {self.out / QUARANTINE}")
        return "\n".join(lines)


def prepare(
    source: Path,
    out: Path,
    *,
    format: str = "auto",
    workers: int | None = None,
    overwrite: bool = False,
) -> Summary:
    """Prepares every scan of `source` into the data set folder `out`.

    Args:
      source: a folder, or for `slices` also a zip or tar.
      out: the folder to make. One that is there and whole is left alone, unless `overwrite`.
      format: `lidc`, `slices`, or `auto` to look.
      workers: processes; None takes one a core.
      overwrite: remove an earlier result or half result first.

    Returns:
      What was done; the same figures whether or not an earlier call had done a part.

    Raises:
      InputError: no such source, a format that does not fit, no scan that could be prepared, or a half-done `out`
        of another source.
    """
    started = time.perf_counter()
    partial = out.with_name(out.name + ".partial")
    if overwrite:
        shutil.rmtree(out, ignore_errors=True)
        shutil.rmtree(partial, ignore_errors=True)
    if out.exists():
        shards.open_dataset(out)  # Says what is wrong if it is no data set.
        shutil.rmtree(partial, ignore_errors=True)
        return _summary(out, started, resumed=None)
    name = _format_of(source, format)
    entries, quarantined = FORMATS[name].find(source)
    groups = _groups(entries, getattr(FORMATS[name], "SCANS_PER_SHARD", 1))
    _plan(partial, source, name, entries)
    notes, resumed = _run(name, groups, partial, workers)
    quarantined = quarantined + [Quarantined(**q) for note in notes for q in note["quarantined"]]
    _finish(partial, name, notes, quarantined)
    partial_done = partial / "done"
    partial_done.rename(out)
    shutil.rmtree(partial)
    return _summary(out, started, resumed=resumed)


def _format_of(source: Path, format: str) -> str:
    if not source.exists():
        raise InputError(f"{source}: no such file or folder; give --source an LIDC folder or the slices' archive.")
    if format != "auto" and format not in FORMATS:
        raise InputError(f"--format {format!r} is unknown; use one of auto, {', '.join(FORMATS)}.")
    for name, module in FORMATS.items():
        if format in ("auto", name) and module.matches(source):
            return name
    wanted = "any known format" if format == "auto" else f"format {format}"
    raise InputError(f"{source}: holds nothing in {wanted}; known are {', '.join(FORMATS)}, see the README.")


def _groups(entries: list[Entry], scans_per_shard: int) -> list[tuple[Entry, ...]]:
    """Entries by patient, so many to a shard: a fixed division, whoever prepares it."""
    ordered = sorted(entries, key=lambda entry: (entry.patient_id, entry.key))
    return [tuple(ordered[i : i + scans_per_shard]) for i in range(0, len(ordered), scans_per_shard)]


def _plan(partial: Path, source: Path, name: str, entries: list[Entry]) -> None:
    """Remembers what is being prepared; refuses to mix it with something else."""
    keys = hashlib.sha256("\n".join(sorted(entry.key for entry in entries)).encode()).hexdigest()
    plan = {"format": name, "scans": len(entries), "keys": keys, "schema_version": records.SCHEMA_VERSION}
    path = partial / "plan.json"
    if path.is_file() and json.loads(path.read_text()) != plan:
        raise InputError(f"{partial}: was begun with other scans than {source} holds; add --overwrite to start anew.")
    try:
        (partial / "done" / shards.SHARDS).mkdir(parents=True, exist_ok=True)
        (partial / "notes").mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(f"{partial}: cannot be made ({error.strerror}); choose an --out you can write to.") from error
    _write_json(path, plan)


def _run(name: str, groups: list[tuple[Entry, ...]], partial: Path, workers: int | None) -> tuple[list[dict], int]:
    """Prepares the groups that have no note yet; returns all notes in order and the slices done before."""
    paths = [partial / "notes" / f"{number:05d}.json" for number in range(len(groups))]
    missing = [number for number, path in enumerate(paths) if not path.is_file()]
    done_before = set(range(len(groups))) - set(missing)
    workers = min(workers or os.cpu_count() or 1, max(len(missing), 1))
    with tqdm(total=sum(map(len, groups)), unit="scan", desc="prepare", disable=None) as progress:
        progress.update(sum(len(groups[number]) for number in done_before))
        if workers == 1:
            for number in missing:
                _prepare_group(name, groups[number], number, partial)
                progress.update(len(groups[number]))
        else:
            for attempt in (1, 2):  # A worker that the system killed, for memory say, gets one more chance.
                try:
                    _run_pool(name, groups, missing, partial, workers, progress)
                    break
                except BrokenProcessPool as error:
                    missing = [number for number in missing if not paths[number].is_file()]
                    if attempt == 2:
                        raise InputError(
                            f"a worker process died twice, at or after {groups[missing[0]][0].where}; "
                            "use fewer --workers, the memory may be too small."
                        ) from error
    notes = [json.loads(path.read_text()) for path in paths]
    return notes, sum(len(notes[number]["rows"]) for number in done_before)


def _run_pool(
    name: str, groups: list[tuple[Entry, ...]], missing: list[int], partial: Path, workers: int, progress: tqdm
) -> None:
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, mp_context=context) as pool:
        futures = {pool.submit(_prepare_group, name, groups[n], n, partial): n for n in missing}
        try:
            for future in concurrent.futures.as_completed(futures):
                future.result()
                progress.update(len(groups[futures[future]]))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _prepare_group(name: str, entries: tuple[Entry, ...], number: int, partial: Path) -> None:
    """One shard and its note. The note comes last: where it stands, the shard is whole."""
    shard = f"{shards.SHARDS}/{number:05d}.array_record"
    slices_of_shard: list[records.SliceRecord] = []
    quarantined, nodules, annotations = [], 0, 0
    intensity = "hu"
    for entry in entries:
        try:
            scan: Scan = FORMATS[name].read(entry)
        except Fault as fault:
            quarantined.append(Quarantined(entry.key, entry.where, fault.name, fault.message))
            continue
        intensity = scan.intensity
        nodules += len(scan.nodules)
        annotations += sum(len(nodule.readings) for nodule in scan.nodules)
        slices_of_shard += records.of_scan(scan)
    if slices_of_shard:
        shards.write_shard(partial / "done" / shard, slices_of_shard)
    note = {
        "rows": [shards.index_row(record, shard, i) for i, record in enumerate(slices_of_shard)],
        "intensity": intensity,
        "scans": len(entries) - len(quarantined),
        "nodules": nodules,
        "annotations": annotations,
        "quarantined": [dataclasses.asdict(q) for q in quarantined],
    }
    _write_json(partial / "notes" / f"{number:05d}.json", note)


def _finish(partial: Path, name: str, notes: list[dict], quarantined: list[Quarantined]) -> None:
    rows = [row for note in notes for row in note["rows"]]
    ordered = sorted(quarantined, key=lambda q: (q.key, q.where))
    lines = [json.dumps(dataclasses.asdict(q), ensure_ascii=False) + "\n" for q in ordered]
    if not rows:
        (partial / QUARANTINE).write_text("".join(lines))
        first = f"; the first of {len(lines)} reasons: {ordered[0].message}" if ordered else ""
        raise InputError(f"no scan could be prepared{first} (all reasons: {partial / QUARANTINE}).")
    (partial / "done" / QUARANTINE).write_text("".join(lines))
    counts = {
        "patients": len({row["patient_id"] for row in rows}),
        "scans": sum(note["scans"] for note in notes),
        "slices": len(rows),
        "slices_with_nodules": sum(row["readers_marked"] > 0 for row in rows),
        "nodules": sum(note["nodules"] for note in notes),
        "annotations": sum(note["annotations"] for note in notes),
    }
    intensity = next(note["intensity"] for note in notes if note["rows"])
    shards.write_tables(partial / "done", rows, source=name, intensity=intensity, counts=counts)


def _summary(out: Path, started: float, *, resumed: int | None) -> Summary:
    manifest = json.loads((out / shards.MANIFEST).read_text())
    lines = (out / QUARANTINE).read_text().splitlines()
    return Summary(
        out=out,
        counts=manifest["counts"],
        splits=dict(Counter(manifest["split"]["patients"].values())),
        quarantined=dict(Counter(json.loads(line)["name"] for line in lines)),
        seconds=time.perf_counter() - started,
        resumed_slices=manifest["counts"]["slices"] if resumed is None else resumed,
    )


def _write_json(path: Path, content: Any) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(content))
    temporary.replace(path)
