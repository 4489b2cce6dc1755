"""CT volumes as NIfTI or MetaImage, each with or without a label map; for data other than LIDC. A folder of

    <case>.nii.gz with <case>_label.nii.gz, _seg or _mask next to it          all in one folder
    <case>/ct.nii.gz with <case>/mask.nii.gz, or other words for both          a folder for each case
    images<any>/<case>_0000.nii.gz and labels<any>/<case>.nii.gz              nnU-Net; without `_0000`, the Decathlon
    ct/<case>.nii.gz and masks/<case>.nii.gz                                  likewise, however the first is called

or of `.nii`, `.mha` or `.mhd` files, in any folder below. The case is the patient, so its name must be unique; in names
of BIDS, `sub-01` is. A label map is one reader, in slot 0, and each of its connected components (corners connect, too)
is a nodule, whatever its number, unless the user names the numbers of nodules. Where some cases have a label map, those
without one are left out, unless the user says that they have no nodule; where none has, as for pretraining, all are
kept.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy import ndimage

from lungjax import json_files
from lungjax.ct import connected_components, volume
from lungjax.ct import read as ct
from lungjax.ct.scan import RATING_NAMES, Nodule, Reading, Scan
from lungjax.ct.source import Check, Entry, Quarantined, quarantine_path, walk
from lungjax.errors import Fault
from lungjax.preparation.formats import npy, with_checks

READERS = 1
"""The author of the label map."""
ONE_PROCESS = False
HAS_PATIENT_IDS = True

_LABEL = re.compile(r"(?P<case>.+)_(?:label|seg|mask)")
_ANY_VOLUME = re.compile(r"ct|image|imaging|img|scan|vol|volume", re.IGNORECASE)
_ANY_LABEL = re.compile(r"labels?|masks?|nodules?|segmentations?|seg", re.IGNORECASE)
"""Names of files that tell no case: in a folder for each case they are the same."""
_OF_SOURCE = "ct"
"""The case of such files that lie in no folder of the source."""
_LABELS = re.compile(r"labels.*|masks?|segmentations?|annotations?")
"""Folders of label maps that are called as their volumes are."""
_CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")
_MOST_ML = 500.0
"""A mass of 10 cm across."""
_DATASET = "dataset.json"
"""Of nnU-Net, beside its folders of images and labels."""
_MOST_ROUNDED = 0.05
"""How far a label may be from a whole number: some programs scale labels to fill an integer type, and round them so."""
_MAX_OFFSET = 0.1
"""How far a label map may be displaced from its volume, as a fraction of a voxel."""


@dataclasses.dataclass(frozen=True, eq=False)
class _File:
    path: Path
    layout: volume.Layout


def matches(source: Path) -> bool:
    """Whether a folder holds any file of NIfTI or MetaImage; reads names only."""
    return source.is_dir() and any(fault is None and ct.VOLUME.fullmatch(path.name) for path, fault in walk(source))


def find(source: Path) -> tuple[list[Entry], list[Quarantined]]:
    """Finds every case from names alone; both lists are sorted by key, the case's name, which is also the patient's.

    Quarantined are label maps without a volume (`missing_image`), volumes or label maps of the same case in two
    places (`duplicate_series`), further channels, `_0001` and so on (`several_channels`), and folders that are not
    opened (`link`, `unreadable_folder`).
    """
    images: dict[str, Path] = {}
    labels: dict[str, Path] = {}
    quarantined: list[Quarantined] = []

    def quarantine(path: Path, name: str, problem: str) -> None:
        quarantined.append(Quarantined(path.relative_to(source).as_posix(), str(path), name, f"{path} {problem}"))

    for path, fault in walk(source):
        if fault:
            quarantined.append(quarantine_path(source, path, fault))
            continue
        match = ct.VOLUME.fullmatch(path.name)
        if match is None:
            continue
        stem, is_label = _case_and_type(path, match["stem"], source)
        paths = labels if is_label else images
        if stem in paths:
            quarantine(path, "duplicate_series", f"is of the same case as {paths[stem]}; rename or remove one of them")
        else:
            paths[stem] = path
    entries = []
    for stem, path in images.items():
        case, channel = _case_and_channel(stem, path, images, labels)
        if channel:
            quarantine(
                path,
                "several_channels",
                f"is channel {channel} of {case}; a CT has only channel 0, so remove the others",
            )
        else:
            label = str(labels.pop(case)) if case in labels else None
            entries.append(Entry(case, ct.patient_of(case), str(path), (str(path), label)))
    for case, path in labels.items():
        quarantine(path, "missing_image", f"is a label map without a volume named {case}; fetch that too")
    return sorted(entries, key=lambda item: item.key), sorted(quarantined, key=lambda item: item.key)


def check(entry: Entry) -> Check:
    """Checks a case by the headers of its volume and its label map, and by the HU of some planes."""
    try:
        image, _ = _layouts(entry)
        return ct.check_volume(image.path)
    except Fault as fault:
        return Check(0, (fault,))


def examine(source: Path) -> tuple[list[tuple[Entry, Check | None]], list[Quarantined]]:
    """As `find`, with a `check` of each case."""
    return with_checks(find(source), check)


def read(entry: Entry) -> Scan:
    """Reads one case, with axes turned to those of an axial CT: columns to the left, rows to the back, slices upwards.

    Raises:
      Fault: the faults that `check` finds in the headers (`unreadable_file`, `not_3d`, `missing_orientation`,
        `too_large`, `oblique_orientation`, `mask_shape` or `mask_position`), and in the voxels `unreadable_file`,
        `not_finite`, `hu_out_of_range`, `not_hu`, `not_a_label`, `ignored_label` or `organ_map`.
    """
    image, label = _layouts(entry)
    hu, notes = image.layout.hu(ct.read_volume(image.path)[1], str(image.path))
    nodules = () if label is None else _nodules(_mask(label, tuple(entry.locator[2]) if entry.locator[2:] else ()))
    _check_sizes(nodules, image.layout.spacing_mm, entry.locator[1])
    return image.layout.scan(hu, key=entry.key, patient_id=entry.patient_id, nodules=nodules, notes=notes)


def _case_and_type(path: Path, stem: str, source: Path) -> tuple[str, bool]:
    """The name of the case, and whether the file is its label map."""
    in_labels = _is_in_labels(path)
    if not in_labels and (_ANY_LABEL.fullmatch(stem) or _ANY_VOLUME.fullmatch(stem)):
        folders = path.relative_to(source).parts[:-1]
        case = "_".join(folders) or _OF_SOURCE
        return case, _ANY_LABEL.fullmatch(stem) is not None
    suffix = None if in_labels else _LABEL.fullmatch(stem)
    return (suffix["case"] if suffix else stem), in_labels or suffix is not None


def _is_in_labels(path: Path) -> bool:
    return _LABELS.fullmatch(path.parent.name) is not None


def _case_and_channel(stem: str, path: Path, images: Mapping[str, Path], labels: Mapping[str, Path]) -> tuple[str, int]:
    """Case and channel. A final number is a channel only in nnU-Net's folders, and only if no label map has it, too."""
    match = _CHANNEL.fullmatch(stem)
    if match is None or stem in labels or not path.parent.name.startswith("images"):
        return stem, 0
    if f"{match['case']}_0000" not in images:
        return stem, 0
    return match["case"], int(match["channel"])


