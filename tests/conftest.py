"""Eight fake CPU devices, strict dtypes and ranks; data sets that many tests share."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import hypothesis
import jax
import numpy as np
import pytest
from PIL import Image

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
# What tests compute is small and compiled for once: the processes that they start compile as users do.
jax.config.update("jax_disable_most_optimizations", True)
# Nor are fused loops emitted by XLA's newer way, which takes longer to compile than all the rest.
os.environ["XLA_FLAGS"] = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"

IS_FIRST = "LUNGJAX_TESTS_COMPILED" not in os.environ
if IS_FIRST:
    os.environ["LUNGJAX_TESTS_COMPILED"] = tempfile.mkdtemp(prefix="lungjax-tests-compiled-")
COMPILED = os.environ["LUNGJAX_TESTS_COMPILED"]
"""Equal programs are compiled once a session, by whichever process of it comes first: most of the tests' time."""
for name, value in (
    ("jax_compilation_cache_dir", COMPILED),
    ("jax_persistent_cache_min_compile_time_secs", 0.0),
    ("jax_persistent_cache_min_entry_size_bytes", -1),
):
    jax.config.update(name, value)  # Before anything is compiled: JAX looks once.
    os.environ[name.upper()] = str(value)

# The same examples each time: a change is judged by itself. The exhaustive tests draw others.
hypothesis.settings.register_profile("same", derandomize=True)
hypothesis.settings.load_profile("same")

pytest_plugins = ("source_fixtures", "prediction_fixtures", "figure_fixtures", "dask_fixtures", "disks", "verbs")

LONG = (
    "test_end_to_end.py",
    "test_replicas.py",
    "test_mesh.py",
    "test_loop.py",
    "test_placement.py",
    "test_train_context.py",
    "test_shipped.py",
)
"""Files that take minutes: were one of them the last to begin, one core would wait for the other."""

KAGGLE_PATIENTS = 12
KAGGLE_SIDE_PX = 64


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONG)  # Stable: all else stays in its order.


def pytest_unconfigure() -> None:
    if IS_FIRST:
        shutil.rmtree(COMPILED, ignore_errors=True)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data; skips the test where there is none."""
    folder = os.environ.get("LUNGJAX_REAL_DATA")
    if not folder:
        pytest.skip("LUNGJAX_REAL_DATA is not set: no real data to test on")
    return Path(folder).resolve()


def write_kaggle_tree(root: Path, *, patients: int, side_px: int, seed: int = 0) -> Path:
    """A folder in the layout of the Kaggle LIDC set; nodules are bright disks on a noisy background.

    Patient p has 1 + p % 2 nodules of 4 slices; reader 3 never marks a patient's second nodule, and every
    reader's disk differs by a pixel or so in radius. Returns `root`.
    """
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side_px, :side_px]
    for patient in range(patients):
        for nodule in range(1 + patient % 2):
            folder = root / "LIDC-IDRI-slices" / f"LIDC-IDRI-{9000 + patient}" / f"nodule-{nodule}"
            row, column = rng.uniform(0.35, 0.65, 2) * side_px
            radius_px = rng.uniform(0.08, 0.16) * side_px
            for number in range(4):
                distance_px = np.hypot(rows - row, columns - column)
                here_px = radius_px * (1.0, 1.2, 1.1, 0.8)[number]
                image = 60 + 110 * (distance_px <= here_px) + rng.normal(0, 12, distance_px.shape)
                _save_png(folder / "images" / f"slice-{number}.png", image)
                for reader in range(4):
                    silent = reader == 3 and nodule == 1
                    mask = (distance_px <= here_px + (reader - 1.5) * 0.5) & (not silent)
                    _save_png(folder / f"mask-{reader}" / f"slice-{number}.png", 255.0 * mask)
    return root


def _save_png(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(values, 0, 255).astype(np.uint8)).save(path)


@pytest.fixture(scope="session")
def kaggle_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dozen made-up patients in the Kaggle layout; read-only, for tests share it."""
    root = tmp_path_factory.mktemp("kaggle")
    return write_kaggle_tree(root, patients=KAGGLE_PATIENTS, side_px=KAGGLE_SIDE_PX)


@pytest.fixture(scope="session")
def slices_dataset(kaggle_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`kaggle_tree`, prepared; read-only."""
    from lungjax.preparation.run import prepare

    out = tmp_path_factory.mktemp("prepared") / "slices"
    prepare(kaggle_tree, out, workers=1)
    return out


@pytest.fixture(scope="session")
def phantom_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two phantom scans of 128x128 through the very path real DICOM takes, prepared; read-only."""
    from lungjax.preparation import phantom
    from lungjax.preparation.run import prepare

    folder = tmp_path_factory.mktemp("phantom")
    phantom.write(folder / "dicom", scans=2, seed=0, matrix=128)
    prepare(folder / "dicom", folder / "prepared", workers=1)
    return folder / "prepared"
