"""Disks that are full, for real: a tmpfs with so many pages, or so many files, and no more."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

PAGE_KB = 4
"""What a tmpfs takes at a time: a write fails where it needs a page more than there are."""
ROOMY = (200_000, 100_000)
"""Kilobytes and files of a disk with enough room."""


class Disk:
    """A mounted tmpfs.

    Attributes:
      folder: where it is mounted.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir()
        self.resize(*ROOMY, remount=False)

    def resize(self, kilobytes: int = ROOMY[0], files: int = ROOMY[1], *, remount: bool = True) -> None:
        """Changes its room; `files` counts folders, and the disk itself as one."""
        options = f"{'remount,' if remount else ''}size={kilobytes}k,nr_inodes={files}"
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.folder)]
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        if made.returncode and not remount:
            pytest.skip("only root can mount a small disk")
        assert not made.returncode, made.stderr

    def clear(self) -> None:
        """Removes all that is on it."""
        for path in self.folder.iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    made = Disk(tmp_path / "disk")
    yield made
    subprocess.run(["umount", made.folder], check=True)
