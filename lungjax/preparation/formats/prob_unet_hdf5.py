"""The same crops as PHiSeg and CCDM keep them, `data_lidc.hdf5`, from which patients cannot be recovered.

    {train,val,test}/images  (n, 128, 128), in [0, 1] less 0.5
    {train,val,test}/labels  (n, 128, 128, 4) or (n, 4, 128, 128)
    {train,val,test}/uids    (n,): salted hashes of SeriesInstanceUIDs, others in every file

A hash tells slices of one series from others, not whose it is. So each series counts as a patient of its own, named
`unknown/<split>/<hash>`, the file's own split stands, and such data never meet data split by patient: see
`lungjax.data.splits`. Needs h5py (`pip install 'lungjax[hdf5]'`).
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from lungjax.ct import size_limits
from lungjax.ct.scan import READERS, Scan
from lungjax.ct.source import Check, Entry, Quarantined
from lungjax.data import splits
from lungjax.errors import Fault, InputError
from lungjax.preparation import pool as processes
from lungjax.preparation.formats import npy, unexamined
from lungjax.preparation.formats.bare import bare_scan, fractions

ONE_PROCESS = False
TELLS_PATIENTS = False
"""Prepared only where the user says that patients do not matter."""

Result = TypeVar("Result")

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_SHIFT = 0.5
_MOST_ROWS = 2**20
"""Four times all slices of LIDC-IDRI."""


def matches(source: Path) -> bool:
    """Whether this is an HDF5 file with images, labels and uids of a split."""
    try:
        with source.open("rb") as file:
            if file.read(len(_SIGNATURE)) != _SIGNATURE:
                return False
    except OSError:
        return False
    _require_h5py()
    return bool(_apart(_uids, source))


def find(source: Path) -> tuple[list[Entry], list[Quarantined]]:
    """Every series, by its hash; both lists sorted by key, which is `<split>/<hash>`.

    Quarantined are series that lie in two splits (`duplicate_series`).

    Raises:
      InputError: the file is damaged or has another layout; or h5py is not installed.
    """
    _require_h5py()
    uids = _apart(_uids, source)
    if not uids:
        raise InputError(f"{source} has no images, labels and uids in train, val or test; check --source and --format.")
    rows: dict[tuple[splits.Split, int], list[int]] = {}
    for split, held in uids.items():
        for row, uid in enumerate(held.tolist()):
            rows.setdefault((split, uid), []).append(row)
    entries: list[Entry] = []
    quarantined: list[Quarantined] = []
    for (split, uid), mine in rows.items():
        key, where = f"{split}/{uid}", f"{source}: {split}, uid {uid}"
        others = [other for other in uids if other != split and (other, uid) in rows]
        if others:
            message = f"{where} lies in {others[0]} as well, so it would be trained on and tested on"
            quarantined.append(Quarantined(key, where, "duplicate_series", message))
        else:
            entries.append(Entry(key, splits.unknown(split, str(uid)), where, (str(source), split, tuple(mine))))
    return sorted(entries, key=lambda one: one.key), sorted(quarantined, key=lambda one: one.key)


def examine(source: Path) -> tuple[list[tuple[Entry, Check | None]], list[Quarantined]]:
    """What `find` finds, and what names and headers tell of each."""
    return unexamined(find(source))


def read(entry: Entry) -> Scan:
    """One series: its slices in the order of the file, and a reading for each reader who marked anything.

    Raises:
      Fault: `unreadable_file`, `too_large`, `not_finite` or `fraction_out_of_range`.
    """
    try:
        images, labels = _apart(_pixels, Path(entry.locator[0]), *entry.locator[1:], entry.where)
    except InputError as error:
        raise Fault("unreadable_file", str(error).removesuffix(".")) from error
    images = images.astype(np.float64)
    npy.check_finite(labels, f"{entry.where}: labels")
    if labels.shape[1:] == (*images.shape[1:], READERS):
        labels = np.moveaxis(labels, -1, 1)
    return bare_scan(
        patient_id=entry.patient_id,
        study_uid=entry.key,
        series_uid=entry.key,
        voxels=fractions(images + _SHIFT, entry.where),
        masks=list(np.moveaxis(labels != 0, 1, 0)),
        intensity="fraction",
    )


def _require_h5py() -> None:
    if importlib.util.find_spec("h5py") is None:
        raise InputError("h5py, which reads HDF5 files, is not installed; run `pip install 'lungjax[hdf5]'`.")


def _apart(function: Callable[..., Result], source: Path, *arguments: object) -> Result:
    """HDF5's library can be crashed by a file: that is then told of the file, in one sentence."""
    try:
        return processes.apart(function, source, *arguments)
    except processes.WorkerDied as died:
        raise InputError(f"{source} cannot be read as HDF5 (its library crashes over it); fetch it again.") from died


