"""`lungjax predict` of many scans in several processes: the same bytes, also when one of them is killed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import chests
import nibabel
import numpy as np
import pytest
from dask_fixtures import wait_for

from lungjax import cli

SCANS = 5
PATIENCE_S = 240.0
MADE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00")
"""When a report was made: all that may differ."""
PREDICT = """
import sys
from pathlib import Path
from lungjax.prediction.run import predict
if __name__ == "__main__":
    source, model, out = map(Path, sys.argv[1:4])
    others = dict.fromkeys(("candidate_classifier", "nodule_classifier", "patient_classifier"))
    dask = sys.argv[5] if len(sys.argv) > 5 else None
    print(predict(source, model=model, out=out, threshold=0.5, workers=int(sys.argv[4]), dask=dask, **others).text())
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chests.export_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Chests as NIfTI, their nodules in different places."""
    folder = tmp_path_factory.mktemp("chests")
    for number in range(SCANS):
        hu = chests.chest(balls=[((12 + 3 * number, 60, 38 + 54 * (number % 2)), 6.0 + number)])
        image = nibabel.Nifti1Image(hu.T, np.diag([-2.5, -2.5, 5.0, 1.0]))
        image.header.set_xyzt_units("mm")
        image.to_filename(folder / f"case-{number}.nii.gz")
    return folder


@pytest.fixture(scope="module")
def alone(source: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What one process writes."""
    out = tmp_path_factory.mktemp("alone") / "out"
    said, code = finished(start(source, model, out, 1))
    assert code == 0, said
    written = contents(out)
    assert len(written) == 5 * SCANS
    assert len({written[name] for name in written if name.endswith("mask.nii.gz")}) == SCANS, "all masks are different"
    return written


def start(source: Path, model: Path, out: Path, workers: int, *dask: str) -> subprocess.Popen:
    command = [sys.executable, "-c", PREDICT, *map(str, (source, model, out, workers)), *dask]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finished(run: subprocess.Popen) -> tuple[str, int]:
    """What it said, and its exit code."""
    try:
        said, _ = run.communicate(timeout=PATIENCE_S)
    finally:
        run.kill()
    return said, run.returncode


def contents(out: Path) -> dict[str, str]:
    """Every file's bytes as Latin-1, by its path; without the moments at which reports were made."""
    paths = sorted(path for path in out.rglob("*") if path.is_file())
    return {str(path.relative_to(out)): MADE.sub("", path.read_bytes().decode("latin-1")) for path in paths}


def worker_processes(parent: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            is_child = int(stat.read_text().rsplit(")", 1)[1].split()[1]) == parent
            if is_child and "spawn_main" in (stat.parent / "cmdline").read_text():
                found.append(int(stat.parent.name))
        except OSError:
            continue
    return sorted(found)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are found in /proc, which only Linux has")
def test_a_worker_killed_in_the_middle_changes_no_byte(
    source: Path, model: Path, alone: dict[str, str], tmp_path: Path
):
    out = tmp_path / "out"
    run = start(source, model, out, 2)
    wait_for(lambda: bool(list(out.glob("case-*/report.json"))) or run.poll() is not None, patience_s=PATIENCE_S)
    done = len(list(out.glob("case-*")))
    workers = worker_processes(run.pid)
    assert (len(workers), 1 <= done < SCANS) == (2, True), "both are at work"
    os.kill(workers[0], signal.SIGKILL)
    said, code = finished(run)
    assert code == 0, said
    assert contents(out) == alone
    assert sorted(path.name for path in out.iterdir()) == [f"case-{number}" for number in range(SCANS)]
    assert "it/s" not in said
    assert "%|" not in said  # No bar where nobody watches.
    assert [line.split(":")[0] for line in said.splitlines() if line.startswith("/")] == [
        str(out / f"case-{number}") for number in range(SCANS)
    ]


@pytest.mark.exhaustive
def test_a_dask_worker_killed_in_the_middle_changes_no_byte(
    source: Path, model: Path, alone: dict[str, str], tmp_path: Path, dask: tuple[str, list[subprocess.Popen]]
):
    address, workers = dask
    out = tmp_path / "there" / "out"
    run = start(source, model, out, 1, address)
    wait_for(lambda: bool(list(out.glob("case-*/report.json"))) or run.poll() is not None, patience_s=PATIENCE_S)
    assert 1 <= len(list(out.glob("case-*"))) < SCANS, "the worker is killed in the middle"
    workers[0].send_signal(signal.SIGKILL)
    said, code = finished(run)
    assert code == 0, said
    assert workers[1].poll() is None
    assert contents(out) == alone


def test_what_is_finished_is_not_done_again(source: Path, model: Path, alone: dict[str, str], tmp_path: Path):
    """Of a run that was killed, scans and halves of scans lie there; the rest is done by two processes."""
    out = tmp_path / "out"
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "case-2.nii.gz").symlink_to(source / "case-2.nii.gz")
    said, code = finished(start(tmp_path / "one", model, out / "case-2", 1))
    assert code == 0, said
    kept = {path: path.stat().st_mtime_ns for path in (out / "case-2").iterdir()}
    half = out / ".case-3.lungjax-abcd1234" / "case-3"
    half.mkdir(parents=True)
    (out / ".case-3-20260101").mkdir()  # The user's own.
    (half / "nodules.csv").write_text("number")
    run = start(source, model, out, 2)
    said, code = finished(run)
    assert code == 0, said
    assert "there already: 1 scan" in said
    assert {path: path.stat().st_mtime_ns for path in (out / "case-2").iterdir()} == kept
    assert not half.parent.exists()
    assert (out / ".case-3-20260101").is_dir()
    others = {name: text for name, text in alone.items() if not name.startswith("case-2/")}
    assert {name: text for name, text in contents(out).items() if not name.startswith("case-2/")} == others


def test_a_faulty_scan_stops_no_other(source: Path, model: Path, alone: dict[str, str], tmp_path: Path):
    faulty, out = tmp_path / "faulty", tmp_path / "out"
    faulty.mkdir()
    for number in range(3):
        (faulty / f"case-{number}.nii.gz").write_bytes((source / f"case-{number}.nii.gz").read_bytes())
    whole = (faulty / "case-1.nii.gz").read_bytes()
    (faulty / "case-1.nii.gz").write_bytes(whole[: len(whole) // 2])
    run = start(faulty, model, out, 2)
    said, code = finished(run)
    assert code == 0, said
    assert sorted(path.name for path in out.iterdir()) == ["case-0", "case-2", "quarantine.jsonl"]
    (line,) = (out / "quarantine.jsonl").read_text().splitlines()
    assert json.loads(line)["key"] == "case-1"
    assert "case-1" in said


def test_two_scans_of_a_patient_have_no_workers(tmp_path: Path, capsys: pytest.CaptureFixture):
    a, b, out = str(tmp_path / "a"), str(tmp_path / "b"), str(tmp_path / "out")
    assert cli.main(["predict", a, b, "--same-patient", "--out", out, "--workers", "2"]) == 2
    assert "leave out --workers and --dask" in capsys.readouterr().err
