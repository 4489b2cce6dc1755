"""What the tests of preparation do to sources and data sets."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from lungjax.preparation.run import prepare


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def break_one(tree: Path) -> None:
    (tree / "LIDC-IDRI-9001/nodule-0/mask-0/slice-0.png").write_bytes(b"no png")


def renames_before(limit: int, monkeypatch: pytest.MonkeyPatch, run) -> bool:
    """Runs until rename number `limit`, which fails as if the process had been killed there; True if it ran through.

    Renames are the only moments at which something comes to count as done.
    """
    count = itertools.count()
    replace = Path.replace

    def failing(self, target):
        if next(count) == limit:
            raise KeyboardInterrupt
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", failing)
        try:
            run()
        except KeyboardInterrupt:
            return False
        return True


def begin(tree: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not renames_before(5, monkeypatch, lambda: prepare(tree, out, workers=1))
