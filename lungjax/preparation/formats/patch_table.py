"""Reads and checks the arrays of a file in the format `nodule-patches`."""

from __future__ import annotations

import dataclasses
import functools
import zipfile
from pathlib import Path

import numpy as np

from lungjax.ct import size_limits
from lungjax.ct.scan import RATING_NAMES, READERS
from lungjax.errors import Fault, InputError
from lungjax.preparation.formats import archive, npy

KINDS = {
    "hu": "i",
    "patient_id": "U",
    "series_uid": "U",
    "sop_uid": "U",
    "z_mm": "f",
    "pixel_spacing_mm": "f",
    "reader_ratings": "i",
    "rating_names": "U",
}
"""Arrays of the file, and NumPy's code for the kind of their dtype; the file may contain others."""
OUTLINES = "reader_outlines"
"""The optional array."""


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """The file's columns, one row per nodule; `ratings` is (n, readers, 9) in the order of `RATING_NAMES`.

    `outlines` is None where the file has no outlines.
    """

    hu: np.ndarray
    patient_id: np.ndarray
    series_uid: np.ndarray
    sop_uid: np.ndarray
    z_mm: np.ndarray
    pixel_spacing_mm: np.ndarray
    ratings: np.ndarray
    outlines: np.ndarray | None


def read(source: Path) -> Table:
    """Reads the file; the last one is cached.

    Raises:
      InputError: the file cannot be read, or its arrays are not those of this format.
    """
    stat = source.stat()
    return _cached_table(source, stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=1)  # A worker reads many series of one file, which takes long to decompress.
def _cached_table(source: Path, mtime_ns: int, size: int) -> Table:
    del mtime_ns, size  # A file that has been replaced is read again.
    try:
        with zipfile.ZipFile(source) as file:
            columns = {name: _column(file, f"{name}.npy") for name in KINDS}
            outlines = _column(file, f"{OUTLINES}.npy") if f"{OUTLINES}.npy" in file.namelist() else None
    except KeyError as error:
        raise InputError(f"{source} is not a file of nodule patches ({error.args[0]}); check the path.") from error
    except Fault as fault:
        raise InputError(f"{source}: {fault.message}.") from fault
    except archive.BROKEN_ZIP as error:
        raise InputError(f"{source} cannot be read as .npz ({error}); fetch it again.") from error
    _check_columns(columns, source)
    if outlines is not None:
        _check_outlines(outlines, columns["hu"].shape, source)
    names = columns.pop("rating_names").tolist()
    order = [names.index(name) for name in RATING_NAMES]
    return Table(ratings=columns.pop("reader_ratings")[:, :, order], outlines=outlines, **columns)


def _column(file: zipfile.ZipFile, name: str) -> np.ndarray:
    return npy.read_array(archive.read_zip(file, name, size_limits.SCAN_BYTES // (len(KINDS) + 1), name), name)


def _is_text(array: np.ndarray) -> bool:
    """Whether every number is a valid character, which NumPy checks only when it converts the numbers to text."""
    if not array.dtype.itemsize:
        return True
    numbers = array.view(np.dtype("u4").newbyteorder(array.dtype.byteorder))
    return bool(((numbers < 0xD800) | ((numbers > 0xDFFF) & (numbers <= 0x10FFFF))).all())


def _check_columns(columns: dict[str, np.ndarray], source: Path) -> None:
    """Checks the dtype and shape of every array, and the names of the nine ratings."""
    hu, names = columns["hu"], columns["rating_names"]
    if hu.dtype != np.int16 or hu.ndim != 3 or not hu.size:
        raise InputError(
            f"{source}: hu is {hu.dtype} {hu.shape}, not patches of int16 HU; store it as the format nodule-patches "
            "says."
        )
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(KINDS, (len(hu),))
    shapes["hu"] = hu.shape
    shapes["reader_ratings"] = (len(hu), READERS, len(RATING_NAMES))
    shapes["rating_names"] = (len(RATING_NAMES),)
    for name, array in columns.items():
        if array.dtype.kind != KINDS[name] or array.shape != shapes[name]:
            what = f"{array.dtype} {array.shape}, which does not fit {len(hu)} patches"
            raise InputError(f"{source}: {name} is {what}; store it as the format nodule-patches says.")
        if array.dtype.kind == "U" and not _is_text(array):
            raise InputError(f"{source}: {name} is not text; store it as the format nodule-patches says.")
    if sorted(names.tolist()) != sorted(RATING_NAMES):
        raise InputError(f"{source}: rating_names are {names.tolist()}, not {list(RATING_NAMES)}; name them so.")


def _check_outlines(outlines: np.ndarray, shape: tuple[int, ...], source: Path) -> None:
    if outlines.dtype != np.uint8 or outlines.shape != shape or outlines.max() >= 1 << READERS:
        what = f"{outlines.dtype} {outlines.shape}, not uint8 {shape} with a bit for each of {READERS} readers"
        raise InputError(f"{source}: {OUTLINES} is {what}; leave it out or correct it.")
