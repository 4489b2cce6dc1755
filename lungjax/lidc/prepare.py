"""Source -> data set: scans read in parallel, faulty ones quarantined, finished ones kept if the run ends."""

from __future__ import annotations

import collections
import dataclasses
import functools
import json
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

import lungjax
from lungjax.data import manifest, shards, splits
from lungjax.data.records import SCHEMA_VERSION
from lungjax.data.slicing import ROW_COLUMNS
from lungjax.lidc import cluster, parts
from lungjax.lidc import workers as processes
from lungjax.lidc.formats import (
    jaeho_npy,
    lidc,
    luna16,
    lungd_png,
    nifti,
    nodule_patches,
    prob_unet_hdf5,
    prob_unet_pickle,
    slices,
)
from lungjax.lidc.formats.entry import Entry, Quarantined
from lungjax.lidc.scan import Fault, InputError

FORMATS = {
    "lidc": lidc,
    "slices": slices,
    "lungd-png": lungd_png,
    "jaeho-npy": jaeho_npy,
    "luna16": luna16,
    "nifti": nifti,
    "prob-unet-pickle": prob_unet_pickle,
    "prob-unet-hdf5": prob_unet_hdf5,
    "nodule-patches": nodule_patches,
}
"""Each module offers `matches(source)`, `find(source)` and `read(entry)`; `auto` tries them in this order.

One that can tell more of a scan without its voxels has `check(entry)` too, for `lungjax doctor`.
`WITHOUT_PATIENTS` is True where a source does not tell them, `IN_MEMORY` where one process must read it all.
"""

_URL = re.compile(r"(gs|s3|az|abfss?|https?|ftp|hdfs):/")


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a data set holds, and what this run did for it.

    Attributes:
      out: the folder.
      scans, slices: in the data set.
      patients: how many in each split.
      quarantined: how many series and single files for each reason.
      was_complete: it was there already and was left alone.
      new_slices: slices read in this run; others come from a run before it.
      seconds: this run's time.
    """

    out: Path
    scans: int
    slices: int
    patients: dict[str, int]
    quarantined: dict[str, int]
    was_complete: bool
    new_slices: int
    seconds: float

    def text(self) -> str:
        """Two or three lines for a person."""
        each = ", ".join(f"{count} {split}" for split, count in self.patients.items())
        patients = f"{sum(self.patients.values())} patients ({each})"
        lines = [f"{self.out}: {self.scans} scans, {self.slices} slices, {patients}"]
        if self.quarantined:
            reasons = ", ".join(f"{count} {name}" for name, count in sorted(self.quarantined.items()))
            total = sum(self.quarantined.values())
            lines.append(f"quarantined: {total} ({reasons}); see {self.out / manifest.QUARANTINE}")
        if self.was_complete:
            lines.append("It is complete already and was left alone; --overwrite makes it anew.")
        else:
            rate = self.new_slices / max(self.seconds, 1e-9)
            lines.append(f"{self.new_slices} slices read in {self.seconds:.1f} s, {rate:.0f} slices/s")
        return "\n".join(lines)


def prepare(
    source: Path | str,
    out: Path | str,
    *,
    format: str = "auto",
    workers: int | None = None,
    dask: str | None = None,
    overwrite: bool = False,
    without_patients: bool = False,
) -> Summary:
    """Prepares a data set; its bytes depend on the source alone, not on workers or restarts.

    Args:
      source: folder or archive of scans.
      out: folder to make; until it is whole, work lies in `OUT.partial`, and a second run resumes there.
      format: one of `FORMATS`, or `auto` to look.
      workers: processes; None for one a core. Each holds one scan in memory.
      dask: address of a Dask scheduler, whose workers read the scans instead.
      overwrite: make it anew, even if `out` is complete or another run was begun.
      without_patients: prepare a source that does not tell its patients, too; its own split then stands.

    Raises:
      InputError: nothing at `source`, no known format, `out` is something else, nothing could be prepared,
        or a worker process died twice over the same scan.
    """
    started = time.monotonic()
    for path in (source, out):
        if _URL.match(str(path)):
            raise InputError(f"{path}: shards are read and written as files; mount the bucket and name that folder.")
    source, out = Path(os.path.abspath(source)), Path(os.path.abspath(out))
    if not source.exists():
        raise InputError(f"{source}: no such file or folder; --source names a folder of scans or an archive.")
    if _is_complete(out, overwrite=overwrite) and not overwrite:
        _check_complete(out, source, format)
        return _summary(out, was_complete=True, new_slices=0, seconds=0.0)
    name = format_of(source, format)
    if getattr(FORMATS[name], "WITHOUT_PATIENTS", False) and not without_patients:
        raise InputError(
            f"{source} ({name}) does not tell its patients: no split by patient, no interval by patient, and data "
            "that tell them can never be mixed with it; if that is what you want, say --without-patients."
        )
    count = workers if workers is not None else len(os.sched_getaffinity(0))
    if count < 1:
        raise InputError(f"--workers {count}: at least one is needed.")
    plan = {
        "source": str(source),
        "format": name,
        "schema_version": SCHEMA_VERSION,
        "number of index columns": len(ROW_COLUMNS),
        "lungjax version": lungjax.__version__,
    }
    new_slices = 0
    with parts.opened(out, plan, overwrite=overwrite) as folder:
        if not parts.is_described(folder):
            if not parts.is_planned(folder):
                new_slices = _read_all(folder, name, source, count, dask)
            for _ in _run(parts.merge, parts.shards_to_write(folder), count):
                pass
        parts.finish(folder, out, {"format": name, "name": source.name})
    return _summary(out, was_complete=False, new_slices=new_slices, seconds=time.monotonic() - started)


def _is_complete(out: Path, *, overwrite: bool) -> bool:
    """Refuses to touch what is no data set of ours, and to overwrite what lies beside one."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    foreign = manifest.foreign_files(out) if out.is_dir() else [manifest.MANIFEST]
    if manifest.MANIFEST in foreign or not (out / manifest.MANIFEST).is_file():
        raise InputError(f"{out} exists and is no lungjax data set; name another --out.")
    if foreign and overwrite:
        raise InputError(f"{out} also holds {foreign[0]!r}, which --overwrite would delete; move it away first.")
    return True


