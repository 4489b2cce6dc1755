"""Training runs in processes of their own, as a user starts them."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from lungjax.tasks.task import Config

ROOT = Path(__file__).parents[2]
SMALL = (
    "--config.data.batch_size=8",
    "--config.model.encoder.width=8",
    "--config.data.crop_px=64",
    "--config.log_every=1",
    "--config.data.slices=all",
)


def command(config: str, workdir: Path, data: Path, *extra: str) -> list[str]:
    decoder = ("--config.model.decoder=(16,8,8)",) if "segment" in config else ()
    return [
        sys.executable,
        "-m",
        "lungjax.main",
        f"--config={ROOT / 'configs' / config}",
        f"--workdir={workdir}",
        f"--config.data.path={data}",
        *SMALL,
        *decoder,
        *extra,
    ]


def load(path: Path) -> Any:
    """The module of a file of configs/ or scripts/."""
    spec = importlib.util.spec_from_file_location(f"{path.parent.name}_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load_config(name: str, variant: str = "quick") -> Config:
    """A variant of `configs/NAME.py`."""
    return load(ROOT / "configs" / f"{name}.py").get_config(variant)


def small_config(name: str, data: Path) -> Config:
    """The same run as `command` starts, for the test's own process."""
    config = load_config(name)
    config.data.path = str(data)
    config.data.batch_size = 8
    config.data.slices = "all"
    config.model.encoder.width = 8
    config.data.crop_px = 64
    if name == "segment":
        config.model.decoder = (16, 8, 8)
    return config


def environment() -> dict[str, str]:
    """One CPU device; compiled as the tests' own process does, for such runs are short."""
    kept = {k: v for k, v in os.environ.items() if k != "JAX_NUM_CPU_DEVICES"}
    return {**kept, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}


def run(args: list[str], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(args, env=env, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)


def logged_steps(workdir: Path) -> list[int]:
    path = workdir / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line)["step"] for line in lines if line.endswith("}")]


def run_until(args: list[str], env: dict[str, str], workdir: Path, step: int, how: signal.Signals) -> int:
    """Starts a run and sends it `how` once it has logged `step`; returns its exit code.

    The run alone gets the signal; what it has started must end with it, within seconds.
    """
    said = workdir.parent / "stderr.txt"
    with said.open("w") as stderr:  # Not a pipe, which would stay open as long as any worker lives.
        process = subprocess.Popen(
            args, env=env, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=stderr, start_new_session=True
        )
    try:
        end = time.monotonic() + 600
        while max(logged_steps(workdir), default=0) < step:
            assert process.poll() is None, f"the run ended before step {step}: {said.read_text()}"
            assert time.monotonic() < end, f"the run is slow to reach step {step}: {said.read_text()}"
            time.sleep(0.01)
        process.send_signal(how)
        code = process.wait(timeout=120)
        end = time.monotonic() + 10
        while left := alive(session=process.pid):
            assert time.monotonic() < end, f"still alive after {how.name}: {left}"
            time.sleep(0.05)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return code


def alive(*, session: int) -> dict[int, str]:
    """Processes of a session that still run, with their command lines; a zombie does not."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, _parent, _group, of = (process / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(of) == session and state != "Z":
                found[int(process.name)] = (process / "cmdline").read_text().replace("\0", " ")
    return found
