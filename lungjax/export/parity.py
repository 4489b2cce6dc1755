"""Whether an exported network predicts as the original does: run in a fresh process, with the software of its users."""

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
_ABSOLUTE = ("probability", "attention")


def run_script(script: str, folder: Path, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Runs a script of `lungjax/export/roundtrip` on a CPU, in an isolated Python with the installed packages.

    Args:
      script: the script's name.
      folder: the exported folder.
      inputs: by `BATCH.NAME`.

    Returns:
      The outputs, by `BATCH.NAME`.

    Raises:
      InputError: the script fails.
    """
    with tempfile.TemporaryDirectory() as holder:
        files = Path(holder) / "inputs.npz", Path(holder) / "outputs.npz"
        np.savez(files[0], **inputs)  # pyright: ignore[reportArgumentType]
        command = [sys.executable, "-I", SCRIPTS / f"{script}.py", folder.absolute(), *files]
        environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
        done = subprocess.run(
            command, env=environment, cwd=holder, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            raise InputError(f"{folder.name}: the exported network cannot be run in a fresh process ({lines[-1]}).")
        with np.load(files[1]) as outputs:
            return dict(outputs)


def difference(outputs: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> float:
    """The greatest difference between outputs; relative to the largest value, except for probabilities and attention.

    Infinite where names or shapes differ or a value is not finite.
    """
    if {k: v.shape for k, v in outputs.items()} != {k: v.shape for k, v in expected.items()}:
        return np.inf
    differences = []
    for name, value in expected.items():
        unit = 1.0 if name.split(".")[-1] in _ABSOLUTE else np.abs(value).max()
        differences.append(float(np.abs(outputs[name] - value).max() / unit))
    return max(differences) if np.isfinite(differences).all() else np.inf
