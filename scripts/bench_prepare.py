"""How fast one core prepares real scans, against reading their DICOM alone, and against pylidc; what shards cost.

    LUNGJAX_REAL_DATA=FOLDER .venv/bin/python scripts/bench_prepare.py [--repeats 5]

CPU seconds of one process, all threads together, so that waiting for other work on the machine does not count; tasks
in turn, the best of the repeats; shares are medians of those within a repeat. Two comparisons:

A collection: the images of LIDC-IDRI-0003 (140 slices of 512x512) as four scans, under names, positions and outlines
of four scans of LIDC-IDRI that have as many slices. All of `lungjax prepare --workers 1` on it, from finding files to
checksums, against pydicom's `dcmread`, `pixel_array`, slope and intercept to int16, file by file. All costs
of a scan are included; costs of a process are printed separately: imports, and one pass over pylidc's database.

One scan: what a worker of `prepare` does (read, masks, lungs, encode, write), against pylidc's `to_volume`,
`cluster_annotations`, `consensus` of every cluster with all readers' masks, `np.save` of volume and masks.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom

from lungjax.ct import lungs
from lungjax.ct.scan import READERS
from lungjax.ct.source import Entry
from lungjax.data import records
from lungjax.data.shards import open_dataset
from lungjax.lidc import annotations
from lungjax.preparation import parts, run, slice_records
from lungjax.preparation.formats import lidc

PATIENT = "LIDC-IDRI-0003"
SCANS = 4
PREPARE, DECODE, STORED = "lungjax prepare, all of it", "reading and decoding alone", "the same without HU"
PYLIDC, OURS = "pylidc, one scan", "lungjax, one scan"
LOADER = "loader (Dataset.pixels)"
LUNGS = "find lungs alone"
ORACLE = Path(__file__).parents[1] / "tests" / "lidc"


def plain_pylidc(dicom: Path) -> Any:
    """pylidc as it is, put back on its feet by the tests' shims, without the caching that they add for speed."""
    sys.path.insert(0, str(ORACLE))
    import pylidc_oracle  # pyright: ignore[reportMissingImports]

    pylidc_oracle._remember = lambda pylidc: None
    pylidc = pylidc_oracle.import_pylidc()
    # `pylidc.Scan` is the class; its module asks a file in the home directory where the DICOM lies.
    sys.modules["pylidc.Scan"]._get_dicom_file_path_from_config_file = lambda: str(dicom)  # pyright: ignore[reportAttributeAccessIssue]
    return pylidc


def with_pylidc(pylidc: Any, out: Path) -> None:
    """The work, by pylidc's own functions."""
    pylidc.query(pylidc.Scan).session.expire_all()
    scan = pylidc.query(pylidc.Scan).filter(pylidc.Scan.patient_id == PATIENT).one()
    np.save(out / "volume.npy", scan.to_volume(verbose=False))
    for number, cluster in enumerate(scan.cluster_annotations(verbose=False)):
        consensus, _, masks = pylidc.utils.consensus(cluster, clevel=0.5)
        np.save(out / f"consensus-{number}.npy", consensus)
        np.save(out / f"masks-{number}.npy", np.stack(masks))


def with_lungjax(entry: Entry, out: Path) -> None:
    """The work, by what a worker of `lungjax prepare` does for one scan."""
    (out / "parts").mkdir(exist_ok=True)
    parts.write(out, entry, lidc.read(entry), readers=READERS)


def write_collection(source: Path, folder: Path) -> None:
    """The images of one scan as `SCANS` scans, each where the database has one with as many slices."""
    datasets = sorted(map(pydicom.dcmread, source.rglob("*.dcm")), key=lambda one: float(one.ImagePositionPatient[2]))
    rows = [row for row in annotations.all_scans() if len(row.z_mm) == len(datasets)][:SCANS]
    for row in rows:
        (folder / row.patient_id).mkdir(parents=True)
        for number, (dataset, z_mm) in enumerate(zip(datasets, row.z_mm.tolist(), strict=True)):
            dataset.StudyInstanceUID, dataset.SeriesInstanceUID = row.study_uid, row.series_uid
            dataset.ImagePositionPatient = [*dataset.ImagePositionPatient[:2], z_mm]
            dataset.PixelSpacing = [row.pixel_spacing_mm] * 2
            dataset.save_as(folder / row.patient_id / f"{number:06}.dcm")


def decode(source: Path, *, hu: bool) -> None:
    """What reading a series takes at least, as pylidc and most people do it; without `hu` not even its values."""
    for folder in source.iterdir():
        paths = sorted(folder.iterdir())
        volume = np.empty((len(paths), 512, 512), np.int16)
        for out, path in zip(volume, paths, strict=True):
            dataset = pydicom.dcmread(path)
            if hu:
                out[...] = dataset.pixel_array * dataset.RescaleSlope + dataset.RescaleIntercept
            else:
                _ = dataset.pixel_array


