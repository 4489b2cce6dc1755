"""Small sources written on the spot, for tests that need a fault or a value of their own."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import source_files

from lungjax.lidc import annotations
from lungjax.lidc.annotations import ScanRow

WriteCt = Callable[..., list[Path]]


@pytest.fixture
def tree(kaggle_tree: Path, tmp_path: Path) -> Path:
    """Three patients, four nodules."""
    root = tmp_path / "source"
    for number in (9000, 9001, 9002):
        shutil.copytree(kaggle_tree / "LIDC-IDRI-slices" / f"LIDC-IDRI-{number}", root / f"LIDC-IDRI-{number}")
    return root


@pytest.fixture(scope="session")
def write_ct() -> WriteCt:
    """`write_ct(folder, stored, z_mm=..., tags=...)` writes one series."""
    return source_files.write_ct


@pytest.fixture(scope="session")
def rows() -> list[ScanRow]:
    """Every scan of the database."""
    return annotations.all_scans()


@pytest.fixture(scope="session")
def write_scan() -> WriteCt:
    """Writes a scan of the database where it says its slices are, on a smaller matrix of the same field."""
    return source_files.write_scan
