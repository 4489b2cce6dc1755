"""What `lungjax` itself offers for one scan: `read_scan` and `scan_from_array`, then `predict`. Documented there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lungjax import paths
from lungjax.ct import hounsfield
from lungjax.ct.scan import Scan
from lungjax.ct.source import Entry, Quarantined, chief
from lungjax.errors import Fault, InputError
from lungjax.prediction import arrays, pipeline, sources
from lungjax.prediction.candidate_classifier import CandidateClassifier
from lungjax.prediction.nodule_classifier import NoduleClassifier
from lungjax.prediction.patient_classifier import PatientClassifier
from lungjax.prediction.result import Prediction
from lungjax.prediction.sliding_window import Segmenter

MOST_LISTED = 20
"""Scans of a source that an error lists."""
_UPRIGHT = 0.8
"""Least cosine between the normal of axial slices and the body's axis."""
_TOLERANCE = 0.01
"""How far a spacing and the affine's may differ, as a share of it."""


def read_scan(path: Path | str, *, series_uid: str | None = None) -> Scan:
    """See `lungjax.read_scan`."""
    source = paths.local(path)
    module, entries, quarantined = sources.find_scans(source)
    try:
        return sources.read(module, _chosen(source, entries, quarantined, series_uid))
    except Fault as fault:
        raise InputError(f"{source}: the scan cannot be read: {fault.name}: {fault.message}.") from fault


def _chosen(source: Path, entries: Sequence[Entry], quarantined: Sequence[Quarantined], key: str | None) -> Entry:
    """The only scan of a source, or the one that is asked for."""
    if not entries:
        why = f": {chief(quarantined).name}: {chief(quarantined).message}" if quarantined else ""
        raise InputError(f"{source} holds no scan that can be read{why}.")
    chosen = [entry for entry in entries if key is None or entry.key == key]
    if len(chosen) == 1:
        return chosen[0]
    for scan in quarantined:
        if scan.key == key:
            raise InputError(f"{source}: the scan {key} cannot be read: {scan.name}: {scan.message}.")
    listed = [f"  {entry.key}  (patient {entry.patient_id}, {entry.where})" for entry in entries[:MOST_LISTED]]
    more = [f"  and {len(entries) - MOST_LISTED} more"] if len(entries) > MOST_LISTED else []
    problem = (
        "give the folder of one of them, or in Python its series_uid"
        if key is None
        else f"none of them has the series_uid {key!r}"
    )
    raise InputError(f"{source} holds {len(entries)} scans, {problem}:", *listed, *more)


def scan_from_array(
    hu: np.ndarray,
    *,
    spacing_mm: tuple[float, float, float],
    affine_lps: np.ndarray | None = None,
    patient_id: str = "unknown",
) -> Scan:
    """See `lungjax.scan_from_array`."""
    hu = np.rint(arrays.checked_hu(hu, "slices", "rows", "columns")).astype(np.int16)
    if not len(hu):
        raise InputError("hu has no slice.")
    spacing = np.asarray(spacing_mm, np.float64)
    if spacing.shape != (3,) or not (np.isfinite(spacing) & (spacing > 0)).all():
        raise InputError(f"spacing_mm is {spacing_mm}; it must be three numbers above 0: slice, row, column.")
    affine = np.diag([*spacing[::-1], 1.0]) if affine_lps is None else _checked_affine(affine_lps, spacing)
    normal = affine[:3, 2] / np.linalg.norm(affine[:3, 2])
    return Scan(
        patient_id=patient_id,
        study_uid="",
        series_uid="",
        voxels=hu,
        intensity="hu",
        z_mm=float(normal @ affine[:3, 3]) + spacing[0] * np.arange(len(hu)),
        spacing_mm=(float(spacing[0]), float(spacing[1]), float(spacing[2])),
        sop_uids=("",) * len(hu),
        padding_hu=hounsfield.padding(hu, None),
        nodules=(),
        affine_lps=affine,
        source="an array",
    )


def _checked_affine(affine_lps: np.ndarray, spacing_mm: np.ndarray) -> np.ndarray:
    """float64, if it is an affine of that spacing, with slices that ascend from the feet to the head."""
    affine = np.asarray(affine_lps, np.float64)
    if affine.shape != (4, 4) or not np.isfinite(affine).all() or (affine[3] != (0, 0, 0, 1)).any():
        raise InputError("affine_lps is no affine: it must be 4 x 4 finite numbers, the last row 0, 0, 0, 1.")
    steps_mm = np.linalg.norm(affine[:3, :3], axis=0)[::-1]
    if (np.abs(steps_mm - spacing_mm) > _TOLERANCE * spacing_mm).any():
        its = ", ".join(f"{mm:g}" for mm in steps_mm)
        raise InputError(f"affine_lps has a spacing of {its} mm (slice, row, column), unlike spacing_mm.")
    if affine[2, 2] < _UPRIGHT * steps_mm[0]:
        raise InputError(
            "affine_lps has slices that do not ascend from the feet to the head; turn hu and the affine first."
        )
    return affine


def predict(
    scan: Scan,
    *,
    model: Path | str | Segmenter,
    candidate_classifier: Path | str | CandidateClassifier | None,
    nodule_classifier: Path | str | NoduleClassifier | None,
    patient_classifier: Path | str | PatientClassifier | None,
    prevalence: str | float,
    device: str | None,
    false_positives: float | None,
    threshold: float | None,
) -> Prediction:
    """See `lungjax.predict`."""
    if not isinstance(scan, Scan):
        raise InputError(
            f"predict takes a scan, not a {type(scan).__name__}: make one by read_scan or scan_from_array."
        )
    opened = pipeline.open_pipeline(
        model,
        candidate_classifier=candidate_classifier,
        nodule_classifier=nodule_classifier,
        patient_classifier=patient_classifier,
        device=device,
        prevalence=prevalence,
        false_positives=false_positives,
        threshold=threshold,
    )
    return opened.predict(scan)
