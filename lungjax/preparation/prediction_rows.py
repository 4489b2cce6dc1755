"""The nodules of `predict` in one of LIDC's scans, as rows of the format `nodule-patches`."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from lungjax import json_files
from lungjax.ct import nifti, orientation, volume
from lungjax.ct.scan import RATING_NAMES, READERS, Nodule, Scan
from lungjax.data import crop
from lungjax.errors import Fault
from lungjax.evaluation.detection import reference
from lungjax.prediction import measure, patches, run

MOST_NODULES = 8
"""The number of nodules per scan, those with the highest scores: as many as `configs/diagnose.py` uses."""


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
    """A finding: its patch, and the readers' marks of the nodule that it shares most voxels with.

    The field names are those of the file. The scan is not kept: a thousand scans would fill the memory.
    """

    patient_id: str
    series_uid: str
    sop_uid: str
    z_mm: float
    pixel_spacing_mm: float
    hu: np.ndarray  # (SIDE_PX, SIDE_PX)
    reader_ratings: np.ndarray  # (READERS, 9)
    reader_outlines: np.ndarray  # (SIDE_PX, SIDE_PX), one bit per reader


def rows(scan: Scan, folder: Path) -> list[Row]:
    """The nodules that `predict` found, at most `MOST_NODULES`, those with the highest scores.

    Args:
      scan: the scan that `predict` read, with its readers' nodules.
      folder: predict's result for it.

    Raises:
      Fault: `not_predicted`, `refused`, `mask_shape`, or the mask cannot be read.
    """
    try:
        report = json_files.read(folder / run.REPORT)
        series_uid, refused, count = report["scan"]["series_uid"], report["refused"], len(report["nodules"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Fault(
            "not_predicted", f"{folder} has no report of this scan ({error}); run lungjax predict first"
        ) from error
    if series_uid != scan.series_uid:
        raise Fault("not_predicted", f"{folder} is of {series_uid}; run lungjax predict on this scan, too")
    if refused:
        raise Fault("refused", refused)
    mask = _mask(folder / "mask.nii.gz", scan)
    rows = []
    for number in range(1, min(count, MOST_NODULES) + 1):
        voxels = np.argwhere(mask == number)
        if not len(voxels):
            raise Fault("mask_shape", f"{folder / 'mask.nii.gz'} lacks nodule {number} of its report; predict again")
        rows.append(_row(scan, voxels))
    return rows


def _mask(path: Path, scan: Scan) -> np.ndarray:
    header = nifti.read_header(path)
    # LIDC's images are prepared as the readers saw them, which may not be as `predict` turned them.
    axes = orientation.AXIAL
    if scan.affine_lps is not None:
        axes = tuple(np.sign(np.diag(scan.affine_lps)[:3]).astype(int).tolist())
    mask = volume.lay_out(header.geometry, path, axes=axes).turn.forth(nifti.read_voxels(path, header))
    if mask.shape != scan.voxels.shape:
        raise Fault(
            "mask_shape", f"{path} has {mask.shape} voxels, but its scan has {scan.voxels.shape}; predict again"
        )
    return mask


def _row(scan: Scan, voxels: np.ndarray) -> Row:
    widest, _, _ = measure.recist(voxels, scan.spacing_mm)
    corner = patches.corner(voxels, widest)
    bits = np.zeros(scan.voxels.shape[1:], np.uint8)
    ratings = np.zeros((READERS, len(RATING_NAMES)), np.int8)
    nodule = _matching_nodule(scan, voxels)
    for reader, reading in enumerate(nodule.readings[:READERS] if nodule else ()):
        ratings[reader] = reading.ratings
        inside = widest - reading.origin[0]
        if 0 <= inside < len(reading.mask):
            bits[reading.box[1:]] |= reading.mask[inside].astype(np.uint8) << reader
    return Row(
        patient_id=scan.patient_id,
        series_uid=scan.series_uid,
        sop_uid=scan.sop_uids[widest],
        z_mm=float(scan.z_mm[widest]),
        pixel_spacing_mm=float(scan.spacing_mm[1]),
        hu=crop.cut(scan.voxels[widest], corner, patches.SIDE_PX).copy(),
        reader_ratings=ratings,
        reader_outlines=crop.cut(bits, corner, patches.SIDE_PX, fill=0).copy(),
    )


def _matching_nodule(scan: Scan, voxels: np.ndarray) -> Nodule | None:
    """The nodule whose outlines, by any reader, contain most of a finding's voxels; None where none contains any."""
    most_shared, best = 0, None
    for marked in reference.reference_nodules(scan):
        inside = voxels - marked.origin
        inside = inside[((inside >= 0) & (inside < marked.votes.shape)).all(axis=1)]
        shared = int((marked.votes[tuple(inside.T)] > 0).sum())
        if shared > most_shared:
            most_shared, best = shared, marked.index
    return next((nodule for nodule in scan.nodules if nodule.index == best), None)
