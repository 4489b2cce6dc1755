#!/usr/bin/env bash
# jax2onnx 0.17.1 cannot write a remainder for a batch of any size.
#
# Versions:  jax2onnx 0.17.1, jax and jaxlib 0.10.2.
# Behaviour: `to_onnx` takes a symbolic batch, `("B", 4)`, but where the function has a remainder (`x % 3`, `lax.rem`)
#            it raises InconclusiveDimensionOperation. A batch of fixed size is converted, and so are other operations of
#            a symbolic one.
# Seen:      x * 3 of (B, 4): converted
#            x % 3 of (2, 4): converted
#            x % 3 of (B, 4): InconclusiveDimensionOperation: Symbolic dimension 'B' used in a context that requires a
#            constant
#
# Needs Python 3.11 or later (PYTHON=... chooses it) and a package index. Exits non-zero when this has changed.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    jax2onnx==0.17.1 jax==0.10.2 jaxlib==0.10.2
cat > "$folder/run.py" <<'EOF'
import logging

import jax2onnx

logging.disable(logging.WARNING)
asked = {
    "x * 3 of (B, 4)": (lambda x: x * 3, ("B", 4)),
    "x % 3 of (2, 4)": (lambda x: x % 3, (2, 4)),
    "x % 3 of (B, 4)": (lambda x: x % 3, ("B", 4)),
}
said = []
for name, (function, shape) in asked.items():
    try:
        jax2onnx.to_onnx(function, [shape])
        said.append("converted")
    except Exception as error:
        said.append(f"{type(error).__name__}: {str(error).splitlines()[0]}")
    print(f"{name}: {said[-1]}")
wanted = "InconclusiveDimensionOperation: Symbolic dimension 'B' used in a context that requires a constant"
assert said == ["converted", "converted", wanted], "changed"
EOF
cd "$folder"
venv/bin/python -W ignore run.py
