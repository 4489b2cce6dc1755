"""What devices say to each other in a step: the collectives of the compiled program, and no others."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from typing import Any

import pytest
import runs

scaling = runs.load(runs.ROOT / "scripts" / "scaling.py")
SMALL = ("--config.model.encoder.width=8", "--config.data.crop_px=32")
SEGMENT = ("--config=configs/segment.py:quick", "--config.model.decoder=(16,8,8)", *SMALL)
SIMCLR = ("--config=configs/simclr.py:quick", *SMALL)
OUT = 64
"""Features of an embedding."""


@functools.cache
def step_of(devices: int, *flags: str) -> dict[str, Any]:
    command = [sys.executable, "scripts/scaling.py", f"--devices={devices}", *flags]
    done = subprocess.run(command, cwd=runs.ROOT, env=runs.environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("devices", [8, pytest.param(256, marks=pytest.mark.slow)])
def test_a_segmenter_sums_its_gradients_and_little_else(devices: int):
    found = step_of(devices, *SEGMENT)
    assert found["collectives"].keys() == {"all-reduce"}
    assert found["collectives"]["all-reduce"]["count"] <= 3  # Sums of Dice and cross entropy, then the gradient.
    apart = found["collectives"]["all-reduce"]["bytes"] - 4 * found["parameters"]
    assert 0 < apart <= 64
    assert found["collectives"] == step_of(8, *SEGMENT)["collectives"]  # However many devices there are.


def test_pretraining_gathers_embeddings_and_moves_no_images():
    found = step_of(8, *SIMCLR)
    moved = found["collectives"]
    assert moved.keys() <= {"all-reduce", "all-gather", "reduce-scatter"}
    assert 0 <= moved["all-reduce"]["bytes"] - 4 * found["parameters"] <= 64 + 4 * 2 * 8 * OUT
    embeddings = 4 * 8 * OUT  # Bytes of one view's, of the whole batch.
    assert 2 * embeddings <= moved["all-gather"]["bytes"] <= 4 * embeddings
    assert moved.get("reduce-scatter", {"bytes": 0})["bytes"] <= embeddings


@pytest.mark.parametrize("devices", [8])
def test_sharded_parameters_are_gathered_where_they_are_used(devices: int):
    found = step_of(devices, *SEGMENT, "--config.mesh.parameters=sharded")
    moved = found["collectives"]
    assert "all-gather" in moved
    assert moved.keys() <= {"all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute"}
    # Parameters once forwards and once backwards, and gradients once, at the most.
    assert sum(kind["bytes"] for kind in moved.values()) <= 3.2 * 4 * found["parameters"]


def test_collectives_are_read_from_a_programs_text():
    text = """
      %all-reduce.1 = f32[] all-reduce(f32[] %x), channel_id=1, replica_groups={{0,1}}
      %big = (f32[3,4]{1,0}, f32[5]{0}, /*index=5*/bf16[2]{0}) all-reduce(%a, %b, /*index=5*/%c), channel_id=2
      ROOT %g = s32[8,2]{1,0} all-gather-start(s32[1,2]{1,0} %y), dimensions={0}
      %d = f32[] all-reduce-done(%z)
      %add = f32[7]{0} add(f32[7]{0} %p, f32[7]{0} %q)
    """
    assert scaling.collectives(text) == {
        "all-reduce": {"count": 2, "bytes": 4 + 48 + 20 + 4},
        "all-gather": {"count": 1, "bytes": 64},
    }
