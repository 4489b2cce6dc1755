"""Commands start quickly: they load what they need alone, and the next training finds its programs compiled."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import runs

HEAVY = ("jax", "numpy", "pandas", "scipy", "matplotlib", "pydicom", "flax", "grain", "array_record")

TRAIN = """
import atexit, collections, json, sys
from lungjax import compiled
compiled.keep()
import jax
events = collections.Counter()
jax.monitoring.register_event_listener(lambda event, **_: events.update([event.rpartition("/")[2]]))
from lungjax import main
code = main.main(["lungjax", *sys.argv[1:]])
print(json.dumps({name: events[name] for name in ("cache_hits", "cache_misses")}))
sys.exit(code)
"""


@pytest.mark.parametrize("module", ["cli", "main"])
def test_help_loads_nothing_heavy(module: str, tmp_path: Path):
    code = f"""
import sys
from lungjax import {module}
try:
    {module}.main(["lungjax", "--help"][{int(module == "cli")}:])
except SystemExit as ended:
    assert not ended.code
print("loaded:", *(name for name in {HEAVY} if name in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].split() == ["loaded:"]


@pytest.mark.slow
@pytest.mark.parametrize("config", ["segment.py:quick", pytest.param("simclr.py", marks=pytest.mark.exhaustive)])
def test_a_training_compiles_nothing_again(config: str, phantom_dataset: Path, tmp_path: Path):
    """Every program that the first training compiled, the second one finds, in another workdir."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    environment |= {"XDG_CACHE_HOME": str(tmp_path), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    found = []
    for number in range(2):
        options = runs.command(config, tmp_path / str(number), phantom_dataset, "--config.steps=1")[3:]
        command = [sys.executable, "-c", TRAIN, *options]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout.splitlines()[-1]))
    first, second = found
    assert first["cache_misses"] > 0
    assert second["cache_misses"] == 0
    assert second["cache_hits"] >= first["cache_misses"]
