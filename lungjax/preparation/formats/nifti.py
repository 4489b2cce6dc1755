"""CT volumes as NIfTI, with or without a label map each; for data that is not LIDC. A folder of

    <case>.nii.gz and, beside it, <case>_label.nii.gz, _seg or _mask          one folder of everything
    images<any>/<case>_0000.nii.gz and labels<any>/<case>.nii.gz              nnU-Net; without `_0000`, the Decathlon

or of `.nii`, in any folder below. The case is the patient, so its name must be unique. A label map is one reader,
in slot 0, and each of its connected pieces (voxels that touch by a corner count) is a nodule, whatever the number
in it. A case without a label map is one in which nobody marked anything: good for pretraining, while as a truth it
would say "no nodule".
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from scipy import ndimage

from lungjax.ct import connected_components, hounsfield, nifti, volume
from lungjax.ct.scan import RATING_NAMES, Nodule, Reading, Scan
from lungjax.ct.source import Check, Entry, Quarantined, not_entered, walk
from lungjax.errors import Fault
from lungjax.preparation.formats import examined, npy

READERS = 1
"""Who made the label map."""
ONE_PROCESS = False
TELLS_PATIENTS = True

_VOLUME = re.compile(r"(?P<stem>[^.].*?)\.nii(?:\.gz)?")
_LABEL = re.compile(r"(?P<case>.+)_(?:label|seg|mask)")
_CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")
_APART = 0.1
"""How far a label map may lie from its volume, as a share of a voxel."""


@dataclasses.dataclass(frozen=True, eq=False)
class _File:
    path: Path
    header: nifti.Header
    layout: volume.Layout


def matches(source: Path) -> bool:
    """Whether a folder holds any `.nii` or `.nii.gz`; reads names only."""
    return source.is_dir() and any(fault is None and _VOLUME.fullmatch(path.name) for path, fault in walk(source))


def find(source: Path) -> tuple[list[Entry], list[Quarantined]]:
    """Every case, by names alone; both lists sorted by key, which is the case's name, and so the patient's.

    Quarantined are label maps without a volume (`missing_image`), volumes or label maps of the same case in two
    places (`duplicate_series`), further channels, `_0001` and so on (`several_channels`), and folders that are not
    entered (`link`, `unreadable_folder`).
    """
    images: dict[str, Path] = {}
    labels: dict[str, Path] = {}
    quarantined: list[Quarantined] = []

    def quarantine(path: Path, name: str, why: str) -> None:
        quarantined.append(Quarantined(path.relative_to(source).as_posix(), str(path), name, f"{path} {why}"))

    for path, fault in walk(source):
        if fault:
            quarantined.append(not_entered(source, path, fault))
            continue
        part = _VOLUME.fullmatch(path.name)
        if part is None:
            continue
        stem, is_label = _kind(path, part["stem"])
        kind = labels if is_label else images
        if stem in kind:
            quarantine(path, "duplicate_series", f"has the name of {kind[stem]}; rename or remove one of them")
        else:
            kind[stem] = path
    entries = []
    for stem, path in images.items():
        case, channel = _case(stem, path, images, labels)
        if channel:
            quarantine(path, "several_channels", f"is channel {channel} of {case}; a CT has one, 0, so remove others")
        else:
            label = str(labels.pop(case)) if case in labels else None
            entries.append(Entry(case, case, str(path), (str(path), label)))
    for case, path in labels.items():
        quarantine(path, "missing_image", f"is a label map without a volume named {case}; fetch that too")
    return sorted(entries, key=lambda one: one.key), sorted(quarantined, key=lambda one: one.key)


def check(entry: Entry) -> Check:
    """What the headers of a case and of its label map tell."""
    try:
        image, _ = _layouts(entry)
    except Fault as fault:
        return Check(0, (fault,))
    return Check(image.layout.shape[0])


def examine(source: Path) -> tuple[list[tuple[Entry, Check | None]], list[Quarantined]]:
    """What `find` finds, and what names and headers tell of each."""
    return examined(find(source), check)


def read(entry: Entry) -> Scan:
    """One case, its axes turned to those of an axial CT: columns to the left, rows to the back, slices upwards.

    Raises:
      Fault: what `check` finds in the headers (`unreadable_file`, `not_3d`, `missing_orientation`, `too_large`,
        `oblique_orientation`, `mask_shape` or `mask_position`), and of the voxels `unreadable_file`, `not_finite`,
        `hu_out_of_range`, `not_hu` or `not_a_label`.
    """
    image, label = _layouts(entry)
    hu = hounsfield.to_int16(_voxels(image), str(image.path))
    nodules = () if label is None else _nodules(_marks(label))
    return image.layout.scan(hu, key=entry.key, patient_id=entry.patient_id, nodules=nodules)


def _kind(path: Path, stem: str) -> tuple[str, bool]:
    """Name of the case, and whether it is its label map."""
    in_labels = path.parent.name.startswith("labels")
    beside = None if in_labels else _LABEL.fullmatch(stem)
    return (beside["case"] if beside else stem), in_labels or beside is not None


def _case(stem: str, path: Path, images: Mapping[str, Path], labels: Mapping[str, Path]) -> tuple[str, int]:
    """Case and channel. A number at the end is a channel in nnU-Net's folders only, and if no label map has it too."""
    part = _CHANNEL.fullmatch(stem)
    if part is None or stem in labels or not path.parent.name.startswith("images"):
        return stem, 0
    if f"{part['case']}_0000" not in images:
        return stem, 0
    return part["case"], int(part["channel"])


