"""A folder, a `.zip` or a `.tar` as names and bytes. Nothing is unpacked; no path may leave it."""

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

from lungjax.ct import size_limits
from lungjax.errors import Fault, InputError

Place = str | tuple[int, int]
"""Where a member lies: its name, or in a `.tar` its offset and size in bytes."""

Load = Callable[[Place, str], bytes]
"""From a member's place, and its name for messages, to its bytes."""

_METHODS = {zipfile.ZIP_STORED: "stored", zipfile.ZIP_DEFLATED: "deflate"}
"""Of others Python unpacks whole blocks, however large they become."""
BROKEN_ZIP = (OSError, ValueError, RuntimeError, EOFError, zlib.error, zipfile.BadZipFile, struct.error, LookupError)
"""What the zip module raises of damaged files; not implemented methods are RuntimeErrors, too."""


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
      InputError: the archive is damaged, compressed as a whole, holds a name twice, or a name or link in it leads
        outside.
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
def opened(source: Path) -> Iterator[Load]:
    """A function from a member to its bytes, for the members of one scan.

    It raises a Fault: `unreadable_file`, or `too_large` where a member takes more bytes than any slice does, or all of
    them together more than any scan.
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
                raise Fault("unreadable_file", f"{where} cannot be read ({error}); fetch it again") from error
            total += len(data)
            size_limits.check(total, size_limits.SCAN_BYTES, f"the scan of {where}, by the bytes of its files,")
            return data

        yield load


def read_zip(file: zipfile.ZipFile, place: Place, most: int, where: str) -> bytes:
    """The bytes of a member, if there are at most `most`; a Fault `too_large` otherwise.

    Raises:
      KeyError, OSError, ValueError and others: it is not there, is damaged, or packed by a method other than deflate.
    """
    member = file.getinfo(str(place))
    if member.compress_type not in _METHODS:
        raise ValueError(f"it is packed by method {member.compress_type}, not by deflate")
    size_limits.check(member.file_size, most, f"{where}, by its bytes once unpacked,")
    with file.open(member) as stream:
        data = stream.read(member.file_size)  # Not more, whatever is packed: without a number, all of it is unpacked.
        if len(data) != member.file_size:
            raise ValueError("the archive ends within it")
        return data


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
            path = Path(folder, name)
            if path.is_file():  # And no pipe, which would never end.
                relative = path.relative_to(source).as_posix()
                yield relative, relative


def _zip_members(source: Path) -> Iterator[tuple[str, Place]]:
    for member in sorted(_zip(source).infolist(), key=lambda one: one.filename):
        _check_name(source, member.filename)
        if stat.S_ISLNK(member.external_attr >> 16):
            _refuse(source, member.filename, "is a link")
        if member.filename and not member.is_dir():
            yield member.filename, member.filename


def _tar_members(source: Path) -> Iterator[tuple[str, Place]]:
    try:
        with tarfile.open(source, "r:") as file:
            found = file.getmembers()
    except (OSError, ValueError, OverflowError, tarfile.TarError) as error:
        raise InputError(f"{source} is no uncompressed .tar ({error}); unpack it and name the folder.") from error
    for member in sorted(found, key=lambda one: one.name):
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


def _refuse(source: Path, name: str, why: str) -> None:
    raise InputError(f"{source}: its member {name!r} {why}, which is refused; use a clean copy of the data.")


@functools.lru_cache(maxsize=2)  # A worker reads many scans of one archive, and its directory is long.
def _zip(source: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(source)
    except BROKEN_ZIP as error:
        raise InputError(f"{source} cannot be read as .zip ({error}); fetch it again.") from error


def _read_tar(file: BinaryIO, place: Place, most: int, where: str) -> bytes:
    assert isinstance(place, tuple)
    offset, size = place
    size_limits.check(size, most, f"{where}, by its bytes,")
    file.seek(offset)
    data = file.read(size)
    if len(data) != size:
        raise ValueError("the archive ends within it")
    return data


def _read_file(source: Path, place: Place, most: int, where: str) -> bytes:
    with (source / str(place)).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        size_limits.check(size, most, f"{where}, by its bytes,")
        return file.read(size)
