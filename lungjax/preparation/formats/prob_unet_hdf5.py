"""The crops of `prob_unet_pickle` as PHiSeg and CCDM store them, `data_lidc.hdf5`; patients cannot be recovered.

    {train,val,test}/images  (n, 128, 128), in [0, 1] minus 0.5
    {train,val,test}/labels  (n, 128, 128, 4) or (n, 4, 128, 128)
    {train,val,test}/uids    (n,): salted hashes of SeriesInstanceUIDs, different in every file

A hash identifies the slices of one series, but not the patient. So each series counts as a separate patient, named
`unknown/<split>/<hash>`, the file's own split is kept, and such data are never mixed with data split by patient: see
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
from lungjax.preparation.formats import npy, without_checks
from lungjax.preparation.formats.bare import bare_scan, to_fractions

ONE_PROCESS = False
HAS_PATIENT_IDS = False
"""Such a source is prepared only with `--without-patients`."""

Result = TypeVar("Result")

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_SHIFT = 0.5
_MAX_ROWS = 2**20
"""Four times the slices of all LIDC-IDRI."""


def matches(source: Path) -> bool:
    """Whether this is an HDF5 file with the images, labels and uids of at least one split."""
    try:
        with source.open("rb") as file:
            if file.read(len(_SIGNATURE)) != _SIGNATURE:
                return False
    except OSError:
        return False
    _require_h5py()
    return bool(_run_isolated(_read_uids, source))


def find(source: Path) -> tuple[list[Entry], list[Quarantined]]:
    """Finds every series by its hash; both lists are sorted by key, `<split>/<hash>`.

    Quarantined are series that occur in two splits (`duplicate_series`).

    Raises:
      InputError: the file is damaged or has another layout; or h5py is not installed.
    """
    _require_h5py()
    uids = _run_isolated(_read_uids, source)
    if not uids:
        raise InputError(f"{source} has no images, labels and uids in train, val or test; check the path and --format.")
    rows: dict[tuple[splits.Split, int], list[int]] = {}
    for split, split_uids in uids.items():
        for row, uid in enumerate(split_uids.tolist()):
            rows.setdefault((split, uid), []).append(row)
    entries: list[Entry] = []
    quarantined: list[Quarantined] = []
    for (split, uid), series_rows in rows.items():
        key, where = f"{split}/{uid}", f"{source}: {split}, uid {uid}"
        others = [other for other in uids if other != split and (other, uid) in rows]
        if others:
            message = f"{where} is in {others[0]}, too; a series must be in one split only"
            quarantined.append(Quarantined(key, where, "duplicate_series", message))
        else:
            entries.append(
                Entry(key, splits.unknown_patient_id(split, str(uid)), where, (str(source), split, tuple(series_rows)))
            )
    return sorted(entries, key=lambda item: item.key), sorted(quarantined, key=lambda item: item.key)


def examine(source: Path) -> tuple[list[tuple[Entry, Check | None]], list[Quarantined]]:
    """As `find`; a series has no other checks than those of `read`."""
    return without_checks(find(source))


def read(entry: Entry) -> Scan:
    """Reads one series: its slices in the order of the file, and a reading for each reader who marked anything.

    Raises:
      Fault: `unreadable_file`, `too_large`, `not_finite` or `fraction_out_of_range`.
    """
    try:
        images, labels = _run_isolated(_read_pixels, Path(entry.locator[0]), *entry.locator[1:], entry.where)
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
        voxels=to_fractions(images + _SHIFT, entry.where),
        masks=list(np.moveaxis(labels != 0, 1, 0)),
        intensity="fraction",
    )


def _require_h5py() -> None:
    if importlib.util.find_spec("h5py") is None:
        raise InputError("h5py, which reads HDF5 files, is not installed; run `pip install 'lungjax[hdf5]'`.")


def _run_isolated(function: Callable[..., Result], source: Path, *arguments: object) -> Result:
    """Calls `function` in another process, because a file can crash HDF5's library; a crash becomes an InputError."""
    try:
        return processes.run_isolated(function, source, *arguments)
    except processes.WorkerDied as died:
        raise InputError(f"{source} cannot be read as HDF5 (its library crashes on it); fetch it again.") from died


def _read_uids(source: Path) -> dict[splits.Split, np.ndarray]:
    """The uids of each split, once its three data sets have been checked.

    Raises:
      InputError: the file is damaged, or the data sets of a split do not fit together.
    """
    with _open_file(source) as file:
        names: list[splits.Split] = [name for name in splits.SPLITS if file.get(name, getlink=True) is not None]
        for name in names:
            _check(file, name, source)
        return {name: np.asarray(_open_dataset(file, name, "uids", source)[()]) for name in names}


def _read_pixels(source: Path, split: str, rows: Sequence[int], where: str) -> tuple[np.ndarray, np.ndarray]:
    """The images and labels of these rows, unchanged."""
    with _open_file(source) as file:
        images, labels = (_open_dataset(file, split, name, source) for name in ("images", "labels"))
        return _read_rows(images, rows, where), _read_rows(labels, rows, where)


@contextlib.contextmanager
def _open_file(source: Path) -> Iterator[Any]:
    """Opens the file. A damaged file can make h5py raise nearly anything until the end of the block."""
    import h5py

    try:
        with h5py.File(source, "r") as file:
            yield file
    except (InputError, Fault):
        raise
    except Exception as error:
        raise InputError(f"{source} cannot be read as HDF5 ({error}); fetch it again.") from error


def _read_rows(dataset, rows: Sequence[int], where: str) -> np.ndarray:
    nbytes = len(rows) * math.prod(dataset.shape[1:]) * dataset.dtype.itemsize
    size_limits.check(nbytes, size_limits.SCAN_BYTES, f"{where}, by the bytes of its {dataset.name},")
    return np.asarray(dataset[list(rows)])


def _check(file, split: str, source: Path) -> None:
    images, labels, uids = (_open_dataset(file, split, name, source) for name in ("images", "labels", "uids"))
    count, *shape = images.shape
    if len(shape) != 2 or not all(0 < side <= size_limits.SIDE_PX for side in shape) or images.dtype.kind != "f":
        raise _other_layout(source, f"{split}/images is {images.dtype} {images.shape}")
    if labels.shape not in ((count, *shape, READERS), (count, READERS, *shape)) or labels.dtype.kind not in "biuf":
        raise _other_layout(source, f"{split}/labels is {labels.dtype} {labels.shape}")
    if uids.shape != (count,) or uids.dtype.kind not in "iu" or count > _MAX_ROWS:
        raise _other_layout(source, f"{split}/uids is {uids.dtype} {uids.shape}")


def _open_dataset(file, split: str, name: str, source: Path | str):
    """A data set that is stored in this file; HDF5 files can also refer to other files."""
    import h5py

    is_group = isinstance(file.get(split, getlink=True), h5py.HardLink) and isinstance(file[split], h5py.Group)
    if not is_group or not isinstance(file[split].get(name, getlink=True), h5py.HardLink):
        raise _other_layout(source, f"it has no {split}/{name}, or only a link")
    dataset = file[split][name]
    if not isinstance(dataset, h5py.Dataset) or dataset.external or dataset.is_virtual:
        raise _other_layout(source, f"{split}/{name} does not store its numbers in this file")
    return dataset


def _other_layout(source: Path | str, what: str) -> InputError:
    return InputError(f"{source} does not have the layout of data_lidc.hdf5: {what}; check the path.")
