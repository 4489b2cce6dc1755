"""LIDC as `.npy` slices of the project LIDC-IDRI-Preprocessing (jaeho3690): a folder, a `.zip` or a `.tar`.

    <anything>/{Image,Mask}/[LIDC-IDRI-dddd/]dddd_{NI,MA}<nodule>_slice<n>.npy
    <anything>/{Image,Mask}/[LIDC-IDRI-dddd/]dddd_{CN,CM}001_slice<n>.npy         of patients without nodules

An image is a slice's HU less their mean, by their deviation, filtered, and 0 outside the lungs: HU, positions and
spacing are lost. The mask is where half of a nodule's readers agree, not what any one of them drew: so each nodule
has one unrated reading, in slot 0. `n` counts from the lowest slice of the nodule, not of the scan, and a slice with
two nodules is there twice. The project's table of slices, meta_info.csv, is not used, nor any split made of it.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lungjax.ct.scan import Nodule, Scan
from lungjax.ct.source import Check, Entry, Quarantined
from lungjax.errors import Fault
from lungjax.preparation.formats import archive, npy, unexamined
from lungjax.preparation.formats.bare import bare_scan, reading

READERS = 1
"""Where half of LIDC's agree: one mask a nodule."""
ONE_PROCESS = False
TELLS_PATIENTS = True

_LAYOUT = re.compile(
    r"(?:.*/)?(?:Image|Mask)/(?:LIDC-IDRI-\d{4}/)*"
    r"(?P<patient>\d{4})_(?P<letters>NI|MA|CN|CM)(?P<nodule>\d{3})_slice(?P<number>\d{3})\.npy",
    re.ASCII,
)
_IMAGES = {"NI": "nodule", "CN": "clean"}
_MASKS = {"MA": "nodule", "CM": "clean"}
_EVERY_PX = 16
"""Rows and columns from one looked-at pixel to the next, where two images are compared at a glance."""

Key = tuple[str, int, int]
"""A slice of a patient: `nodule` or `clean`, the nodule's number, the slice's number."""


def matches(source: Path) -> bool:
    """Whether a folder or archive holds any file of this layout; reads names only."""
    return archive.holds(source, _LAYOUT)


def find(source: Path) -> tuple[list[Entry], list[Quarantined]]:
    """Every patient, of whom the project reads one scan, by names alone; both lists sorted by key, the patient.

    Quarantined are patients with a file of one name in two places (`duplicate_positions`).

    Raises:
      InputError: the archive cannot be read, or holds a name or link that leads out of it.
    """
    patients: dict[str, dict[tuple[str, int, int], archive.Place]] = {}
    twice: dict[str, str] = {}
    for name, place in archive.members(source):
        part = _LAYOUT.fullmatch(name)
        if part:
            patient_id = f"LIDC-IDRI-{part['patient']}"
            files = patients.setdefault(patient_id, {})
            file = part["letters"], int(part["nodule"]), int(part["number"])
            if file in files:
                twice[patient_id] = name
            files[file] = place
    entries: list[Entry] = []
    quarantined: list[Quarantined] = []
    for patient_id, files in sorted(patients.items()):
        where = f"{source}: {patient_id}"
        if patient_id in twice:
            message = f"{source}/{twice[patient_id]} is there twice, in another folder; keep one"
            quarantined.append(Quarantined(patient_id, where, "duplicate_positions", message))
        else:
            entries.append(Entry(patient_id, patient_id, where, (str(source), tuple(sorted(files.items())))))
    return entries, quarantined


def examine(source: Path) -> tuple[list[tuple[Entry, Check | None]], list[Quarantined]]:
    """What `find` finds, and what names and headers tell of each."""
    return unexamined(find(source))


def read(entry: Entry) -> Scan:
    """One patient: nodule after nodule, each from its lowest slice to its highest; a slice of two is there once.

    Raises:
      Fault: `missing_image`, `missing_mask`, `mask_shape`, `mixed_geometry`, `unreadable_file`, `too_large`,
        `object_array`, `not_2d`, `not_float`, `not_finite` or `not_zscore`.
    """
    source, files = entry.locator
    images = {(_IMAGES[one[0]], *one[1:]): place for one, place in files if one[0] in _IMAGES}
    masks = {(_MASKS[one[0]], *one[1:]): place for one, place in files if one[0] in _MASKS}
    _check_pairs(images, masks, entry.where)
    with archive.opened(Path(source)) as load:
        pixels = {key: _image(load, images[key], f"{entry.where}: image of {_said(key)}") for key in sorted(images)}
        marks = {key: _mask(load, masks[key], f"{entry.where}: mask of {_said(key)}") for key in sorted(masks)}
    shapes = sorted({image.shape for image in pixels.values()})
    if len(shapes) > 1:
        raise Fault("mixed_geometry", f"{entry.where} has slices of several sizes: {shapes}")
    for key, mask in marks.items():
        if mask.shape != shapes[0]:
            message = f"{entry.where}: mask of {_said(key)} has {mask.shape} pixels, the images {shapes[0]}"
            raise Fault("mask_shape", message)
    voxels, places = _joined(pixels)
    scan = bare_scan(
        patient_id=entry.patient_id,
        study_uid=entry.patient_id,
        series_uid=entry.key,
        voxels=voxels,
        masks=[],
        intensity="zscore",
    )
    return dataclasses.replace(scan, nodules=_nodules(marks, places, voxels.shape))


