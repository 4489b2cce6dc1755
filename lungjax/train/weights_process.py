"""Writes weights as an Orbax checkpoint, in a process of its own: `python -m lungjax.train.weights_process FOLDER`.

Where a file cannot be written, Orbax raises an error while TensorStore goes on writing others in the background, and
makes their folders again if they were removed meanwhile. Only the end of the process is the end of that.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import flax.traverse_util
import numpy as np


def write_weights(variables: dict[str, Any], path: Path) -> None:
    """Writes {"params", "model_state"} as a checkpoint of its own, for `ocp.load(path)`; `path` must not exist.

    Raises:
      OSError: the disk is full, or `path` cannot be written; nothing is written there any more.
    """
    packed = io.BytesIO()
    flat = flax.traverse_util.flatten_dict(variables, sep="/")
    np.savez(packed, **{name: np.asarray(value) for name, value in flat.items()})  # pyright: ignore[reportArgumentType]
    done = subprocess.run(
        [sys.executable, "-I", "-m", "lungjax.train.weights_process", path.absolute()],
        input=packed.getvalue(),
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        check=False,
    )
    if done.stdout:
        number = int(done.stdout)
        raise OSError(number, os.strerror(number), str(path))
    if done.returncode:
        raise RuntimeError(f"{path}: Orbax cannot write it:\n{done.stderr.decode(errors='replace')}")


def _main(path: Path) -> None:
    from lungjax.train import checkpoint

    with np.load(io.BytesIO(sys.stdin.buffer.read())) as flat:
        variables = flax.traverse_util.unflatten_dict(dict(flat), sep="/")
    try:
        checkpoint.write_weights(variables, path)
    except OSError as error:
        if error.errno is None:
            raise
        print(error.errno, flush=True)
        os._exit(1)  # At once, whatever TensorStore has still to write.


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
