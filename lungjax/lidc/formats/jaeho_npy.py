"""Slices of the LIDC-IDRI-Preprocessing project as NumPy files: a folder, a `.zip` or a `.tar`, read in place.

    <anything>/Image/[LIDC-IDRI-0001/]0001_NI000_slice000.npy    of nodule 0; and its mask, drawn by a consensus,
    <anything>/Mask/[LIDC-IDRI-0001/]0001_MA000_slice000.npy
    <anything>/Clean/Image/[LIDC-IDRI-0028/]0028_CN001_slice000.npy, Clean/Mask/.../0028_CM001_slice000.npy

Images are z-scored within a lung mask, so HU are lost, and so are positions: slices count from each nodule's own
lowest. A slice with two nodules is there twice, with one nodule in each mask; the same image is one slice here.
A nodule has one unrated reading in slot 0, so what asks for two readers' agreement finds none. The split in its
`meta_info.csv`, which has most patients on both sides, is not read.
"""

from __future__ import annotations

import io
import math
import re
from pathlib import Path

import numpy as np

from lungjax.lidc.formats import archive
from lungjax.lidc.formats.bare import reading
from lungjax.lidc.formats.entry import Entry, Quarantined
from lungjax.lidc.scan import Fault, Nodule, Scan

_LAYOUT = re.compile(
    r"(?:.*/)?(?:Clean/)?(?P<kind>Image|Mask)/(?:LIDC-IDRI-\d{4}/)?"
    r"(?P<patient>\d{4})_(?P<what>NI|MA|CN|CM)(?P<nodule>\d{3})_slice(?P<number>\d{3})\.npy",
    re.ASCII,
)
_IMAGES = {"NI": "nodule", "CN": "clean"}
_MASKS = {"MA": "nodule", "CM": "clean"}
_MAX_SIDE_PX = 4096
_MOST = 100.0
"""No pixel of a chest lies this many standard deviations from the mean; HU do."""

Name = tuple[str, int, int]
"""`nodule` or `clean`, number of the nodule, number of the slice."""


def matches(source: Path) -> bool:
    """Whether a folder or archive holds any file of this layout; reads names only."""
    return archive.is_source(source) and any(_LAYOUT.fullmatch(name) for name, _ in archive.members(source))


def find(source: Path) -> tuple[list[Entry], list[Quarantined]]:
    """Every patient, by names alone; both lists sorted by key, which is the patient's id.

    Quarantined are patients with a file in two places (`duplicate_positions`).

    Raises:
      InputError: the archive cannot be read, or holds a name or link that leads out of it.
    """
    patients: dict[str, dict[str, dict[Name, archive.Place]]] = {}
    twice: dict[str, str] = {}
    for name, place in archive.members(source):
        part = _LAYOUT.fullmatch(name)
        kinds = _IMAGES if part and part["kind"] == "Image" else _MASKS
        if part and part["what"] in kinds:
            files = patients.setdefault(f"LIDC-IDRI-{part['patient']}", {"Image": {}, "Mask": {}})[part["kind"]]
            key = (kinds[part["what"]], int(part["nodule"]), int(part["number"]))
            if key in files:
                twice[f"LIDC-IDRI-{part['patient']}"] = name
            files[key] = place
    entries: list[Entry] = []
    quarantined: list[Quarantined] = []
    for patient_id, kinds in sorted(patients.items()):
        where = f"{source}: {patient_id}"
        if patient_id in twice:
            message = f"{source}/{twice[patient_id]} is there twice, in another folder; keep one"
            quarantined.append(Quarantined(patient_id, where, "duplicate_positions", message))
        else:
            ordered = tuple((kind, tuple(sorted(files.items()))) for kind, files in kinds.items())
            entries.append(Entry(patient_id, patient_id, where, (str(source), ordered)))
    return entries, quarantined


