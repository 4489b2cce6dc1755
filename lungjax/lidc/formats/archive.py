"""A folder, a `.zip` or a `.tar` as names and bytes. Nothing is unpacked; no path may leave it."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from lungjax.lidc.scan import InputError

Place = str | tuple[int, int]
"""Where a member lies: its name, or in a `.tar` its offset and size in bytes."""

Load = Callable[[Place], bytes]


def is_source(source: Path) -> bool:
    """Whether this is a folder or, by its name, an archive; `.tar.gz` counts, to be refused with a reason."""
    suffixes = {suffix.lower() for suffix in source.suffixes}
    return source.is_dir() or (source.is_file() and bool({".zip", ".tar", ".tgz"} & suffixes))


def holds(source: Path, layout: re.Pattern[str]) -> bool:
    """Whether a folder or archive has any file of this name, `/` and all; reads names only."""
    return is_source(source) and any(layout.fullmatch(name) for name, _ in members(source))


def members(source: Path) -> Iterator[tuple[str, Place]]:
    """Every regular file with its place, names with `/` and relative to the source; in a fixed order.

    Raises:
      InputError: the archive is damaged, compressed as a whole, or a name or link in it leads outside.
    """
    if source.is_dir():
        return _folder_members(source)
    return _zip_members(source) if _is_zip(source) else _tar_members(source)


@contextlib.contextmanager
def opened(source: Path) -> Iterator[Load]:
    """A function from a member's place to its bytes; it raises OSError or ValueError where that fails."""
    if source.is_dir():
        yield lambda place: (source / str(place)).read_bytes()
    elif _is_zip(source):
        yield functools.partial(_load_zip, _zip(source))
    else:
        with source.open("rb") as file:
            yield lambda place: _load_tar(file, place)


def _is_zip(source: Path) -> bool:
    return source.suffix.lower() == ".zip"


def _folder_members(source: Path) -> Iterator[tuple[str, Place]]:
    for folder, folders, names in os.walk(source):
        folders.sort()
        for name in sorted(folders + names):
            path = Path(folder, name)
            if path.is_symlink():
                _refuse(source, path.relative_to(source).as_posix(), "is a link")
        for name in sorted(names):
            relative = Path(folder, name).relative_to(source).as_posix()
            yield relative, relative


def _zip_members(source: Path) -> Iterator[tuple[str, Place]]:
    for member in sorted(_zip(source).infolist(), key=lambda one: one.filename):
        _check_name(source, member.filename)
        if stat.S_ISLNK(member.external_attr >> 16):
            _refuse(source, member.filename, "is a link")
        if not member.is_dir():
            yield member.filename, member.filename


def _tar_members(source: Path) -> Iterator[tuple[str, Place]]:
    try:
        with tarfile.open(source, "r:") as file:
            found = file.getmembers()
    except (OSError, tarfile.TarError) as error:
        raise InputError(f"{source} is no uncompressed .tar ({error}); unpack it and name the folder.") from error
    for member in sorted(found, key=lambda one: one.name):
        _check_name(source, member.name)
        if member.issym() or member.islnk():
            _refuse(source, member.name, "is a link")
        if member.isreg():
            yield str(PurePosixPath(member.name)), (member.offset_data, member.size)


def _check_name(source: Path, name: str) -> None:
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or "\\" in name:
        _refuse(source, name, "leads out of the archive")


def _refuse(source: Path, name: str, why: str) -> None:
    raise InputError(f"{source}: its member {name!r} {why}, which is refused; use a clean copy of the data.")


@functools.lru_cache(maxsize=2)  # A worker reads many scans of one archive, and its directory is long.
def _zip(source: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(source)
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{source} cannot be read as .zip ({error}); fetch it again.") from error


def _load_zip(file: zipfile.ZipFile, place: Place) -> bytes:
    try:
        return file.read(str(place))
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, zlib.error) as error:
        raise ValueError(str(error)) from error


def _load_tar(file, place: Place) -> bytes:
    offset, size = place
    file.seek(offset)
    data = file.read(size)
    if len(data) != size:
        raise ValueError("the archive ends within it")
    return data
