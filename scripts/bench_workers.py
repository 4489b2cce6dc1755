"""How much faster `lungjax predict --workers N` is than one worker, on N cores and on one.

    lungjax phantom --scans 8 --seed 18 --out phantoms
    python scripts/bench_workers.py phantoms [--workers 2] [--rounds 1]

Whole commands in processes of their own, by turns, with their start and what they write: one worker on one core, N
workers on N cores, and one worker on N cores, which its networks then share. A first round compiles and is not counted.
Prints the median time and processor time of each, and the ratio of times. It needs a machine on which nothing else
runs: the script says so if there is a load.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import bench_commands
import bench_train
import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__), formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scans", type=Path, help="folder of scans")
    parser.add_argument("--workers", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=1, help="default: %(default)s")
    arguments = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else []
    if not 1 < arguments.workers <= len(cores):
        parser.error(f"--workers: there are {len(cores)} cores that a process can be bound to; give 2 to so many.")
    ways = {
        "one worker, one core": (1, 1),
        f"{arguments.workers} workers, as many cores": (arguments.workers, arguments.workers),
        f"one worker, {arguments.workers} cores": (1, arguments.workers),
    }
    print(f"{bench_train.describe()}, load {os.getloadavg()[0]:.1f}")
    taken: dict[str, list[bench_commands.Used]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(arguments.rounds + 1):
            for name, (workers, share) in ways.items():
                out = Path(folder) / f"{turn}-{workers}-{share}"
                command = ["predict", str(arguments.scans.resolve()), "--workers", str(workers), "--out", str(out)]
                used = bench_commands.run(
                    command, bench_commands.ROOT, Path(folder) / f"cache-{share}", cores=set(cores[:share])
                )
                if turn:
                    taken[name].append(used)
    first = None
    for name, each in taken.items():
        wall_s = float(np.median([used.wall_s for used in each]))
        first = first or wall_s
        processor_s = np.median([used.processor_s for used in each])
        print(f"{name}: {wall_s:.1f} s, {processor_s:.1f} s of processor time, {first / wall_s:.2f} times as fast")


if __name__ == "__main__":
    main()
