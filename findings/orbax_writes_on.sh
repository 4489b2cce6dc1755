#!/usr/bin/env bash
# After Orbax has raised an error, TensorStore goes on writing, and makes a folder again that was removed meanwhile.
#
# Versions:  orbax-checkpoint 0.12.8 (`orbax.checkpoint.v1`), tensorstore 0.1.86, jax 0.10.2, numpy 2.4.6, CPU, Linux.
# Behaviour: `ocp.save` raises as soon as one file cannot be written (disk full, quota, a limit on file sizes), while
#            TensorStore's threads still write the other arrays, and wait for no one. Where the caller removes the
#            folder then, as `tempfile.TemporaryDirectory` does, a late write makes it again, all folders above it
#            included: the folder was seen to be gone, and is there again. How often that happens depends on the
#            machine: here in one of 10 saves, so up to 100 are tried. Write in a process of its own, and remove the
#            folder when that has ended.
# Seen:      save raises ValueError
#            the removed folder is gone, and there again
#
# Needs Python 3.11 to 3.13 (PYTHON=... chooses it) and a package index. Exits non-zero when this has changed.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    orbax-checkpoint==0.12.8 tensorstore==0.1.86 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cat > "$folder/run.py" <<'PYTHON'
import pathlib
import resource
import shutil
import sys
import time

import numpy as np
from orbax.checkpoint import v1 as ocp

generator = np.random.default_rng(0)
tree = {f"array_{i}": generator.standard_normal((64, 64)).astype(np.float32) for i in range(200)}
tree["too_large"] = generator.standard_normal((1024, 1024)).astype(np.float32)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # Bytes; Python turns the signal into an error.

for i in range(100):
    folder = pathlib.Path(sys.argv[1], str(i))
    folder.mkdir(parents=True)
    try:
        ocp.save(folder / "checkpoint", tree)
        raised = "nothing"
    except Exception as error:
        raised = type(error).__name__
    shutil.rmtree(folder, ignore_errors=True)
    gone = not folder.exists()
    time.sleep(1)
    if gone and folder.exists():
        break
print("save raises", raised)
print("the removed folder is gone, and there again" if gone and folder.exists() else "the removed folder stays away")
PYTHON
seen="$("$folder/venv/bin/python" "$folder/run.py" "$folder/checkpoints" 2>/dev/null)"
echo "$seen"
[ "$seen" = "save raises ValueError
the removed folder is gone, and there again" ]
