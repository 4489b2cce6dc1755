"""`scripts/demo.sh` as its user meets it, with commands in place of lungjax that do nothing or fail."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"


def demo(root: Path, *, failing: str, folder: str | None = None) -> subprocess.CompletedProcess[str]:
    """Runs the demo in `root`, where every command succeeds but one that has the word `failing` in it."""
    (root / "scripts").mkdir()
    shutil.copy(SCRIPTS / "demo.sh", root / "scripts")
    (root / "scripts" / "setup.sh").write_text('set -euo pipefail\ncd "$(dirname "${BASH_SOURCE[0]}")/.."\n')
    (root / ".venv" / "bin").mkdir(parents=True)
    for name in ("lungjax", "python"):
        stub = root / ".venv" / "bin" / name
        stub.write_text(f'#!/bin/sh\ncase "$*" in *"{failing}"*) exit 2;; esac\n')
        stub.chmod(0o755)
    env = {name: value for name, value in os.environ.items() if name != "DEMO_DIR"}
    env |= {"DEMO_DIR": folder} if folder else {}
    args = ["bash", str(root / "scripts" / "demo.sh")]
    return subprocess.run(args, env=env, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("failing", ["phantom --scans", "prepare --source", "configs/simclr.py", "configs/segment.py"])
def test_a_demo_that_stops_says_what_to_do(tmp_path: Path, failing: str):
    done = demo(tmp_path, failing=failing)
    assert done.returncode == 2
    assert "remove it, or set DEMO_DIR to a new folder" in done.stderr.strip().splitlines()[-1]
    assert "workdir/demo" in done.stderr


def test_a_demo_that_ends_well_says_where_to_look(tmp_path: Path):
    done = demo(tmp_path, failing="nothing at all", folder="elsewhere")
    assert (done.returncode, done.stderr) == (0, "")
    assert "elsewhere/segment/plots/" in done.stdout