def _layouts(entry: Entry) -> tuple[_File, _File | None]:
    """The volume and its label map, checked to match voxel by voxel."""
    image = _read_layout(Path(entry.locator[0]))
    if entry.locator[1] is None:
        return image, None
    label = _read_layout(Path(entry.locator[1]))
    _check_position(label, image.layout)
    return image, label


def _read_layout(path: Path) -> _File:
    return _File(path, ct.lay_out(path))


def _check_position(label: _File, image: volume.Layout) -> None:
    if label.layout.shape != image.shape:
        message = (
            f"{label.path} has {label.layout.shape} voxels, but its volume has {image.shape} (slices, rows, columns)"
        )
        raise Fault("mask_shape", message)
    far_corners_mm = [(layout.affine_lps @ (*image.shape[::-1], 1))[:3] for layout in (label.layout, image)]
    offset_mm = np.abs(
        [(label.layout.affine_lps - image.affine_lps)[:3, 3], far_corners_mm[0] - far_corners_mm[1]]
    ).max(axis=0)
    if (offset_mm > _MAX_OFFSET * np.array(image.spacing_mm[::-1])).any():
        message = f"{label.path} is displaced by up to {offset_mm.max():g} mm; resample it onto its volume"
        raise Fault("mask_position", message)


def _check_sizes(nodules: Sequence[Nodule], spacing_mm: Sequence[float], where: str) -> None:
    """Raises the Fault `organ_map` where a mark is larger than any nodule or mass."""
    for nodule in nodules:
        ml = float(nodule.readings[0].mask.sum()) * math.prod(spacing_mm) / 1000
        if ml > _MOST_ML:
            held = f"{where} marks {ml:.0f} ml in one piece, as much as an organ"
            raise Fault("organ_map", f"{held}; say by --label which number is a nodule")


def _mask(label: _File, labels: Sequence[int]) -> np.ndarray:
    """bool (slices, rows, columns): where the map has one of `labels`, or anything but 0 if there are none."""
    marks = label.layout.turn.forth(ct.read_volume(label.path)[1])
    if marks.dtype.kind == "f":
        npy.check_finite(marks, str(label.path))
        labels_near = np.rint(marks)
        if np.abs(marks - labels_near).max() > _MOST_ROUNDED:
            raise Fault("not_a_label", f"{label.path} holds fractions, not whole numbers; store the labels themselves")
        marks = labels_near
    if labels:
        return np.isin(marks, labels)
    if (ignored := _ignored(label.path)) is not None and (marks == ignored).any():
        held = f"{label.path} holds the label {ignored}, which {_DATASET} calls ignored: neither a nodule nor none"
        raise Fault("ignored_label", f"{held}; say by --label which numbers are nodules, and all else is none")
    return marks != 0


def _ignored(path: Path) -> int | None:
    """The label that nnU-Net's description of a data set calls ignored; None where it has none, or is not there."""
    if not _is_in_labels(path):
        return None
    try:
        ignored = json_files.read(path.parent.parent / _DATASET)["labels"]["ignore"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return ignored if isinstance(ignored, int) else None


def _nodules(marks: np.ndarray) -> tuple[Nodule, ...]:
    """A nodule for each connected component, from the lowest to the highest."""
    boxes = ndimage.find_objects(marks.view(np.uint8))
    if not boxes:
        return ()
    (bounding_box,) = boxes  # Only the box of all marks: labelling a whole volume would take a lot of memory.
    components = connected_components.label(marks[bounding_box])
    return tuple(
        Nodule(
            index, (Reading(0, -1, (0,) * len(RATING_NAMES), components[box] == index + 1, _origin(bounding_box, box)),)
        )
        for index, box in enumerate(ndimage.find_objects(components))
    )


def _origin(bounding_box: tuple[slice, ...], box: tuple[slice, ...]) -> tuple[int, int, int]:
    first, second, third = (outer.start + inner.start for outer, inner in zip(bounding_box, box, strict=True))
    return first, second, third
