#!/usr/bin/env bash
# The program of a sharded step on CPU devices has no reduce-scatter: gradients are all-reduced whole.
#
# Versions:  jax 0.10.2, jaxlib 0.10.2, 8 CPU devices made by `jax_num_cpu_devices`.
# Behaviour: a weight is sharded over the devices, its gradient as well, and the batch is split (FSDP). Each device needs an
#            eighth of the summed gradient, for which accelerators have a reduce-scatter. XLA's CPU compiler all-reduces the
#            whole gradient and slices it. So who counts the bytes between devices on made-up CPU devices, as is usual before a
#            run on many, counts nearly twice what a ring needs for gradients.
# Seen:      all-reduce of all 1024 x 512 yes, reduce-scatter no, gradient on each device (128, 512)
#
# Needs Python 3.11 to 3.13 (PYTHON=... chooses it) and a package index. Exits non-zero when this has changed.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2
cat > "$folder/run.py" <<'PYTHON'
import re

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_platforms", "cpu")
mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
split = NamedSharding(mesh, PartitionSpec("data"))


def gradient(weight, batch):
    return jax.grad(lambda weight: jnp.sum(jnp.tanh(batch @ weight)))(weight)


weight, batch = jnp.ones((1024, 512)), jnp.ones((64, 1024))
program = jax.jit(gradient, in_shardings=(split, split), out_shardings=split).lower(weight, batch).compile()
text = program.as_text()
whole = re.search(r"= f32\[(1024,512|512,1024)\]\S* all-reduce(-start)?\(", text) is not None
scatter = "reduce-scatter" in text
shard = program(jax.device_put(weight, split), jax.device_put(batch, split)).addressable_shards[0].data.shape
say = {True: "yes", False: "no"}
print(f"all-reduce of all 1024 x 512 {say[whole]}, reduce-scatter {say[scatter]}, gradient on each device {shard}")
PYTHON
seen="$("$folder/venv/bin/python" "$folder/run.py" 2>"$folder/said")"
echo "$seen"
[ "$seen" = "all-reduce of all 1024 x 512 yes, reduce-scatter no, gradient on each device (128, 512)" ]
[ ! -s "$folder/said" ]
