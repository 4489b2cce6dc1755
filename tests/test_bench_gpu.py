"""The benchmark on a GPU, tried on a CPU at a small size: its processes, their limits, its FLOPs, its table."""

from __future__ import annotations

import importlib
import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
import runs

sys.path.insert(0, str(runs.ROOT / "scripts"))  # Where its modules find each other.
bench: Any = importlib.import_module("bench_gpu")
WITHOUT_TORCH = importlib.util.find_spec("torch") is None


def python(code: str) -> list[str]:
    return [sys.executable, "-c", f"import sys, time; sys.stdin.readline(); {code}"]


def run(folder: Path, commands: dict[str, list[str]], *, limit_s: float = 60, minutes: float = 5) -> dict[str, Any]:
    ends_at = time.monotonic() + 60 * minutes
    return {line["contender"]: line for line in bench.run(commands, folder=folder, limit_s=limit_s, ends_at=ends_at)}


def test_a_contender_that_fails_or_takes_too_long_is_a_line_and_the_rest_go_on(tmp_path: Path):
    commands = {
        "fails": python("sys.exit('no such device')"),
        "says nothing": python("pass"),
        "hangs": python("import subprocess; subprocess.run(['sleep', '300'])"),
        "works": python("print('a word'); print('{\"ms\": 2.5}')"),
    }
    found = run(tmp_path, commands, limit_s=10)
    assert [*found] == [*commands]
    assert found["fails"]["problem"].startswith("failed with exit code 1: no such device; see ")
    assert "it said nothing" in found["says nothing"]["problem"]
    assert found["hangs"]["problem"] == "ended: it took longer than its limit of 10 s"
    assert found["works"]["ms"] == 2.5
    assert "problem" not in found["works"]


def test_what_there_was_no_time_for_is_named(tmp_path: Path):
    commands = {"slow": python("time.sleep(300)"), "second": python("print({})"), "third": python("print({})")}
    found = run(tmp_path, commands, minutes=0.05)
    assert "what was left of the time of all" in found["slow"]["problem"]
    assert found["second"]["problem"] == found["third"]["problem"] == "not begun: the time of all was over"


def test_flops_are_those_of_the_products():
    def function(x: jax.Array, kernel: jax.Array, matrix: jax.Array) -> jax.Array:
        y = jax.lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return jax.nn.relu(jax.jit(lambda y: y @ matrix)(y))

    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((3, 8, 8, 5), (3, 3, 5, 7), (7, 11))]
    assert bench.product_flops(jax.make_jaxpr(function)(*shapes).jaxpr) == 2 * 3 * 16 * (9 * 5 * 7 + 7 * 11)


@pytest.mark.skipif(WITHOUT_TORCH, reason="PyTorch is not installed")
@pytest.mark.parametrize("name", ["segment:slices_gpu, float32", "segment", "simclr"])
def test_the_networks_in_pytorch_have_our_parameters_and_flops(name: str):
    import torch  # pyright: ignore[reportMissingImports]

    workload = bench.WORKLOADS[name]
    config = workload.read()
    mine = bench.described(config, workload)
    with torch.device("meta"):
        network = bench.torch_network(config)
        image = torch.zeros(1, 1, mine["side_px"], mine["side_px"])
    biases = 0 if config.task == "pretrain" else 3 * sum(config.model.decoder)  # See `torch_networks.UNet`.
    assert sum(p.numel() for p in network.parameters()) == mine["parameters"] - biases
    images = mine["batch"] * (2 if config.task == "pretrain" else 1)
    assert 3 * images * bench.torch_forward_flops(network, image) == mine["flops"]


def test_the_table_compares_with_ours(tmp_path: Path):
    line = {"flops": 2e12, "batch": 8, "side_px": 32, "parameters": 10**6, "memory_bytes": 2**30, "process_s": 1.0}
    found = [
        {"contender": bench.PEAK, "device": "a GPU", "platform": "gpu", "flops_per_s": 1e15, "bytes_per_s": 1e12},
        {**line, "contender": f"segment: {bench.HOST}", "ms": 8.0, "augmentation_ms": 1.5},
        {**line, "contender": f"segment: {bench.DEVICE}", "ms": 5.0},
        {**line, "contender": "segment: PyTorch, eager", "ms": 20.0},
        {"contender": "segment: PyTorch, torch.compile", "problem": "failed"},
    ]
    rows = bench.table({line["contender"]: line for line in found}).splitlines()
    eager = next(row for row in rows if row.startswith("PyTorch, eager"))
    assert eager.split()[2:] == ["20", "400", "100", "10.0%", "1", "2.50", "4.00"]
    assert any(row.split() == ["PyTorch,", "torch.compile", "failed"] for row in rows)
    (tmp_path / bench.RESULTS).write_text("\n".join(json.dumps({**line, "about": "here"}) for line in found))
    assert len(bench.read_results(tmp_path, "here")) == 4  # What failed is tried again.
    with pytest.raises(ValueError, match="measured on here, and this is there"):
        bench.read_results(tmp_path, "there")


def bench_tiny(out: Path, *flags: str) -> tuple[str, dict[str, Any]]:
    limits = ("--minutes=30", "--limit-s=500")
    command = [sys.executable, "scripts/bench_gpu.py", "--tiny", f"--out={out}", *limits, *flags]
    done = subprocess.run(command, cwd=runs.ROOT, env=runs.environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (out / bench.RESULTS).read_text().splitlines()]
    return done.stdout, {line["contender"]: line for line in lines}


def check_measured(found: dict[str, Any]) -> None:
    for name, line in found.items():
        assert "problem" not in line, f"{name}: {line['problem']}"
        assert name == bench.PEAK or line["ms"] > 0


@pytest.mark.slow
def test_the_trainer_is_timed_and_a_second_run_goes_on(tmp_path: Path):
    text, found = bench_tiny(tmp_path, f"--only=segment: {bench.DEVICE}")
    assert found.keys() == {bench.PEAK, f"segment: {bench.DEVICE}"}
    check_measured(found)
    assert ("PyTorch is not installed" in text) == WITHOUT_TORCH
    again, known = bench_tiny(tmp_path, f"--only=segment: {bench.DEVICE}")
    assert known == found
    assert again.splitlines()[-3:] == text.splitlines()[-3:]


@pytest.mark.exhaustive
def test_every_contender_is_timed(tmp_path: Path):
    _, found = bench_tiny(tmp_path)
    kinds = [bench.HOST, bench.DEVICE, *(() if WITHOUT_TORCH else bench.TORCH)]
    assert found.keys() == {bench.PEAK, *(f"{workload}: {kind}" for workload in bench.WORKLOADS for kind in kinds)}
    check_measured(found)
