"""How long a segmenter takes for a slice of 128 x 128 pixels on one core, or `lungjax predict` for a scan.

    python scripts/bench_predict.py [--model segmenter] [--rounds 200]
    python scripts/bench_predict.py --scan DICOM [--model detector] [--rounds 3] [--against FOLDER]

Of slices: the process is bound to one core before JAX starts. Measured is a call from HU to probabilities, both on the
host, for one slice and for a batch of 16, without the call that compiles. Printed are the median and the 95th
percentile of the processor time, which is the time itself where nothing else runs on that core.

Of a scan: whole commands in processes of their own, by turns, see `bench_commands.py`. Printed are the median processor
time, which other work on the machine increases less, the median time and the largest resident memory.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bench_commands
import numpy as np

from lungjax import platforms

SIDE_PX = 128


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__), formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default="segmenter", help="default: %(default)s")
    parser.add_argument("--rounds", type=int, help="default: 200, of scans 3")
    parser.add_argument("--scan", type=Path, help="folder of a DICOM series: time `lungjax predict` of it")
    parser.add_argument("--against", type=Path, metavar="FOLDER", help="another checkout, for --scan")
    arguments = parser.parse_args()
    if arguments.scan is not None:
        of_a_scan(arguments.scan, str(arguments.model), arguments.rounds or 3, arguments.against)
        return
    try:
        platforms.bind_to_cores(1)
    except OSError as error:
        parser.error(str(error))
    import jax  # Here, for XLA counts the cores as it starts.

    from lungjax.ct.scan import READERS, Intensity
    from lungjax.data.context import Context
    from lungjax.tasks import segment
    from lungjax.train import mesh
    from lungjax.train.trained import open_trained

    trained = open_trained(arguments.model)
    hu: Intensity = "hu"
    shown = Context.of(trained.config)
    planes = (shown.planes,) if shown.slices else ()
    task = segment.make(trained.config, intensity=hu, readers=READERS, mesh=mesh.make_mesh(1))
    variables = jax.device_put(trained.variables)

    @jax.jit
    def probability(variables: Any, images: jax.Array) -> jax.Array:
        predicted = task.predict(variables["params"], variables["model_state"], {"image": images})
        return jax.nn.sigmoid(predicted["logit"])

    for batch in (1, 16):
        images = np.random.default_rng(0).integers(-1000, 400, (batch, *planes, SIDE_PX, SIDE_PX)).astype(np.int16)
        times_ms = (
            _times_ms(lambda images=images: np.asarray(probability(variables, images)), arguments.rounds or 200) / batch
        )
        middle, late = np.percentile(times_ms, (50, 95))
        print(f"batch {batch}: {middle:.1f} ms a slice (95 % of calls within {late:.1f}), one core")


def of_a_scan(scan: Path, model: str, rounds: int, against: Path | None) -> None:
    """Prints what `lungjax predict` of a scan takes."""

    def arguments(out: Path) -> list[str]:
        return ["predict", str(scan.resolve()), "--model", model, "--out", str(out)]

    with tempfile.TemporaryDirectory() as folder:
        bench_commands.report(bench_commands.by_turns(arguments, Path(folder), rounds=rounds, against=against))


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
