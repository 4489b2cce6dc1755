"""LIDC as `.npy` slices from the project LIDC-IDRI-Preprocessing (jaeho3690): a folder, a `.zip` or a `.tar`.

    <anything>/{Image,Mask}/[LIDC-IDRI-dddd/]dddd_{NI,MA}<nodule>_slice<n>.npy
    <anything>/{Image,Mask}/[LIDC-IDRI-dddd/]dddd_{CN,CM}001_slice<n>.npy         of patients without nodules

An image holds a slice's HU minus their mean, divided by their standard deviation, filtered, and 0 outside the lungs:
HU, positions and spacing are lost. The mask is where half of a nodule's readers agree, not the outline of any one of
them, so each nodule has one unrated reading, in slot 0. `n` counts from the lowest slice of the nodule, not of the
scan, and a slice with two nodules occurs twice. The project's table of slices, meta_info.csv, is not used, nor is any
split derived from it.
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
from lungjax.preparation.formats import archive, npy, without_checks
from lungjax.preparation.formats.bare import bare_scan, unrated_reading

READERS = 1
"""One mask per nodule: where half of LIDC's readers agree."""
ONE_PROCESS = False
HAS_PATIENT_IDS = True

_LAYOUT = re.compile(
    r"(?:.*/)?(?:Image|Mask)/(?:LIDC-IDRI-\d{4}/)*"
    r"(?P<patient>\d{4})_(?P<letters>NI|MA|CN|CM)(?P<nodule>\d{3})_slice(?P<number>\d{3})\.npy",
    re.ASCII,
)
_IMAGES = {"NI": "nodule", "CN": "clean"}
_MASKS = {"MA": "nodule", "CM": "clean"}
_THUMBNAIL_STEP_PX = 16
"""Every how many rows and columns an image is sampled for a first, fast comparison."""

Key = tuple[str, int, int]
"""A slice of a patient: `nodule` or `clean`, the nodule's number, the slice's number."""


def matches(source: Path) -> bool:
    """Whether a folder or archive holds any file of this layout; reads names only."""
    return archive.contains(source, _LAYOUT)


def find(source: Path) -> tuple[list[Entry], list[Quarantined]]:
    """Finds every patient, with one scan each, from names alone; both lists are sorted by key, the patient.

    Quarantined are patients with a file of the same name in two places (`duplicate_positions`).

    Raises:
      InputError: the archive cannot be read, or holds a name or link that leads out of it.
    """
    patients: dict[str, dict[tuple[str, int, int], archive.Place]] = {}
    duplicates: dict[str, str] = {}
    for name, place in archive.members(source):
        match = _LAYOUT.fullmatch(name)
        if match:
            patient_id = f"LIDC-IDRI-{match['patient']}"
            files = patients.setdefault(patient_id, {})
            file = match["letters"], int(match["nodule"]), int(match["number"])
            if file in files:
                duplicates[patient_id] = name
            files[file] = place
    entries: list[Entry] = []
    quarantined: list[Quarantined] = []
    for patient_id, files in sorted(patients.items()):
        where = f"{source}: {patient_id}"
        if patient_id in duplicates:
            message = f"{source}/{duplicates[patient_id]} also exists in another folder; keep one"
            quarantined.append(Quarantined(patient_id, where, "duplicate_positions", message))
        else:
            entries.append(Entry(patient_id, patient_id, where, (str(source), tuple(sorted(files.items())))))
    return entries, quarantined


def examine(source: Path) -> tuple[list[tuple[Entry, Check | None]], list[Quarantined]]:
    """As `find`; nothing can be checked without reading the files."""
    return without_checks(find(source))


def read(entry: Entry) -> Scan:
    """Reads one patient, nodule by nodule, each from its lowest slice to its highest; no slice occurs twice.

    Raises:
      Fault: `missing_image`, `missing_mask`, `mask_shape`, `mixed_geometry`, `unreadable_file`, `too_large`,
        `object_array`, `not_2d`, `not_float`, `not_finite` or `not_zscore`.
    """
    source, files = entry.locator
    images = {(_IMAGES[file[0]], *file[1:]): place for file, place in files if file[0] in _IMAGES}
    masks = {(_MASKS[file[0]], *file[1:]): place for file, place in files if file[0] in _MASKS}
    _check_pairs(images, masks, entry.where)
    with archive.open_members(Path(source)) as load:
        pixels = {
            key: _load_image(load, images[key], f"{entry.where}: image of {_describe(key)}") for key in sorted(images)
        }
        marks = {key: _load_mask(load, masks[key], f"{entry.where}: mask of {_describe(key)}") for key in sorted(masks)}
    shapes = sorted({image.shape for image in pixels.values()})
    if len(shapes) > 1:
        raise Fault("mixed_geometry", f"{entry.where} has slices of several sizes: {shapes}")
    for key, mask in marks.items():
        if mask.shape != shapes[0]:
            message = (
                f"{entry.where}: mask of {_describe(key)} has {mask.shape} pixels, but the images have {shapes[0]}"
            )
            raise Fault("mask_shape", message)
    voxels, places = _merge_slices(pixels)
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
    """Checks that every slice has an image and a mask."""
    if missing := sorted(images.keys() - masks.keys()):
        raise Fault("missing_mask", f"{where} has an image but no mask of {_describe(missing[0])}; fetch it again")
    if extra := sorted(masks.keys() - images.keys()):
        raise Fault("missing_image", f"{where} has a mask but no image of {_describe(extra[0])}; fetch it again")


