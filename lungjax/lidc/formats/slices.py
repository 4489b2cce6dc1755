"""The well-known 128x128 LIDC crops: `<patient>/nodule-<k>/{images,mask-0..3}/slice-<n>.png`, a folder, zip or tar."""

from __future__ import annotations

import functools
import io
import re
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, UnidentifiedImageError

from lungjax.lidc.formats.entry import Entry, Quarantined
from lungjax.lidc.scan import RATING_NAMES, READERS, Fault, InputError, Nodule, Reading, Scan

SCANS_PER_SHARD = 32
_MEMBER = re.compile(r"(?:.*/)?(?P<patient>[^/]+)/nodule-(?P<nodule>\d+)/images/slice-(?P<slice>\d+)\.png$")
_TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


def matches(source: Path) -> bool:
    """Whether a folder or archive holds images of this layout."""
    if not source.is_dir() and not (source.suffix == ".zip" or source.name.endswith(_TAR_SUFFIXES)):
        return False
    return any(_MEMBER.match(name) for name in _open(source).names())


def find(source: Path) -> tuple[list[Entry], list[Quarantined]]:
    """One entry for each nodule's stack of crops, sorted by patient and nodule.

    Raises:
      InputError: an archive is damaged, or a name in it would leave the folder it is unpacked to.
    """
    stacks: dict[tuple[str, int], list[tuple[int, str]]] = {}
    for name in _open(source).names():
        found = _MEMBER.match(name)
        if found:
            key = found["patient"], int(found["nodule"])
            stacks.setdefault(key, []).append((int(found["slice"]), name))
    entries = []
    for (patient, nodule), images in sorted(stacks.items()):
        names = tuple(name for _, name in sorted(images))
        where = f"{source}: {PurePosixPath(names[0]).parents[1]}"
        entries.append(Entry(f"{patient}/nodule-{nodule}", patient, where, (str(source), names)))
    return entries, []


def read(entry: Entry) -> Scan:
    """One stack with its four readers' masks.

    Raises:
      Fault: `unreadable_image`, `not_8_bit`, `missing_mask`, `shape_mismatch`.
    """
    source, names = entry.locator
    files = _open(Path(source))
    images = _stack([_png(files, name) for name in names], entry.where)
    masks = [
        _stack([_png(files, name.replace("/images/", f"/mask-{r}/")) for name in names], entry.where) > 0
        for r in range(READERS)
    ]
    for reader, mask in enumerate(masks):
        if mask.shape != images.shape:
            raise Fault("shape_mismatch", f"{entry.where}: mask-{reader} is {mask.shape}, the images {images.shape}.")
    unknown = (0,) * len(RATING_NAMES)
    readings = tuple(Reading(r, -1, unknown, mask, (0, 0, 0)) for r, mask in enumerate(masks) if mask.any())
    return Scan(
        patient_id=entry.patient_id,
        study_uid=entry.patient_id,
        series_uid=entry.key,
        voxels=images,
        intensity="unit",
        z_mm=np.full(len(names), np.nan),
        spacing_mm=(np.nan, np.nan, np.nan),
        sop_uids=("",) * len(names),
        padding_hu=None,
        nodules=(Nodule(0, readings),) if readings else (),
    )


def _stack(images: list[np.ndarray], where: str) -> np.ndarray:
    shapes = {image.shape for image in images}
    if len(shapes) > 1:
        raise Fault("shape_mismatch", f"{where}: slices of several sizes {sorted(shapes)}; make them alike.")
    return np.stack(images)


def _png(files: _Folder | _Zip | _Tar, name: str) -> np.ndarray:
    try:
        data = files.read(name)
    except (KeyError, FileNotFoundError):
        raise Fault("missing_mask", f"{name}: is missing; every image needs four masks.") from None
    except (OSError, zipfile.BadZipFile, tarfile.TarError, RuntimeError) as error:
        raise Fault("unreadable_image", f"{name}: cannot be read ({error}); copy it again.") from error
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            if image.mode not in ("L", "1"):
                raise Fault("not_8_bit", f"{name}: has mode {image.mode}; this layout has 8-bit grey images.")
            return np.asarray(image.convert("L"))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise Fault("unreadable_image", f"{name}: is no whole PNG ({error}); copy it again.") from error


@functools.lru_cache(maxsize=2)  # An archive's directory is long: read it once in each process.
def _open(source: Path) -> _Folder | _Zip | _Tar:
    if source.is_dir():
        return _Folder(source)
    try:
        return _Zip(source) if source.suffix == ".zip" else _Tar(source)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        raise InputError(f"{source}: is no whole archive ({error}); download it again.") from error


class _Folder:
    def __init__(self, root: Path):
        self._root = root

    def names(self) -> list[str]:
        return [path.relative_to(self._root).as_posix() for path in self._root.rglob("slice-*.png")]

    def read(self, name: str) -> bytes:
        return (self._root / name).read_bytes()


class _Zip:
    def __init__(self, path: Path):
        self._archive = zipfile.ZipFile(path)
        _refuse_leaving(path, self._archive.namelist())

    def names(self) -> list[str]:
        return self._archive.namelist()

    def read(self, name: str) -> bytes:
        return self._archive.read(name)


class _Tar:
    def __init__(self, path: Path):
        self._archive = tarfile.open(path)  # noqa: SIM115 (stays open for the life of the process)
        members = self._archive.getmembers()
        _refuse_leaving(path, [member.name for member in members])
        link = next((member.name for member in members if member.issym() or member.islnk()), None)
        if link is not None:
            raise InputError(f"{path}: {link} is a link; pack the archive again without links.")
        self._members = {member.name: member for member in members if member.isfile()}

    def names(self) -> list[str]:
        return list(self._members)

    def read(self, name: str) -> bytes:
        file = self._archive.extractfile(self._members[name])
        assert file is not None
        return file.read()


def _refuse_leaving(path: Path, names: list[str]) -> None:
    """Nothing is unpacked here, but an archive with such names is not what it says it is."""
    for name in names:
        if name.startswith(("/", "\\")) or ".." in PurePosixPath(name.replace("\\", "/")).parts or ":" in name[:2]:
            raise InputError(f"{path}: the name {name!r} leads out of the archive; it is not safe to use.")
