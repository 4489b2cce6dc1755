#!/usr/bin/env bash
# Where all devices have an array, Orbax lets each write a slice of it, however small: the first checkpoint of a small
# network on eight devices compiles a program for nearly every shape and slice, and takes many times as long.
#
# Versions:  orbax-checkpoint 0.12.8, tensorstore 0.1.86, jax 0.10.2.
# Behaviour: the default of ArrayOptions.Saving is use_replica_parallel=None, which is on, and
#            min_slice_bytes_for_replica_parallel=None, which is no limit: an array of 64 numbers is cut into eight.
#            With a limit of 16 MiB the first replica writes small arrays alone, and nothing is compiled.
# Seen:      60 arrays of 12 shapes, 0.6 MB, on 8 CPU devices: the first save compiles 96 programs; with the limit, 0
#
# Needs Python 3.11 to 3.13 (PYTHON=... chooses it) and a package index. Exits non-zero when this has changed.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    jax==0.10.2 jaxlib==0.10.2 orbax-checkpoint==0.12.8 tensorstore==0.1.86
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import pathlib
import sys
import time

import jax

jax.config.update("jax_num_cpu_devices", 8)
import jax.monitoring
import numpy as np
from orbax.checkpoint import v1 as ocp

compiled = []
jax.monitoring.register_event_duration_secs_listener(
    lambda name, seconds, **_: compiled.append(name) if name.endswith("backend_compile_duration") else None
)
folder = pathlib.Path(sys.argv[1])
mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
shapes = [(8 * n, 64) for n in range(1, 13)]


def save(name: str, context: ocp.Context) -> tuple[int, float]:
    tree = {f"{n}": np.full(shapes[n % len(shapes)], n, np.float32) for n in range(60)}
    tree = jax.block_until_ready(jax.device_put(tree, everywhere))
    compiled.clear()
    began = time.monotonic()
    with context:
        ocp.save(folder / name, tree)
    return len(compiled), time.monotonic() - began


limited = ocp.Context()
limited.array_options.saving.min_slice_bytes_for_replica_parallel = 2**24
save("warm", limited)
few, quick_s = save("limited", limited)
many, slow_s = save("default", ocp.Context())
print(f"the first save compiles {many} programs; with the limit, {few}")
print(f"it takes {slow_s / quick_s:.0f} times as long", file=sys.stderr)
assert (many, few) == (96, 0), "it has changed"
PYTHON
