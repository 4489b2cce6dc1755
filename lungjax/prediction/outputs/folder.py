"""The folder of one scan: every file that its prediction is written to, complete or not at all.

mask.nii.gz       the nodules where they lie in the scan: a voxel's value is the number of its nodule
nodules.csv       a line for each nodule
report.json       all that is predicted, and of what and by which models: see `report_json`
report.html       the scan to scroll through, with its nodules
overlay.png       the nodules on one sheet
segmentation.dcm, report.dcm    of a scan that was read from DICOM: DICOM-SEG, and a structured report (TID 1500)

A refused scan has nodules.csv and report.json alone: an empty mask would say that it holds no nodule.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np

from lungjax import unfinished
from lungjax.ct import dicom
from lungjax.ct.scan import Scan
from lungjax.errors import Fault, InputError
from lungjax.prediction.outputs import contact_sheet, html_report, nifti_mask, report_json

REPORT = "report.json"


def is_free(folder: Path) -> bool:
    """Whether nothing is there, or an empty folder."""
    if not folder.exists():
        return not folder.is_symlink()  # To what is not there.
    return folder.is_dir() and not any(folder.iterdir())


def write(folder: Path, scan: Scan, mask: np.ndarray, report: dict[str, Any]) -> None:
    """Makes the folder; all of its files are there at once.

    Args:
      folder: where nothing is, or an empty folder; those above it are made.
      scan: that was looked at.
      mask: uint8 of its shape, the number of the nodule.
      report: by `report_json.as_dict`; a warning is added where DICOM cannot be written.

    Raises:
      InputError: the folder holds something, or cannot be made.
    """
    if not is_free(folder):
        raise InputError(f"{folder} exists and is not an empty folder; name another one.")
    unfinished.refuse_fixed(folder)
    with unfinished.beside(folder) as holder:
        temporary = holder / folder.name
        temporary.mkdir()
        (temporary / "nodules.csv").write_bytes(report_json.nodules_csv(report["nodules"]).encode())
        if report["refused"] is None:
            nifti_mask.write(temporary / "mask.nii.gz", mask, report_json.affine_of(scan), scan.turn)
            contact_sheet.draw(temporary / "overlay.png", hu=scan.voxels, mask=mask, report=report)
            if scan.dicom_files:
                report["warnings"] += _write_dicom(temporary, scan, mask, report)
            html_report.write(temporary / "report.html", hu=scan.voxels, mask=mask, report=report)
        (temporary / REPORT).write_bytes((json.dumps(report, indent=1) + "\n").encode())
        if folder.exists():
            folder.rmdir()  # Not every system renames a folder onto an empty one.
        temporary.replace(folder)


def _write_dicom(folder: Path, scan: Scan, mask: np.ndarray, report: dict[str, Any]) -> list[str]:
    """Writes DICOM; or returns one sentence why there is none."""
    if importlib.util.find_spec("highdicom") is None:
        return ["No DICOM segmentation and structured report: they need `pip install 'lungjax[dicom-seg]'`."]
    from lungjax.prediction.outputs import dicom_seg

    try:
        headers = dicom.read_headers(scan.dicom_files, scan.sop_uids)
        if why := dicom.why_not_referred(headers):
            return [f"No DICOM segmentation and structured report: {why}."]
        for header in headers:
            if not header.get("SliceThickness"):  # Of the segmentation: its slices are as thick as they are apart.
                header.SliceThickness = round(scan.spacing_mm[0], 6)
        dicom_seg.write(folder, headers, mask if scan.turn is None else scan.turn.back(mask), report)
    except (AttributeError, ValueError, TypeError, LookupError, Fault) as error:  # Headers may lack what DICOM demands.
        return [f"No DICOM segmentation and structured report: the scan's headers do not allow it ({error})."]
    return []