def _check_complete(out: Path, source: Path, format: str) -> None:
    """A finished data set is whole, and of the source and format that are asked for."""
    held = shards.open_dataset(out).manifest["source"]
    if held["name"] != source.name or format not in ("auto", held["format"]):
        raise InputError(
            f"{out} was made from {held['name']!r} as {held['format']}, not from {source.name!r} as {format}; name "
            "another --out, or make it anew with --overwrite."
        )


def format_of(source: Path, format: str) -> str:
    """The format's name; `auto` looks.

    Raises:
      InputError: there is no such format, or none that fits.
    """
    if format != "auto":
        if format not in FORMATS:
            raise InputError(f"unknown format {format!r}; use one of: auto, {', '.join(FORMATS)}.")
        return format
    for name, module in FORMATS.items():
        if module.matches(source):
            return name
    raise InputError(
        f"{source} holds neither DICOM files nor another known layout ({', '.join(list(FORMATS)[1:])}); check --source."
    )


def find(name: str, source: Path) -> tuple[list[Entry], list[Quarantined]]:
    """What a format finds in a source; scans whose names nobody could write down are quarantined (`not_utf8`)."""
    entries, quarantined = FORMATS[name].find(source)
    good = [entry for entry in entries if _is_utf8(entry.patient_id) and _is_utf8(entry.key)]
    for entry in entries:
        if entry not in good:
            message = f"{entry.where} has a name that is not UTF-8; rename it"
            quarantined = [*quarantined, Quarantined(entry.key, entry.where, "not_utf8", message)]
    return good, quarantined


def _is_utf8(name: str) -> bool:
    try:
        return bool(name.encode())
    except UnicodeEncodeError:  # Python keeps the bytes of such a file name as lone surrogates.
        return False


def _read_all(folder: Path, name: str, source: Path, count: int, dask: str | None) -> int:
    """Reads every scan that has no part yet; returns how many slices that were."""
    entries, quarantined = find(name, source)
    todo = [entry for entry in entries if not parts.is_done(folder, entry)]
    new_slices = 0
    bar = tqdm(total=len(entries), initial=len(entries) - len(todo), unit="scan", disable=None)
    with bar:
        read = functools.partial(_read_one, folder, name)
        if getattr(FORMATS[name], "IN_MEMORY", False):
            count, dask = 1, None
        for _, result in _run(read, todo, count) if dask is None else _run_on(dask, read, todo, [folder, source]):
            if isinstance(result, Quarantined):
                quarantined = [*quarantined, result]
            else:
                new_slices += result
            bar.set_postfix(slices=new_slices, quarantined=len(quarantined), refresh=False)
            bar.update()
    faulty = {one.key for one in quarantined}
    done = [entry for entry in entries if entry.key not in faulty]
    if not done:
        raise _nothing_prepared(folder, source, quarantined)
    parts.plan_merge(folder, done, quarantined)
    return new_slices


def _read_one(folder: Path, name: str, entry: Entry) -> int | Quarantined:
    """One scan, in a worker process: its number of slices, or why it has no part."""
    try:
        scan = FORMATS[name].read(entry)
    except Fault as fault:
        return Quarantined(entry.key, entry.where, fault.name, fault.message)
    parts.write(folder, entry, scan)
    return len(scan.voxels)


def _run(function, tasks, count: int):
    try:
        yield from processes.run(function, tasks, min(count, max(len(tasks), 1)))
    except processes.WorkerDied as died:
        where = getattr(died.task, "where", None) or died.task.path
        raise InputError(
            f"a worker process died twice over {where} (out of memory, perhaps); run again with fewer "
            "--workers, finished scans are kept."
        ) from died


def _run_on(dask: str, function, tasks: Sequence[Entry], paths: Sequence[Path]):
    try:
        yield from cluster.run(function, tasks, dask, paths=paths)
    except processes.WorkerDied as died:
        raise InputError(
            f"several Dask workers died over {died.task.where} (out of memory, perhaps); run again with more memory a "
            "worker, finished scans are kept."
        ) from died


def _nothing_prepared(folder: Path, source: Path, quarantined: Sequence[Quarantined]) -> InputError:
    lines = [dataclasses.asdict(one) for one in quarantined]
    parts.write_quarantine(folder, lines)
    if not lines:
        return InputError(f"{source} holds no scans of this format; check --source and --format.")
    return InputError(
        f"{source}: nothing could be prepared, {len(lines)} quarantined, the first because {lines[0]['message']}; "
        f"all reasons are in {folder / manifest.QUARANTINE}."
    )


def _summary(out: Path, *, was_complete: bool, new_slices: int, seconds: float) -> Summary:
    described = manifest.read_manifest(out)
    patients = collections.Counter(described["split"]["patients"].values())
    lines = (out / manifest.QUARANTINE).read_text().splitlines()
    reasons = collections.Counter(json.loads(line)["name"] for line in lines)
    return Summary(
        out=out,
        scans=described["counts"]["scans"],
        slices=described["counts"]["slices"],
        patients={split: patients[split] for split in splits.SPLITS},
        quarantined=dict(reasons),
        was_complete=was_complete,
        new_slices=new_slices,
        seconds=seconds,
    )
