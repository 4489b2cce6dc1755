"""Slices a second that the loader delivers, against PyTorch's DataLoader over .npy files, and against decoding alone.

    pip install -e .[bench]
    LUNGJAX_REAL_DATA=FOLDER python scripts/bench_loader.py [--workers 2] [--batch-size 16] [--rounds 3]
    python scripts/bench_loader.py --data PREPARED

Slices are those of the real scan LIDC-IDRI-0003, 512 x 512, prepared by lungjax, or of `--data`; all are in the
system's page cache. Every contender delivers the same batches, `image` int16 and `readers` uint8, drawn at random
without an end, in a process of its own, by turns; timed is the second half of `--batches`, when buffers are no longer
full from the start. "decoding alone" reads and decodes the same slices in as many processes, which deliver nothing.
PyTorch reads two .npy files a slice, one of each array, in as many worker processes. "on the device" is
`config.data.placement="device"`, for data that fit into its memory: they are read once, which is not timed, and a batch
is drawn there, where the step will use it; PyTorch's batches still have to be sent there. Beside slices a second, of
all processes together: milliseconds of processor time a slice.
"""

# PyTorch is an extra.
# pyright: reportMissingImports=false
from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib.util
import itertools
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bench_train
import numpy as np
from absl import flags

from lungjax.data import loader, shards
from lungjax.data.workers import end_with_parent