def _layouts(entry: Entry) -> tuple[_File, _File | None]:
    """The volume and its label map, which lies voxel by voxel over it."""
    image = _laid_out(Path(entry.locator[0]))
    if entry.locator[1] is None:
        return image, None
    label = _laid_out(Path(entry.locator[1]))
    _check_over(label, image.layout)
    return image, label


def _laid_out(path: Path) -> _File:
    header = nifti.read_header(path)
    return _File(path, header, volume.lay_out(header.geometry, path))


def _voxels(file: _File) -> np.ndarray:
    """(slices, rows, columns) of the numbers in the file, turned."""
    return file.layout.turn(nifti.read_voxels(file.path, file.header))


def _check_over(label: _File, image: volume.Layout) -> None:
    if label.layout.shape != image.shape:
        message = f"{label.path} has {label.layout.shape} voxels, its volume {image.shape} (slices, rows, columns)"
        raise Fault("mask_shape", message)
    far_corners_mm = [
        one.position_mm + np.array(one.spacing_mm[::-1]) * image.shape[::-1] for one in (label.layout, image)
    ]
    off_mm = np.abs([label.layout.position_mm - image.position_mm, far_corners_mm[0] - far_corners_mm[1]]).max(axis=0)
    if (off_mm > _APART * np.array(image.spacing_mm[::-1])).any():
        message = f"{label.path} lies up to {off_mm.max():g} mm off its volume; resample it onto that"
        raise Fault("mask_position", message)


def _marks(label: _File) -> np.ndarray:
    """bool (slices, rows, columns)."""
    marks = _voxels(label)
    if marks.dtype.kind == "f":
        npy.check_finite(marks, str(label.path))
        if not (marks == np.rint(marks)).all():
            raise Fault("not_a_label", f"{label.path} holds fractions, not whole numbers; store the label map itself")
    return marks != 0


def _nodules(marks: np.ndarray) -> tuple[Nodule, ...]:
    """A nodule for each connected piece, from the lowest to the highest."""
    found = ndimage.find_objects(marks.view(np.uint8))
    if not found:
        return ()
    (whole,) = found  # The box of all marks: numbering the pieces of a whole volume would take much memory.
    pieces = connected_components.label(marks[whole])
    return tuple(
        Nodule(index, (Reading(0, -1, (0,) * len(RATING_NAMES), pieces[box] == index + 1, _origin(whole, box)),))
        for index, box in enumerate(ndimage.find_objects(pieces))
    )


def _origin(whole: tuple[slice, ...], box: tuple[slice, ...]) -> tuple[int, int, int]:
    first, second, third = (outer.start + inner.start for outer, inner in zip(whole, box, strict=True))
    return first, second, third
