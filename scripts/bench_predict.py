"""How long a segmenter takes for a slice of 128 x 128 pixels on one core, or `lungjax predict` for a scan.

    python scripts/bench_predict.py [--model segmenter] [--rounds 200]
    python scripts/bench_predict.py --scan DICOM [--model detector] [--rounds 3] [--against FOLDER]

Of slices: the process is bound to one core before JAX starts. Measured is a call from HU to probabilities, both on the
host, for one slice and for a batch of 16, without the call that compiles. Printed are the median and the 95th
percentile of the processor time, which is the time itself where nothing else runs on that core.

Of a scan: whole commands in processes of their own, start and output files included, by turns: with an empty cache of
compiled programs, with that of the turn before, and, with `--against`, by another checkout of lungjax, with its own
cache if it has one. Printed are the median processor time, which other work on the machine increases less, the median
time and the largest resident memory.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lungjax import platforms

ROOT = Path(__file__).parents[1]
SIDE_PX = 128


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__), formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default="segmenter", help="default: %(default)s")
    parser.add_argument("--rounds", type=int, help="default: 200, of scans 3")
    parser.add_argument("--scan", type=Path, help="folder of a DICOM series: time `lungjax predict` of it")
    parser.add_argument("--against", type=Path, metavar="FOLDER", help="another checkout, for --scan")
    arguments = parser.parse_args()
    if arguments.scan is not None:
        commands(arguments.scan, str(arguments.model), arguments.rounds or 3, arguments.against)
        return
    try:
        platforms.bind_to_cores(1)
    except OSError as error:
        parser.error(str(error))
    import jax  # Here, for XLA counts the cores as it starts.

    from lungjax.ct.scan import READERS, Intensity
    from lungjax.tasks import segment
    from lungjax.train import mesh
    from lungjax.train.trained import open_trained

    trained = open_trained(arguments.model)
    hu: Intensity = "hu"
    task = segment.make(trained.config, intensity=hu, readers=READERS, mesh=mesh.make_mesh(1))
    variables = jax.device_put(trained.variables)

    @jax.jit
    def probability(variables: Any, images: jax.Array) -> jax.Array:
        predicted = task.predict(variables["params"], variables["model_state"], {"image": images})
        return jax.nn.sigmoid(predicted["logit"])

    for batch in (1, 16):
        images = np.random.default_rng(0).integers(-1000, 400, (batch, SIDE_PX, SIDE_PX)).astype(np.int16)
        times_ms = (
            _times_ms(lambda images=images: np.asarray(probability(variables, images)), arguments.rounds or 200) / batch
        )
        middle, late = np.percentile(times_ms, (50, 95))
        print(f"batch {batch}: {middle:.1f} ms a slice (95 % of calls within {late:.1f}), one core")


def commands(scan: Path, model: str, rounds: int, against: Path | None) -> None:
    """Prints what `lungjax predict` of a scan takes, by turns: cold, warm, and by another checkout."""
    with tempfile.TemporaryDirectory() as folder:
        caches = {"nothing compiled yet": "cold", "compiled before": "warm"}
        checkouts = dict.fromkeys(caches, ROOT)
        if against is not None:
            caches["the other checkout"], checkouts["the other checkout"] = "other", against.resolve()
        taken: dict[str, list[tuple[float, float, float]]] = {name: [] for name in caches}
        for turn in range(rounds + 1):
            for name, cache in caches.items():
                if cache == "cold":
                    shutil.rmtree(Path(folder, cache), ignore_errors=True)
                used = _command(scan.resolve(), model, checkouts[name], Path(folder, cache), Path(folder, "out"))
                if turn:  # The first one fills caches, the system's too.
                    taken[name].append(used)
    for name, each in taken.items():
        processor_s, wall_s, _ = np.median(each, axis=0)
        memory_mb = max(memory for _, _, memory in each)
        print(f"{name}: {processor_s:.1f} s of processor time, {wall_s:.1f} s, at most {memory_mb:.0f} MB")


def _command(scan: Path, model: str, checkout: Path, cache: Path, out: Path) -> tuple[float, float, float]:
    """Seconds of processor time, seconds and MB that `lungjax predict` takes."""
    shutil.rmtree(out, ignore_errors=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    environment |= {"PYTHONPATH": str(checkout), "XDG_CACHE_HOME": str(cache)}
    command = [sys.executable, "-m", "lungjax.cli", "predict", str(scan), "--model", model, "--out", str(out)]
    start = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, env=environment, cwd=checkout, stdout=said, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise SystemExit(f"{' '.join(command)} failed: {said.read().decode(errors='replace')}")
    return used.ru_utime + used.ru_stime, time.perf_counter() - start, used.ru_maxrss / 1024


def _times_ms(call: Callable[[], Any], rounds: int) -> np.ndarray:
    call()
    times_ms = []
    for _ in range(rounds):
        start = time.process_time()
        call()
        times_ms.append(1e3 * (time.process_time() - start))
    return np.array(times_ms)


if __name__ == "__main__":
    main()
