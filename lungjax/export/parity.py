"""Whether what was written answers as the original does: asked in a process of its own, by what its user would have."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lungjax.errors import InputError

SCRIPTS = Path(__file__).parent / "roundtrip"
TIMEOUT_S = 900
_OF_ONE = ("probability", "attention")


def ask(script: str, folder: Path, asked: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Runs a script of `lungjax/export/roundtrip` on a CPU, with nothing on its path but what is installed.

    Args:
      script: its name.
      folder: what was exported.
      asked: inputs by `BATCH.NAME`.

    Returns:
      What it says.

    Raises:
      InputError: it fails.
    """
    with tempfile.TemporaryDirectory() as holder:
        files = Path(holder) / "asked.npz", Path(holder) / "said.npz"
        np.savez(files[0], **asked)  # pyright: ignore[reportArgumentType]
        command = [sys.executable, "-I", SCRIPTS / f"{script}.py", folder.absolute(), *files]
        environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
        done = subprocess.run(
            command, env=environment, cwd=holder, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
        if done.returncode:
            why = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            raise InputError(f"{folder.name}: the exported network cannot be run in a fresh process ({why[-1]}).")
        with np.load(files[1]) as found:
            return dict(found)


def difference(said: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray]) -> float:
    """The greatest difference between two answers; of what is no probability, in units of its largest value.

    Infinite where shapes or names differ or a value is no number.
    """
    if {k: v.shape for k, v in said.items()} != {k: v.shape for k, v in wanted.items()}:
        return np.inf
    found = []
    for name, value in wanted.items():
        unit = 1.0 if name.split(".")[-1] in _OF_ONE else np.abs(value).max()
        found.append(float(np.abs(said[name] - value).max() / unit))
    return max(found) if np.isfinite(found).all() else np.inf
