#!/usr/bin/env bash
# Orbax loads a checkpoint into other dtypes, and into NumPy arrays of other shapes, without a word.
#
# Versions:  orbax-checkpoint 0.12.8 (`orbax.checkpoint.v1`), jax 0.10.2, numpy 2.4.6, CPU.
# Behaviour: where the abstract tree asks for another dtype than was saved, values are cast, also where they do not fit:
#            float32 to int8 drops fractions, int32 to uint8 wraps around. Where it asks for another shape, a
#            `jax.ShapeDtypeStruct` raises ValueError, but a NumPy array gets the stored shape. So a tree of a network
#            that has changed is no check of a checkpoint: compare with the metadata first.
# Seen:      [1.75, -0.5] float32 as int8: [1, 0]
#            [300, -1] int32 as uint8: [44, 255]
#            shape (2,) into jax.ShapeDtypeStruct((5,)): ValueError
#            shape (2,) into numpy.empty(5): (2,)
#
# Needs Python 3.11 to 3.13 (PYTHON=... chooses it) and a package index. Exits non-zero when this has changed.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    orbax-checkpoint==0.12.8 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cat > "$folder/run.py" <<'PYTHON'
import sys

import jax
import jax.numpy as jnp
import numpy as np
from orbax.checkpoint import v1 as ocp

path = sys.argv[1]
ocp.save(path, {"x": jnp.array([1.75, -0.5], jnp.float32), "n": jnp.array([300, -1], jnp.int32)})
device = jax.sharding.SingleDeviceSharding(jax.devices()[0])


def abstract(x_shape, x_dtype, n_dtype):
    return {
        "x": jax.ShapeDtypeStruct(x_shape, x_dtype, sharding=device),
        "n": jax.ShapeDtypeStruct((2,), n_dtype, sharding=device),
    }


loaded = ocp.load(path, abstract((2,), jnp.int8, jnp.uint8))
print("[1.75, -0.5] float32 as int8:", loaded["x"].tolist())
print("[300, -1] int32 as uint8:", loaded["n"].tolist())
try:
    print("shape (2,) into jax.ShapeDtypeStruct((5,)):", ocp.load(path, abstract((5,), jnp.float32, jnp.int32))["x"].shape)
except ValueError:
    print("shape (2,) into jax.ShapeDtypeStruct((5,)): ValueError")
other = ocp.load(path, {"x": np.empty(5, np.float32), "n": np.empty(2, np.int32)})
print("shape (2,) into numpy.empty(5):", other["x"].shape)
PYTHON
seen="$("$folder/venv/bin/python" "$folder/run.py" "$folder/checkpoint" 2>/dev/null)"
echo "$seen"
[ "$seen" = "[1.75, -0.5] float32 as int8: [1, 0]
[300, -1] int32 as uint8: [44, 255]
shape (2,) into jax.ShapeDtypeStruct((5,)): ValueError
shape (2,) into numpy.empty(5): (2,)" ]
