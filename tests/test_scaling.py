"""What devices say to each other in a step: the collectives of the compiled program, and no others."""

from __future__ import annotations

import functools
import importlib.util
import json
import subprocess
import sys
from typing import Any

import pytest
import runs

from lungjax.errors import InputError

scaling = runs.load(runs.ROOT / "scripts" / "scaling.py")
SMALL = ("--config.model.encoder.width=8", "--config.data.crop_px=32")
SEGMENT = ("--config=configs/segment.py:quick", "--config.model.decoder=(16,8,8)", *SMALL)
SIMCLR = ("--config=configs/simclr.py:quick", *SMALL)
OUT = 64
"""Features of an embedding."""
WITH_LIBTPU = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed: no compiler for TPUs"
)


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
      %part.1 = f32[16]{0} all-gather(%v), channel_id=9, backend_config={"async_collective_fusion_config":{"flag":"2"}}
      %part.2 = f32[16]{0} all-gather(%w), channel_id=9, backend_config={"async_collective_fusion_config":{"flag":"8"}}
    """
    assert scaling.collectives(text) == {
        "all-reduce": {"count": 2, "bytes": 4 + 48 + 20 + 4},
        "all-gather": {"count": 2, "bytes": 64 + 64},
    }


PROGRAM = """HloModule step

%fused (p: f32[256]) -> f32[256] {
  %p = f32[256]{0} parameter(0)
  ROOT %within = f32[256]{0} negate(%p)
}

ENTRY %main (a: f32[256], b: bf16[64,2]) -> f32[256] {
  %a = f32[256]{0:T(256)} parameter(0)
  %b = bf16[64,2]{1,0:T(8,128)(2,1)} parameter(1)
  %copy-start = (bf16[64,2]{1,0:T(8,128)S(1)}, bf16[64,2]{1,0:T(8,128)}, u32[]{:S(2)}) copy-start(%b)
  %copy-done = bf16[64,2]{1,0:T(8,128)S(1)} copy-done(%copy-start)
  %slice-start = ((f32[256]{0:T(256)}), f32[16]{0:T(128)S(1)}, s32[]{:S(2)}) slice-start(%a), slice={[0:16]}
  %slice-done = f32[16]{0:T(128)S(1)} slice-done(%slice-start)
  %in_vmem = f32[256]{0:T(256)S(1)} fusion(%a, %copy-done, /*index=2*/%slice-done), kind=kLoop, calls=%fused
  ROOT %out = f32[256]{0:T(256)} fusion(%in_vmem), kind=kLoop, calls=%fused, metadata={op_name="step(x)"}
}
"""


def test_bytes_of_hbm_are_those_of_what_lies_there():
    copied, part, read, written = 64 * 2 * 2, 16 * 4, 256 * 4, 256 * 4
    assert scaling.hbm_bytes(PROGRAM) == copied + part + read + written
    with pytest.raises(ValueError, match=r"has a loop, loop\.1, whose bytes are not known"):
        scaling.hbm_bytes(PROGRAM.replace("ROOT %out", "%loop.1 = f32[256]{0} while(%a), body=%fused\n  ROOT %out"))


def test_a_step_takes_as_long_as_what_it_needs_most():
    moved = {"all-reduce": {"count": 1, "bytes": 800}, "all-gather": {"count": 1, "bytes": 80}}
    moved["reduce-scatter"] = {"count": 1, "bytes": 10}
    assert scaling.link_bytes(moved, 8) == 2 * 700 + 70 + 70
    step = {"devices": 8, "flops": 197e9, "hbm_bytes": 1638e6, "collectives": {"all-reduce": {"bytes": 8e8 / 7}}}
    assert scaling.predicted(step) == pytest.approx({"compute_ms": 1.0, "hbm_ms": 2.0, "link_ms": 1.0, "step_ms": 2.0})


@WITH_LIBTPU
@pytest.mark.slow
def test_a_step_is_compiled_for_tpus_that_are_not_there():
    found = step_of(8, *SIMCLR, "--topology=v5e:2x4")
    assert found["devices"] == 8
    assert found["collectives"].keys() <= {"all-reduce", "all-gather", "reduce-scatter"}
    assert found["hbm_bytes"] > 3 * 4 * found["parameters"]  # AdamW reads and writes them and its two moments.
    assert found["predicted"]["step_ms"] == max(found["predicted"].values()) > 0


def test_without_the_compiler_for_tpus_there_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.delenv("TPU_LIBRARY_PATH", raising=False)
    monkeypatch.setattr(scaling.jax.config, "update", lambda *_: None)  # This process has its devices.
    assert scaling.main(["scaling.py", "--predict"]) == 2
    assert capsys.readouterr() == (
        "",
        "scaling: error: --topology and --predict need the compiler for TPUs, which is missing: pip install libtpu\n",
    )


@WITH_LIBTPU
def test_a_topology_that_cannot_be_compiled_for_is_one_sentence():
    with pytest.raises(InputError, match=r"^--topology=v5e:3x3 cannot be compiled for \(.*; name one such as"):
        scaling.tpu_mesh("v5e:3x3")
