#!/usr/bin/env bash
# jax2onnx 0.17.1 converts nothing that is jitted once jax is 0.12, though it asks for no older one.
#
# Versions:  jax2onnx 0.17.1, jax and jaxlib 0.12.0.1 (what `pip install jax2onnx` resolves to on Python 3.13).
# Behaviour: `to_onnx` of a jitted function, or of one that calls something jitted within JAX (`jax.nn.relu`, `%`),
#            raises AttributeError; the same without a jit is converted. With jax 0.10.2 all of them are.
# Seen:      x + 1: converted
#            jit(x + 1): AttributeError: module 'jax._src.core' has no attribute 'ClosedJaxpr'
#            relu: AttributeError: module 'jax._src.core' has no attribute 'ClosedJaxpr'
#
# Needs Python 3.12 or later (PYTHON=... chooses it) and a package index. Exits non-zero when this has changed.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    jax2onnx==0.17.1 jax==0.12.0.1 jaxlib==0.12.0.1
cat > "$folder/run.py" <<'EOF'
import logging

import jax
import jax2onnx

logging.disable(logging.WARNING)
functions = {"x + 1": lambda x: x + 1, "jit(x + 1)": jax.jit(lambda x: x + 1), "relu": jax.nn.relu}
said = {}
for name, function in functions.items():
    try:
        jax2onnx.to_onnx(function, [(2, 4)])
        said[name] = "converted"
    except AttributeError as error:
        said[name] = f"AttributeError: {error}"
    print(f"{name}: {said[name]}")
wanted = "AttributeError: module 'jax._src.core' has no attribute 'ClosedJaxpr'"
assert list(said.values()) == ["converted", wanted, wanted], "changed"
EOF
cd "$folder"
venv/bin/python -W ignore run.py