def _check_pairs(images: Mapping[Key, object], masks: Mapping[Key, object], where: str) -> None:
    """Every slice has an image and a mask."""
    if missing := sorted(images.keys() - masks.keys()):
        raise Fault("missing_mask", f"{where} has no mask of {_said(missing[0])}, but an image; fetch it again")
    if extra := sorted(masks.keys() - images.keys()):
        raise Fault("missing_image", f"{where} has no image of {_said(extra[0])}, but a mask; fetch it again")


def _said(key: Key) -> str:
    return f"{key[0]} {key[1]:03}, slice {key[2]:03}"


def _image(load: archive.Load, place: archive.Place, where: str) -> np.ndarray:
    """float32 (rows, columns): the project computes in it and stores twice as many bytes, so nothing is rounded."""
    pixels = _array(load, place, where)
    if pixels.dtype.kind != "f":
        raise Fault("not_float", f"{where} holds {pixels.dtype}, not z-scores in floats; another program made it")
    npy.check_finite(pixels, where)
    if np.abs(pixels).max() > math.sqrt(pixels.size):  # No value of n lies further from their mean.
        message = f"{where} holds {pixels.min():g} to {pixels.max():g}, which no z-scores can be; scale it to them"
        raise Fault("not_zscore", message)
    return pixels.astype(np.float32)


def _mask(load: archive.Load, place: archive.Place, where: str) -> np.ndarray:
    """bool (rows, columns), from booleans or numbers."""
    marks = _array(load, place, where)
    if marks.dtype.kind not in "biuf":
        raise Fault("not_a_label", f"{where} holds {marks.dtype}, not marks in booleans or numbers; fetch it again")
    npy.check_finite(marks, where)
    return marks > 0


def _array(load: archive.Load, place: archive.Place, where: str) -> np.ndarray:
    pixels = npy.read_array(load(place, where), where)
    if pixels.ndim != 2 or not pixels.size:
        raise Fault("not_2d", f"{where} is no image of one number a pixel: its shape is {pixels.shape}")
    return pixels


def _joined(images: Mapping[Key, np.ndarray]) -> tuple[np.ndarray, dict[Key, int]]:
    """Voxels (slices, rows, columns) in the mapping's order, copies left out, and where each slice has got to."""
    kept: list[np.ndarray] = []
    places: dict[Key, int] = {}
    glances: list[np.ndarray] = []
    for key, image in images.items():
        glance = image[::_EVERY_PX, ::_EVERY_PX]
        alike = (n for n, other in enumerate(glances) if _agree(glance, other) and _one_slice(image, kept[n]))
        places[key] = next(alike, len(kept))
        if places[key] == len(kept):
            kept.append(image)
            glances.append(glance)
    return np.stack(kept), places


def _one_slice(image: np.ndarray, other: np.ndarray) -> bool:
    """Whether two images show the same slice: that is so where they agree to the last bit in all that both kept.

    Chance has a part in what the project takes for lung, and the rim of it can differ from one file to the next.
    Images that have little in common, or are all 0, say nothing.
    """
    shared = np.count_nonzero((image != 0) & (other != 0))
    most = max(np.count_nonzero(image), np.count_nonzero(other))
    return bool(2 * shared > most) and _agree(image, other)


def _agree(image: np.ndarray, other: np.ndarray) -> bool:
    return bool(((image == other) | (image == 0) | (other == 0)).all())


def _nodules(marks: Mapping[Key, np.ndarray], places: Mapping[Key, int], shape: tuple[int, ...]) -> tuple[Nodule, ...]:
    """One for each number of a nodule under which anything is marked."""
    nodules: list[Nodule] = []
    for _, keys in itertools.groupby(sorted(marks), key=lambda key: key[:2]):
        mask = np.zeros(shape, bool)
        for key in keys:
            mask[places[key]] |= marks[key]
        if mask.any():
            nodules.append(Nodule(len(nodules), (reading(0, mask),)))
    return tuple(nodules)
