"""How fast one core prepares a real scan, against pylidc doing the same work; and what the shards cost.

    LUNGJAX_REAL_DATA=FOLDER .venv/bin/python scripts/bench_prepare.py [--repeats 5]

On LIDC-IDRI-0003 (140 slices of 512x512), one process, the two in turn. Ours: read the series, find each
reader's masks and the lungs, encode every slice, write the shard. pylidc's: `to_volume`, `cluster_annotations`,
`consensus` of every cluster with all readers' masks, `np.save` of volume and masks, uncompressed. Times are CPU
seconds of the process, all threads together, so that waiting for other work on the machine does not count; the best
of the repeats. Left out, for it is done once a process and not once a scan: imports of both, and our one pass over
pylidc's database (0.1 s), which finds where each scan's rows lie.
"""

from __future__ import annotations

import argparse
import gc
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lungjax.data import records, slicing
from lungjax.data.shards import open_dataset
from lungjax.lidc import lungs, parts, prepare
from lungjax.lidc.formats import lidc
from lungjax.lidc.formats.entry import Entry
from lungjax.lidc.scan import READERS

PATIENT = "LIDC-IDRI-0003"
PYLIDC, OURS, WHOLE = "pylidc", "lungjax", "lungjax prepare, all of it"
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


def whole_prepare(source: Path, out: Path) -> None:
    """All of `lungjax prepare --workers 1`: also finding the series, merging, index and checksums."""
    prepare.prepare(source, out / "prepared", workers=1, overwrite=True)


def best(tasks: dict[str, Callable[[Path], object]], repeats: int) -> dict[str, tuple[float, float]]:
    """Least (CPU, wall) seconds of each task, taken in turn; every run writes into an empty folder."""
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
    return {
        name: (min(cpu for cpu, _ in runs[1:]), min(wall for _, wall in runs[1:])) for name, runs in seconds.items()
    }


def loader_tasks(data: Path, slices: int) -> dict[str, Callable[[Path], object]]:
    """Reading at random from shards, as a training run does: 64 slices at a time, a new order each time."""
    order = np.random.default_rng(0)
    dataset = open_dataset(data)

    def pixels(_: Path) -> None:
        rows = order.permutation(slices)
        for begin in range(0, slices, 64):
            dataset.pixels(rows[begin : begin + 64])

    return {LOADER: pixels}


def decode_tasks(entry: Entry) -> dict[str, Callable[[Path], object]]:
    """Encoding and decoding alone, without files."""
    scan = lidc.read(entry)
    made = list(slicing.slice_records(scan))
    encoded = [records.encode(record) for record in made]
    return {
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
        data = Path(name) / "data"
        shutil.copytree(dicom / PATIENT, Path(name) / "dicom")
        prepare.prepare(Path(name) / "dicom", data, workers=1)
        dataset = open_dataset(data)
        slices, pixels = len(dataset), int(np.dot(dataset.index["rows"], dataset.index["columns"]))
        compared: dict[str, Callable[[Path], object]] = {
            PYLIDC: lambda out: with_pylidc(pylidc, out),
            OURS: lambda out: with_lungjax(entry, out),
            WHOLE: lambda out: whole_prepare(Path(name) / "dicom", out),
        }
        seconds = best({**compared, **decode_tasks(entry), **loader_tasks(data, slices)}, repeats)
        shard_bytes = sum(path.stat().st_size for path in (data / "shards").iterdir())
    report(seconds, slices, repeats)
    print(f"shards: {shard_bytes / 2**20:.1f} MiB, {shard_bytes / (2 * pixels):.1%} of raw int16")


def report(seconds: dict[str, tuple[float, float]], slices: int, repeats: int) -> None:
    """Prints the table, and what it comes to."""
    ratio = {task: seconds[PYLIDC][0] / seconds[task][0] for task in (PYLIDC, OURS, WHOLE)}
    same_work = seconds[PYLIDC][0] / (seconds[OURS][0] - seconds[LUNGS][0])
    print(f"{PATIENT}: {slices} slices, best of {repeats}; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(f"{'':28} {'CPU s':>8} {'wall s':>8} {'slices/s per core':>18} {'x pylidc':>9}")
    for task, (cpu, wall) in seconds.items():
        times = f"{ratio[task]:9.2f}" if task in ratio else ""
        print(f"{task:28} {cpu:8.3f} {wall:8.3f} {slices / cpu:18.0f} {times}")
    print(
        f"lungjax prepares {ratio[OURS]:.1f} times as many slices a CPU second as pylidc, which finds no lungs; "
        f"{same_work:.1f} times without the seconds that finding lungs takes alone; "
        f"{ratio[WHOLE]:.1f} times with lungs, finding the files, merging, index and checksums."
    )
    print(f"The loader reads {slices / seconds[LOADER][0]:.0f} slices/s a core.")


if __name__ == "__main__":
    main()
