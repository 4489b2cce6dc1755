"""A folder, a `.zip` or a `.tar` as names and bytes. Nothing is unpacked to disk; no path may lead outside."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from lungjax.ct import faults, size_limits
from lungjax.errors import InputError

Place = str | tuple[int, int]
"""Where a member lies: its name, or in a `.tar` its offset and size in bytes."""

Load = Callable[[Place, str], bytes]
"""Returns a member's bytes from its place and its name for messages."""

_METHODS = {zipfile.ZIP_STORED: "stored", zipfile.ZIP_DEFLATED: "deflate"}
"""With other methods Python decompresses whole blocks, however large they become."""
BROKEN_ZIP = (OSError, ValueError, RuntimeError, EOFError, zlib.error, zipfile.BadZipFile, struct.error, LookupError)
"""What the zip module raises for damaged files; methods that it does not implement raise RuntimeErrors."""


def is_source(source: Path) -> bool:
    """Whether this is a folder or, by its name, an archive; `.tar.gz` counts, so that it is refused with a reason."""
    suffixes = {suffix.lower() for suffix in source.suffixes}
    return source.is_dir() or (source.is_file() and bool({".zip", ".tar", ".tgz"} & suffixes))


def contains(source: Path, layout: re.Pattern[str]) -> bool:
    """Whether a folder or archive has a file whose whole path matches `layout`; reads names only.

    Links in a folder are refused only by the format that it is of: others may read them.
    """
    if not is_source(source):
        return False
    names = _folder_members(source, refuse_links=False) if source.is_dir() else members(source)
    return any(layout.fullmatch(name) for name, _ in names)


def members(source: Path) -> Iterator[tuple[str, Place]]:
    """Yields every regular file with its place, in a fixed order; names use `/` and are relative to the source.

    Raises:
      InputError: the archive is damaged, is compressed as a whole, or holds a name twice, or one of its names or links
        leads outside.
    """
    if source.is_dir():
        yield from _folder_members(source)
        return
    last = None
    for name, place in _zip_members(source) if _is_zip(source) else _tar_members(source):
        if name == last:
            _refuse(source, name, "is there twice")
        last = name
        yield name, place


@contextlib.contextmanager
def open_members(source: Path) -> Iterator[Load]:
    """Opens the source; yields a function that returns a member's bytes, for the members of one scan.

    That function raises a Fault: `unreadable_file`, or `too_large` where a member is larger than any slice, or all
    members together are larger than any scan.
    """
    with contextlib.ExitStack() as stack:
        if source.is_dir():
            read = functools.partial(_read_file, source)
        elif _is_zip(source):
            read = functools.partial(read_zip, _zip(source))
        else:
            read = functools.partial(_read_tar, stack.enter_context(source.open("rb")))
        total = 0

        def load(place: Place, where: str) -> bytes:
            nonlocal total
            try:
                data = read(place, size_limits.SLICE_BYTES, where)
            except (*BROKEN_ZIP, tarfile.TarError) as error:
                raise faults.cannot_read(where, error) from error
            total += len(data)
            size_limits.check(total, size_limits.SCAN_BYTES, f"the scan of {where}, by the bytes of its files,")
            return data

        yield load


def read_zip(file: zipfile.ZipFile, place: Place, limit: int, where: str) -> bytes:
    """The bytes of a member of at most `limit` bytes.

    Raises:
      Fault: `too_large`.
      KeyError, OSError, ValueError and others: it does not exist, is damaged, or is compressed by a method other than
        deflate.
    """
    member = file.getinfo(str(place))
    if member.compress_type not in _METHODS:
        raise ValueError(f"it is compressed by method {member.compress_type}, not by deflate")
    size_limits.check(member.file_size, limit, f"{where}, by its bytes once unpacked,")
    with file.open(member) as stream:
        data = stream.read(member.file_size)  # Without a size it would decompress everything, however much.
        if len(data) != member.file_size:
            raise ValueError("the archive ends within it")
        return data


def _is_zip(source: Path) -> bool:
    return source.suffix.lower() == ".zip"


def _folder_members(source: Path, *, refuse_links: bool = True) -> Iterator[tuple[str, Place]]:
    for folder, folders, names in os.walk(source):
        folders.sort()
        for name in sorted(folders + names):
            path = Path(folder, name)
            if refuse_links and path.is_symlink():
                _refuse(source, path.relative_to(source).as_posix(), "is a link")
        for name in sorted(names):
            path = Path(folder, name)
            if path.is_file():  # Not a pipe, which would never end.
                relative = path.relative_to(source).as_posix()
                yield relative, relative


def _zip_members(source: Path) -> Iterator[tuple[str, Place]]:
    for member in sorted(_zip(source).infolist(), key=lambda member: member.filename):
        _check_name(source, member.filename)
        if stat.S_ISLNK(member.external_attr >> 16):
            _refuse(source, member.filename, "is a link")
        if member.filename and not member.is_dir():
            yield member.filename, member.filename


def _tar_members(source: Path) -> Iterator[tuple[str, Place]]:
    try:
        with tarfile.open(source, "r:") as file:
            tar_members = file.getmembers()
    except (OSError, ValueError, OverflowError, tarfile.TarError) as error:
        raise InputError(f"{source} is not an uncompressed .tar ({error}); unpack it and name the folder.") from error
    for member in sorted(tar_members, key=lambda member: member.name):
        _check_name(source, member.name)
        if member.issym() or member.islnk():
            _refuse(source, member.name, "is a link")
        if member.issparse():
            _refuse(source, member.name, "has holes")
        if member.isreg():
            yield str(PurePosixPath(member.name)), (member.offset_data, member.size)


def _check_name(source: Path, name: str) -> None:
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or "\\" in name:
        _refuse(source, name, "leads out of the archive")


def _refuse(source: Path, name: str, reason: str) -> None:
    raise InputError(f"{source}: its member {name!r} {reason}, which is refused; use a clean copy of the data.")


@functools.lru_cache(maxsize=2)  # A worker reads many scans of one archive, whose directory is long.
def _zip(source: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(source)
    except BROKEN_ZIP as error:
        raise InputError(f"{source} cannot be read as .zip ({error}); fetch it again.") from error


def _read_tar(file: BinaryIO, place: Place, limit: int, where: str) -> bytes:
    assert isinstance(place, tuple)
    offset, size = place
    size_limits.check(size, limit, f"{where}, by its bytes,")
    file.seek(offset)
    data = file.read(size)
    if len(data) != size:
        raise ValueError("the archive ends within it")
    return data


def _read_file(source: Path, place: Place, limit: int, where: str) -> bytes:
    with (source / str(place)).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        size_limits.check(size, limit, f"{where}, by its bytes,")
        return file.read(size)
