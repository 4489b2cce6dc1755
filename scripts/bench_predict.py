"""How long a segmenter takes for a slice of 128 x 128 pixels, on one core.

    python scripts/bench_predict.py [--model segmenter] [--rounds 200]

The process is bound to one core before JAX starts. Measured is a call from HU to probabilities, both on the host, for
one slice and for a batch of 16, without the call that compiles; `--flips` takes four times as long. Printed are the
median and the 95th percentile, which other work on the machine increases.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lungjax import platforms

SIDE_PX = 128


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__), formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default="segmenter", help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=200, help="default: %(default)s")
    arguments = parser.parse_args()
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
        times_ms = _times_ms(lambda images=images: np.asarray(probability(variables, images)), arguments.rounds) / batch
        middle, late = np.percentile(times_ms, (50, 95))
        print(f"batch {batch}: {middle:.1f} ms a slice (95 % of calls within {late:.1f}), one core")


def _times_ms(call: Callable[[], Any], rounds: int) -> np.ndarray:
    call()
    times_ms = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        times_ms.append(1e3 * (time.perf_counter() - start))
    return np.array(times_ms)


if __name__ == "__main__":
    main()