def read(entry: Entry) -> Scan:
    """One patient: each distinct image a slice, in the order of nodules and their slices; each nodule a reading.

    Raises:
      Fault: `missing_image`, `missing_mask`, `mask_shape`, `mixed_geometry`, `not_finite`, `not_zscored` or
        `unreadable_file`.
    """
    source, kinds = entry.locator
    files = {kind: dict(named) for kind, named in kinds}
    if missing := sorted(files["Image"].keys() - files["Mask"].keys()):
        raise Fault("missing_mask", f"{entry.where} has no mask of {_spelt(missing[0])}, but an image; fetch it")
    if extra := sorted(files["Mask"].keys() - files["Image"].keys()):
        raise Fault("missing_image", f"{entry.where} has no image of {_spelt(extra[0])}, but a mask; fetch it")
    slices: dict[bytes, int] = {}
    images: list[np.ndarray] = []
    marks: dict[int, list[tuple[int, np.ndarray]]] = {}
    with archive.opened(Path(source)) as load:
        for name in sorted(files["Image"], key=lambda name: (name[0] == "clean", name)):
            where = f"{entry.where}, {_spelt(name)}"
            image = _load(load, files["Image"][name], where).astype(np.float32)
            mask = _load(load, files["Mask"][name], where) != 0
            _check(image, mask, images, where)
            place = slices.setdefault(image.tobytes(), len(images))
            if place == len(images):
                images.append(image)
            if mask.any():
                marks.setdefault(name[1], []).append((place, mask))
    return Scan(
        patient_id=entry.patient_id,
        study_uid=entry.patient_id,
        series_uid=entry.patient_id,
        voxels=np.stack(images),
        intensity="zscore",
        z_mm=np.full(len(images), np.nan),
        spacing_mm=(math.nan, math.nan, math.nan),
        sop_uids=("",) * len(images),
        padding_hu=None,
        nodules=tuple(_nodule(index, of_one, images) for index, (_, of_one) in enumerate(sorted(marks.items()))),
    )


def _nodule(index: int, marks: list[tuple[int, np.ndarray]], images: list[np.ndarray]) -> Nodule:
    whole = np.zeros((len(images), *images[0].shape), bool)
    for place, mask in marks:
        whole[place] |= mask
    return Nodule(index, (reading(0, whole),))


def _spelt(name: Name) -> str:
    kind, nodule, number = name
    return f"slice {number} of nodule {nodule}" if kind == "nodule" else f"clean slice {number}"


def _check(image: np.ndarray, mask: np.ndarray, before: list[np.ndarray], where: str) -> None:
    if image.shape != mask.shape:
        raise Fault("mask_shape", f"{where} has a mask of {mask.shape} for an image of {image.shape}")
    if before and image.shape != before[0].shape:
        raise Fault("mixed_geometry", f"{where} is {image.shape}, the patient's first slice {before[0].shape}")
    if not np.isfinite(image).all():
        raise Fault("not_finite", f"{where} has pixels that are no finite number; fetch it again")
    if np.abs(image).max() > _MOST:
        raise Fault("not_zscored", f"{where} holds {image.min():g} to {image.max():g}, which are no z-scores")


def _load(load: archive.Load, place: archive.Place, where: str) -> np.ndarray:
    """A matrix of numbers; its header is believed only as far as the file goes."""
    try:
        data = io.BytesIO(load(place))
        version = np.lib.format.read_magic(data)
        reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, by_columns, dtype = reader(data)
        rest = data.getbuffer()[data.tell() :]
        if dtype.kind not in "biuf" or len(shape) != 2 or not all(0 < side <= _MAX_SIDE_PX for side in shape):
            raise ValueError(f"it holds {dtype} {shape}, not a matrix of numbers")
        if len(rest) != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"{len(rest)} bytes for {shape} of {dtype}")
        return np.frombuffer(rest, dtype).reshape(shape, order="F" if by_columns else "C")
    except (OSError, ValueError, EOFError, TypeError, SyntaxError) as error:
        raise Fault("unreadable_file", f"{where} cannot be read ({error}); fetch it again") from error
