"""Small sources written on the spot, for tests that need a fault or a value of their own."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import sources

WriteCt = Callable[..., list[Path]]


@pytest.fixture
def tree(kaggle_tree: Path, tmp_path: Path) -> Path:
    """Three patients, four nodules."""
    root = tmp_path / "source"
    for number in (9000, 9001, 9002):
        shutil.copytree(kaggle_tree / "LIDC-IDRI-slices" / f"LIDC-IDRI-{number}", root / f"LIDC-IDRI-{number}")
    return root


@pytest.fixture
def write_ct() -> WriteCt:
    """`write_ct(folder, stored, z_mm=..., tags=...)` writes one series."""
    return sources.write_ct
