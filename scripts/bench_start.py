"""How long lungjax takes to start: to be imported, to print its help, and to the first step of a training.

    python scripts/bench_start.py [--rounds 3] [--configs segment simclr]

Every command is a process of its own; printed are medians of its processor time, which suffers less from other work on
the machine, and of its time. A training is `CONFIG:quick`, from the start of the process until the figures of its first
step are written, by turns with an empty cache of compiled programs and with that of the turn before. The built-in
phantom data are made first; that is not timed.
"""

from __future__ import annotations

import argparse
import datetime
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import bench_train

from lungjax.train.logs import METRICS_FILE

ROOT = Path(__file__).parents[1]
COMMANDS = {
    "python alone": ["-c", "pass"],
    "import lungjax": ["-c", "import lungjax"],
    "lungjax --help": ["-m", "lungjax.cli", "--help"],
    "python -m lungjax.main --help": ["-m", "lungjax.main", "--help"],
}
PHANTOM = ["-c", "from lungjax.preparation.builtin import resolve; resolve('phantom')"]
LIMIT_S = 1800
Used = tuple[float, float]
"""Seconds of processor time, and seconds."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--configs", nargs="+", default=["segment", "simclr"], help="default: %(default)s")
    given = parser.parse_args()
    print(f"{datetime.date.today()}, {bench_train.describe()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for command, arguments in COMMANDS.items():
            # The first of each fills the system's cache of files.
            report(command, [run(arguments, folder) for _ in range(given.rounds + 1)][1:])
        run(PHANTOM, folder)
        for config in given.configs:
            taken: dict[str, list[Used]] = {"nothing compiled yet": [], "compiled before": []}
            for _ in range(given.rounds):
                shutil.rmtree(folder / "cache", ignore_errors=True)
                for each in taken.values():
                    each.append(first_step(config, folder))
            for state, each in taken.items():
                report(f"first step of {config}:quick, {state}", each)
            cold, warm = ([statistics.median(column) for column in zip(*each, strict=True)] for each in taken.values())
            print(f"  warm / cold: {warm[0] / cold[0]:.2f} of processor time, {warm[1] / cold[1]:.2f} of time")


def run(arguments: list[str], folder: Path, *, until: Path | None = None) -> Used:
    """Runs Python in `folder`, to its end or until a file holds a line; then it is killed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    environment |= {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(folder / "cache")}
    with tempfile.TemporaryFile() as said:
        start = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *arguments], env=environment, cwd=folder, stdout=said, stderr=subprocess.STDOUT
        )
        waiting = until is not None
        while waiting and time.perf_counter() < start + LIMIT_S:
            waiting = not (until and until.is_file() and until.read_text().endswith("\n"))
            if os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                break
            time.sleep(0.01)
        seconds = time.perf_counter() - start
        if until is not None:
            process.send_signal(signal.SIGKILL)
        _, status, used = os.wait4(process.pid, 0)
        seconds = seconds if until else time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if waiting or (until is None and process.returncode):
            said.seek(0)
            raise SystemExit(f"python {' '.join(arguments)} failed: {said.read().decode(errors='replace')}")
    return used.ru_utime + used.ru_stime, seconds


def first_step(config: str, folder: Path) -> Used:
    """Trains from the beginning until the first figures are there."""
    workdir = folder / "workdir"
    shutil.rmtree(workdir, ignore_errors=True)
    options = [f"--config={config}:quick", f"--workdir={workdir}", "--config.log_every=1"]
    return run(["-m", "lungjax.main", *options], folder, until=workdir / METRICS_FILE)


def report(name: str, each: list[Used]) -> None:
    processor_s, wall_s = (statistics.median(column) for column in zip(*each, strict=True))
    print(f"{name}: {processor_s:.2f} s of processor time, {wall_s:.2f} s", flush=True)


if __name__ == "__main__":
    main()