def _uids(source: Path) -> dict[splits.Split, np.ndarray]:
    """Of the splits whose three data sets fit together.

    Raises:
      InputError: the file is damaged, or a split has data sets that do not.
    """
    with _opened(source) as file:
        names: list[splits.Split] = [name for name in splits.SPLITS if file.get(name, getlink=True) is not None]
        for name in names:
            _check(file, name, source)
        return {name: np.asarray(_dataset(file, name, "uids", source)[()]) for name in names}


def _pixels(source: Path, split: str, rows: Sequence[int], where: str) -> tuple[np.ndarray, np.ndarray]:
    """The images and labels of these rows, as they are in the file."""
    with _opened(source) as file:
        images, labels = (_dataset(file, split, name, source) for name in ("images", "labels"))
        return _rows(images, rows, where), _rows(labels, rows, where)


@contextlib.contextmanager
def _opened(source: Path) -> Iterator[Any]:
    """The file; a damaged one makes h5py raise nearly anything, from here to the end of the block."""
    import h5py

    try:
        with h5py.File(source, "r") as file:
            yield file
    except (InputError, Fault):
        raise
    except Exception as error:
        raise InputError(f"{source} cannot be read as HDF5 ({error}); fetch it again.") from error


def _rows(dataset, rows: Sequence[int], where: str) -> np.ndarray:
    need = len(rows) * math.prod(dataset.shape[1:]) * dataset.dtype.itemsize
    size_limits.check(need, size_limits.SCAN_BYTES, f"{where}, by the bytes of its {dataset.name},")
    return np.asarray(dataset[list(rows)])


def _check(file, split: str, source: Path) -> None:
    images, labels, uids = (_dataset(file, split, name, source) for name in ("images", "labels", "uids"))
    count, *shape = images.shape
    if len(shape) != 2 or not all(0 < side <= size_limits.SIDE_PX for side in shape) or images.dtype.kind != "f":
        raise _other_layout(source, f"{split}/images is {images.dtype} {images.shape}")
    if labels.shape not in ((count, *shape, READERS), (count, READERS, *shape)) or labels.dtype.kind not in "biuf":
        raise _other_layout(source, f"{split}/labels is {labels.dtype} {labels.shape}")
    if uids.shape != (count,) or uids.dtype.kind not in "iu" or count > _MOST_ROWS:
        raise _other_layout(source, f"{split}/uids is {uids.dtype} {uids.shape}")


def _dataset(file, split: str, name: str, source: Path | str):
    """A data set that lies in this very file: HDF5 can also point into others."""
    import h5py

    here = isinstance(file.get(split, getlink=True), h5py.HardLink) and isinstance(file[split], h5py.Group)
    if not here or not isinstance(file[split].get(name, getlink=True), h5py.HardLink):
        raise _other_layout(source, f"it has no {split}/{name}, or only a link in its place")
    dataset = file[split][name]
    if not isinstance(dataset, h5py.Dataset) or dataset.external or dataset.is_virtual:
        raise _other_layout(source, f"{split}/{name} holds no numbers of its own")
    return dataset


def _other_layout(source: Path | str, what: str) -> InputError:
    return InputError(f"{source} is laid out otherwise than data_lidc.hdf5: {what}; check --source.")