def _describe(key: Key) -> str:
    return f"{key[0]} {key[1]:03}, slice {key[2]:03}"


def _load_image(load: archive.Load, place: archive.Place, where: str) -> np.ndarray:
    """float32 (rows, columns): the project computes in float32 and stores float64, so nothing is rounded."""
    pixels = _load_array(load, place, where)
    if pixels.dtype.kind != "f":
        raise Fault(
            "not_float", f"{where} holds {pixels.dtype}, not z-scores in floats; it was made by another program"
        )
    npy.check_finite(pixels, where)
    if np.abs(pixels).max() > math.sqrt(pixels.size):  # Among n values none can lie further from the mean.
        message = (
            f"{where} holds {pixels.min():g} to {pixels.max():g}, which cannot be z-scores; convert it to z-scores"
        )
        raise Fault("not_zscore", message)
    return pixels.astype(np.float32)


def _load_mask(load: archive.Load, place: archive.Place, where: str) -> np.ndarray:
    """bool (rows, columns), from a file of booleans or numbers."""
    marks = _load_array(load, place, where)
    if marks.dtype.kind not in "biuf":
        raise Fault("not_a_label", f"{where} holds {marks.dtype}, not a mask of booleans or numbers; store these")
    npy.check_finite(marks, where)
    return marks > 0


def _load_array(load: archive.Load, place: archive.Place, where: str) -> np.ndarray:
    pixels = npy.read_array(load(place, where), where)
    if pixels.ndim != 2 or not pixels.size:
        raise Fault("not_2d", f"{where} is not an image with one number per pixel: its shape is {pixels.shape}")
    return pixels


def _merge_slices(images: Mapping[Key, np.ndarray]) -> tuple[np.ndarray, dict[Key, int]]:
    """Voxels (slices, rows, columns) in the mapping's order without duplicates, and the new index of each slice."""
    kept: list[np.ndarray] = []
    places: dict[Key, int] = {}
    thumbnails: list[np.ndarray] = []
    for key, image in images.items():
        thumbnail = image[::_THUMBNAIL_STEP_PX, ::_THUMBNAIL_STEP_PX]
        alike = (
            n
            for n, other in enumerate(thumbnails)
            if _agree_where_both_nonzero(thumbnail, other) and _show_same_slice(image, kept[n])
        )
        places[key] = next(alike, len(kept))
        if places[key] == len(kept):
            kept.append(image)
            thumbnails.append(thumbnail)
    return np.stack(kept), places


def _show_same_slice(image: np.ndarray, other: np.ndarray) -> bool:
    """Whether two images show the same slice: they agree to the last bit wherever both are inside the lungs.

    The project's lung segmentation is partly random, so its border can differ from one file to the next. Images that
    share little lung, or are all 0, do not count as the same.
    """
    shared = np.count_nonzero((image != 0) & (other != 0))
    larger = max(np.count_nonzero(image), np.count_nonzero(other))
    return bool(2 * shared > larger) and _agree_where_both_nonzero(image, other)


def _agree_where_both_nonzero(image: np.ndarray, other: np.ndarray) -> bool:
    return bool(((image == other) | (image == 0) | (other == 0)).all())


def _nodules(marks: Mapping[Key, np.ndarray], places: Mapping[Key, int], shape: tuple[int, ...]) -> tuple[Nodule, ...]:
    """One nodule for each nodule number with a mask that is not empty."""
    nodules: list[Nodule] = []
    for _, keys in itertools.groupby(sorted(marks), key=lambda key: key[:2]):
        mask = np.zeros(shape, bool)
        for key in keys:
            mask[places[key]] |= marks[key]
        if mask.any():
            nodules.append(Nodule(len(nodules), (unrated_reading(0, mask),)))
    return tuple(nodules)
