"""What the loader costs beside reading and decoding, and that its memory does not grow: ratios within one run."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from lungjax.data import loader, shards
from lungjax.preparation import phantom
from lungjax.preparation.run import prepare

SIDE_PX, BATCH = 512, 8


@pytest.fixture(scope="module")
def large_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("large")
    phantom.write(folder / "dicom", scans=1, seed=0, matrix=SIDE_PX)
    prepare(folder / "dicom", folder / "prepared", workers=1)
    return folder / "prepared"


@pytest.mark.slow
def test_most_of_its_processor_time_is_reading_and_decoding(large_dataset: Path):
    dataset = shards.open_dataset(large_dataset)
    slices = loader.Slices(dataset, crop_px=0, crop_at="random")
    rows, number = np.arange(len(dataset)), 10
    shares = []
    for seed in range(3):
        order = np.random.default_rng(seed).integers(0, len(rows), (number, BATCH))
        began = time.process_time()
        for chosen in order:
            dataset.pixels(chosen)
        alone_s = time.process_time() - began
        began = time.process_time()
        with contextlib.closing(loader.train_batches(slices, rows, batch_size=BATCH, seed=seed, workers=0)) as batches:
            for _ in range(number):
                next(batches)
        shares.append(alone_s / (time.process_time() - began))
    assert max(shares) > 0.5, shares


MEMORY = """
import sys
import numpy as np
from lungjax.data import loader, shards

def resident():
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))

dataset = shards.open_dataset(sys.argv[1])
rows = np.arange(len(dataset))
slices = loader.Slices(dataset, crop_px=0, crop_at="random")
batches = loader.train_batches(slices, rows, batch_size=int(sys.argv[2]), seed=0, workers=0)
for _ in range(3):
    for _ in range(max(len(rows) // int(sys.argv[2]), 30)):
        next(batches)
    print(resident())
batches.close()
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_its_memory_is_flat_over_three_epochs(large_dataset: Path):
    command = [sys.executable, "-c", MEMORY, str(large_dataset), str(BATCH)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    first, _, third = map(int, done.stdout.split())
    assert third < 1.1 * first