def once_a_process(entry: Entry) -> float:
    """CPU seconds of a process that imports all that `prepare` needs, and finds one scan in pylidc's database."""
    imports = "import lungjax.preparation.run; from lungjax.lidc import annotations"
    code = f"{imports}; annotations.nodules(annotations.scan_row({entry.key!r}))"
    before = os.times()
    subprocess.run([sys.executable, "-c", code], check=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def timed(tasks: dict[str, Callable[[Path], object]], repeats: int) -> dict[str, list[tuple[float, float]]]:
    """(CPU, wall) seconds of each task in each repeat, taken in turn; every run writes into an empty folder."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in tasks}
    for _ in range(repeats + 1):
        for name, task in tasks.items():
            with tempfile.TemporaryDirectory() as folder:
                gc.collect()
                gc.freeze()  # Neither pays for the garbage collector looking through the other's objects.
                cpu, wall = time.process_time(), time.perf_counter()
                task(Path(folder))
                seconds[name].append((time.process_time() - cpu, time.perf_counter() - wall))
    # The first run of each is warm-up: imports, and files into the page cache.
    return {name: runs[1:] for name, runs in seconds.items()}


def loader_tasks(data: Path, slices: int) -> dict[str, Callable[[Path], object]]:
    """Reading at random from shards, as a training run does: 64 slices at a time, a new order each time."""
    order = np.random.default_rng(0)
    dataset = open_dataset(data)

    def pixels(_: Path) -> None:
        rows = order.permutation(slices)
        for begin in range(0, slices, 64):
            dataset.pixels(rows[begin : begin + 64])

    return {LOADER: pixels}


def part_tasks(entry: Entry) -> dict[str, Callable[[Path], object]]:
    """Parts of the work on one scan; encoding and decoding without files."""
    scan = lidc.read(entry)
    made = list(slice_records.slice_records(scan))
    encoded = [records.encode(record) for record in made]
    return {
        "find series alone": lambda _: lidc.find(Path(entry.where)),
        "read DICOM + masks alone": lambda _: lidc.read(entry),
        LUNGS: lambda _: lungs.index_columns(scan),
        "encode alone": lambda _: [records.encode(record) for record in made],
        "decode alone": lambda _: [records.decode_pixels(data) for data in encoded],
    }


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    folder = os.environ.get("LUNGJAX_REAL_DATA")
    if not folder:
        sys.exit("LUNGJAX_REAL_DATA is not set: this needs the real scan LIDC-IDRI-0003.")
    dicom = Path(folder) / "lidc-dicom" / "LIDC-IDRI"
    pylidc = plain_pylidc(dicom)
    (entry,) = lidc.find(dicom / PATIENT)[0]
    with tempfile.TemporaryDirectory() as name:
        data, source = Path(name) / "data", Path(name) / "dicom"
        write_collection(dicom / PATIENT, source)
        run.prepare(source, data, workers=1)
        dataset = open_dataset(data)
        pixels = int(np.dot(dataset.index["rows"], dataset.index["columns"]))
        collection: dict[str, Callable[[Path], object]] = {
            PREPARE: lambda out: run.prepare(source, out / "prepared", workers=1),
            DECODE: lambda _: decode(source, hu=True),
            STORED: lambda _: decode(source, hu=False),
        }
        one: dict[str, Callable[[Path], object]] = {
            PYLIDC: lambda out: with_pylidc(pylidc, out),
            OURS: lambda out: with_lungjax(entry, out),
        }
        slices = {name: len(dataset) for name in collection}
        runs = timed({**collection, **one, **part_tasks(entry), **loader_tasks(data, len(entry.locator))}, repeats)
        shard_bytes = sum(path.stat().st_size for path in (data / "shards").iterdir())
    report(runs, {task: slices.get(task, len(entry.locator)) for task in runs}, once_a_process(entry))
    print(f"shards: {shard_bytes / 2**20:.1f} MiB, {shard_bytes / (2 * pixels):.1%} of raw int16")


def report(runs: dict[str, list[tuple[float, float]]], slices: dict[str, int], once: float) -> None:
    """Prints the table, and what it comes to."""
    cpu = {task: min(cpu for cpu, _ in times) for task, times in runs.items()}
    rates = {task: slices[task] / cpu[task] for task in runs}
    print(f"{PATIENT}, best of {len(runs[PREPARE])}; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(f"{'':28} {'CPU s':>8} {'wall s':>8} {'slices/s per core':>18}")
    for task, times in runs.items():
        print(f"{task:28} {cpu[task]:8.3f} {min(wall for _, wall in times):8.3f} {rates[task]:18.0f}")
    print(f"once a process, counted nowhere above: {once:.1f} s of imports and pylidc's database")
    without_lungs = cpu[PYLIDC] / (cpu[OURS] - cpu[LUNGS])
    print(
        f"lungjax prepares {rates[OURS] / rates[PYLIDC]:.1f} times as many slices a CPU second as pylidc, which finds "
        f"no lungs; {without_lungs:.1f} times without the seconds that finding lungs takes alone."
    )
    print(f"The loader reads {rates[LOADER]:.0f} slices/s a core.")
    shares = [
        sorted(a / b for (a, _), (b, _) in zip(runs[task], runs[PREPARE], strict=True)) for task in (DECODE, STORED)
    ]
    print(
        f"prepare {rates[PREPARE]:.0f} slices/s, reading and decoding alone {rates[DECODE]:.0f} slices/s, share "
        f"{statistics.median(shares[0]):.0%}, {shares[0][0]:.0%} to {shares[0][-1]:.0%} in single repeats; of reading "
        f"stored values alone, which are no HU yet, {statistics.median(shares[1]):.0%}"
    )


if __name__ == "__main__":
    main()