PATIENT = "LIDC-IDRI-0003"
OURS, THREADS, PLACED = "lungjax", "lungjax, in threads", "lungjax, on the device"
ALONE, TORCH = "decoding alone", "PyTorch DataLoader"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a prepared folder of slices of one size")
    parser.add_argument("--workers", type=int, default=2, help="processes that read; default: %(default)s")
    parser.add_argument("--batch-size", type=int, default=16, help="default: %(default)s")
    parser.add_argument("--batches", type=int, default=80, help="of which half are timed; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--contender", help=argparse.SUPPRESS)  # A process of its own, in a folder that is ready.
    given = parser.parse_args()
    if given.contender:
        slices = given.batch_size * (given.batches // 2)
        taken = measure(CONTENDERS[given.contender](given), given.batches)
        print(json.dumps([slices / taken[0], 1e3 * taken[1] / slices]))
        return
    with tempfile.TemporaryDirectory() as folder:
        data = prepare(given.data, Path(folder))
        names = [name for name in CONTENDERS if name != TORCH or importlib.util.find_spec("torch")]
        if TORCH in names:
            write_npy(shards.open_dataset(data), data / "npy")
        else:
            print("PyTorch is not installed (pip install torch==2.13.0): without it.")
        rates: dict[str, list[list[float]]] = {name: [] for name in names}
        for name in names * given.rounds:
            rates[name].append(_in_a_process(name, data, given))
    report(rates, given)


def prepare(data: Path | None, folder: Path) -> Path:
    """A prepared folder in `folder`, to which more can be added."""
    out = folder / "data"
    if data is not None:
        out.mkdir()
        for path in data.resolve().iterdir():
            (out / path.name).symlink_to(path)
        return out
    real = os.environ.get("LUNGJAX_REAL_DATA")
    if not real:
        sys.exit(f"LUNGJAX_REAL_DATA is not set: this needs the real scan {PATIENT}, or --data.")
    from lungjax.preparation import run

    run.prepare(Path(real) / "lidc-dicom" / "LIDC-IDRI" / PATIENT, out, workers=1)
    return out


def write_npy(dataset: shards.Dataset, folder: Path) -> None:
    """For each slice, `ROW-image.npy` and `ROW-readers.npy`."""
    folder.mkdir()
    for row in range(len(dataset)):
        for name, (array,) in zip(("image", "readers"), dataset.pixels([row]), strict=True):
            np.save(folder / f"{row}-{name}.npy", array)


def ours(given: argparse.Namespace, *, workers: int | None = None) -> Iterator[Any]:
    flags.FLAGS.mark_as_parsed()  # Grain asks them as it starts workers.
    dataset = shards.open_dataset(given.data)
    slices = loader.Slices(dataset, crop_px=0, crop_at="random")
    rows, processes = np.arange(len(dataset)), given.workers if workers is None else workers
    return loader.train_batches(slices, rows, batch_size=given.batch_size, seed=0, workers=processes)


def placed(given: argparse.Namespace) -> Iterator[Any]:
    """A batch is on the device when it is yielded, as PyTorch's is in memory."""
    import jax

    from lungjax.data import on_device

    dataset = shards.open_dataset(given.data)
    slices = loader.Slices(dataset, crop_px=0, crop_at="random")
    rows = np.arange(len(dataset))
    pixels = on_device.OnDevice(slices, rows, put=jax.device_put, devices=jax.local_devices())
    draw = jax.jit(pixels.draw)
    plans = loader.train_batches(slices, rows, batch_size=given.batch_size, seed=0, workers=0, read=pixels.plan)
    return (jax.block_until_ready(draw(pixels.pixels, plan)) for plan in plans)


def alone(given: argparse.Namespace) -> Iterator[Any]:
    """Nothing is delivered but that a batch has been read, and not before it has been asked for, a few at a time."""
    processes = multiprocessing.get_context("spawn")
    with processes.Pool(given.workers, _open, (given.data,)) as pool:
        rows = np.random.default_rng(0)
        slices = len(shards.open_dataset(given.data))
        asked = (rows.integers(0, slices, given.batch_size) for _ in itertools.count())
        waiting = [pool.apply_async(_read, (next(asked),)) for _ in range(3 * given.workers)]
        while True:
            waiting.append(pool.apply_async(_read, (next(asked),)))
            yield waiting.pop(0).get()


def _open(data: Path) -> None:
    global _dataset
    end_with_parent()
    _dataset = shards.open_dataset(data)


def _read(rows: np.ndarray) -> None:
    _dataset.pixels(rows)


class NpySlices:
    """Slices for a DataLoader, as its users write them."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __len__(self) -> int:
        return len(list(self.folder.glob("*-image.npy")))

    def __getitem__(self, row: int) -> dict[str, np.ndarray]:
        return {name: np.load(self.folder / f"{row}-{name}.npy") for name in ("image", "readers")}


def theirs(given: argparse.Namespace) -> Iterator[Any]:
    import torch
    from torch.utils.data import DataLoader, RandomSampler

    dataset: Any = NpySlices(given.data / "npy")
    endless = RandomSampler(dataset, replacement=True, num_samples=10**9, generator=torch.Generator().manual_seed(0))
    return iter(DataLoader(dataset, batch_size=given.batch_size, sampler=endless, num_workers=given.workers))


CONTENDERS = {
    OURS: ours,
    THREADS: lambda given: ours(given, workers=0),
    PLACED: placed,
    ALONE: alone,
    TORCH: theirs,
}


def measure(batches: Iterator[Any], number: int) -> tuple[float, float]:
    """Seconds, and seconds of processor time of this process and its children, for the second half of the batches."""
    for _ in range(number // 2):
        next(batches)
    start, began = time.perf_counter(), processor_s()
    for _ in range(number // 2):
        next(batches)
    return time.perf_counter() - start, processor_s() - began


def processor_s() -> float:
    """Of this process and its living descendants; Linux alone tells it."""
    ticks, parents = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # It has ended.
            fields = path.read_text().rpartition(")")[2].split()
            ticks[int(path.parent.name)], parents[int(path.parent.name)] = (
                int(fields[11]) + int(fields[12]),
                int(fields[1]),
            )
    mine = {os.getpid()}
    while more := {process for process, parent in parents.items() if parent in mine} - mine:
        mine |= more
    return sum(ticks[process] for process in mine) / os.sysconf("SC_CLK_TCK")


def _in_a_process(name: str, data: Path, given: argparse.Namespace) -> list[float]:
    options = {"contender": name, "data": data, "workers": given.workers}
    options |= {"batch-size": given.batch_size, "batches": given.batches}
    command = [sys.executable, __file__, *(f"--{option}={value}" for option, value in options.items())]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)  # Its errors are to be seen.
    return json.loads(done.stdout.splitlines()[-1])


def report(rates: dict[str, list[list[float]]], given: argparse.Namespace) -> None:
    busy = f"load {os.getloadavg()[0]:.1f} at the end"
    print(f"{datetime.date.today()}, {bench_train.describe()}, {os.cpu_count()} cores, {busy}")
    print(f"batches of {given.batch_size}, {given.workers} worker processes, median of {given.rounds} rounds")
    medians = {name: [statistics.median(column) for column in zip(*each, strict=True)] for name, each in rates.items()}
    for name, (slices_s, cpu_ms) in medians.items():
        print(f"{name:24} {slices_s:8.0f} slices/s {cpu_ms:8.2f} ms of processor time a slice")
    for way in (OURS, THREADS, PLACED):
        for other in (ALONE, TORCH):
            if other in rates:
                ratios = [ours[0] / theirs[0] for ours, theirs in zip(rates[way], rates[other], strict=True)]
                print(f"{way} against {other}: {statistics.median(ratios):.2f} times its rate")


if __name__ == "__main__":
    main()
