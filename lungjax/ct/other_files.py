"""What a file is that is no scan which lungjax reads, and what makes one of it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path

_MOST_FILES = 1000
"""Of a folder, to look at the first bytes of."""
_CONVERT = "save it as NIfTI (.nii.gz) or MetaImage (.mha), as 3D Slicer and ITK-SNAP do"
_UNPACK = "unpack it first, and give the folder"


def advice(files: Iterable[Path]) -> str:
    """A sentence's end, as `: a.nrrd is a NRRD file; save it as ...`, of the first file that is known; else empty.

    Files that cannot be read say nothing here.
    """
    for path in itertools.islice((path for path in files if path.is_file()), _MOST_FILES):
        try:
            with path.open("rb") as file:
                head = file.read(348)
        except OSError:
            continue
        if what := _what(path, head):
            return f": {path.name} is {what}"
    return ""


def _what(path: Path, head: bytes) -> str | None:
    if head.startswith(b"NRRD"):
        return f"a NRRD file; {_CONVERT}"
    if head.startswith((b"PK\x03\x04", b"\x1f\x8b", b"7z\xbc\xaf", b"Rar!", b"\xfd7zXZ")):
        return f"a compressed file; {_UNPACK}"
    if head[344:348] == b"ni1\0" or head[4:8] == b"ni2\0" or head[:4] in (b"\x5c\1\0\0", b"\0\0\1\x5c"):
        return f"the header of an image in two files (.hdr and .img); {_CONVERT}"
    if head.startswith(b"\x89HDF"):
        return f"an HDF5 or MINC file; {_CONVERT}"
    if path.suffix.lower() in (".stl", ".vtk", ".vti", ".npy", ".npz", ".mat"):
        return f"a {path.suffix.lower()} file; {_CONVERT}"
    return None
