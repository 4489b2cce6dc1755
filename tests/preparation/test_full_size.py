"""The awkward scans of the whole collection, and the largest: nothing lost, memory bounded by the worker."""

from __future__ import annotations

import collections
import functools
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lungjax.ct import series
from lungjax.lidc import annotations
from lungjax.lidc.annotations import ScanRow
from lungjax.preparation import pool
from lungjax.preparation.phantom import writer
from lungjax.preparation.run import prepare

DIFFERENCES = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "rehearsal.py"))["differences"]
PREPARE = """
import sys
from lungjax.preparation.run import prepare
prepare(sys.argv[1], sys.argv[2], workers=1)
print(*[line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")])
"""


def write(rows: list[ScanRow], folder: Path, *, matrix: int) -> None:
    tasks = [(row, folder / row.series_uid) for row in rows]
    collections.deque(pool.run(functools.partial(writer._write_series, seed=0, matrix=matrix), tasks, 2), maxlen=0)


@pytest.mark.slow
def test_patients_of_two_scans_and_uneven_scans_lose_nothing(tmp_path, capsys):
    everyone = annotations.all_scans()
    scans = collections.Counter(row.patient_id for row in everyone)
    rows = [row for row in everyone if scans[row.patient_id] == 2 or not series.is_even(row.z_mm)]
    assert len(rows) == 16 + 4
    write(rows, tmp_path / "dicom", matrix=32)
    assert prepare(tmp_path / "dicom", tmp_path / "data", workers=2).quarantined == {}
    assert DIFFERENCES(tmp_path / "data", rows) == []
    assert "20 scans" in (said := capsys.readouterr().out), said
    assert "8 patients have two scans" in said
    missing = DIFFERENCES(tmp_path / "data", everyone[:1] + rows)
    assert any("LIDC-IDRI-0078" in line for line in missing), "a scan that is not there is not missed"


@pytest.mark.slow
def test_the_longest_scan_fits_a_small_worker(tmp_path):
    longest = max(annotations.all_scans(), key=lambda row: len(row.z_mm))
    assert len(longest.z_mm) >= 700
    write([longest], tmp_path / "dicom", matrix=512)
    run = subprocess.run(
        [sys.executable, "-c", PREPARE, tmp_path / "dicom", tmp_path / "data"],
        capture_output=True,
        text=True,
        check=True,
    )
    peak_gib = int(run.stdout) / 2**20  # Not `ru_maxrss`, which begins with what the parent has.
    assert peak_gib < 1.5
    voxels_gib = 2 * np.prod([len(longest.z_mm), 512, 512]) / 2**30
    assert peak_gib > voxels_gib, "what was measured is not the process that prepared"
