"""A mask as NIfTI-1, `.nii.gz`, where its scan lies."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np

from lungjax.ct.orientation import Turn

_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""DICOM counts to the left and the back, NIfTI to the right and the front."""
_SCANNER = 1
"""Code of an affine into the scanner's coordinates."""


def write(path: Path, mask: np.ndarray, affine_lps: np.ndarray, turn: Turn | None = None) -> None:
    """Writes a label map; equal masks give equal bytes.

    It lies in the grid of the scan's source: of a NIfTI file, with the very numbers of its affine and spacing, for
    programs that compare them. qform and sform are the same.

    Args:
      path: `.nii.gz`.
      mask: (slices, rows, columns) uint8, of the scan.
      affine_lps: (4, 4), from (column, row, slice, 1) of the scan to mm to the left, back and head.
      turn: of the scan.
    """
    affine = _TO_RAS @ affine_lps
    if turn is not None:
        mask = turn.back(mask)
        affine = _TO_RAS @ turn.affine_lps if turn.affine_ras is None else turn.affine_ras
    image = nibabel.Nifti1Image(np.asarray(mask, np.uint8).T, affine)
    image.header.set_xyzt_units("mm")
    image.set_qform(affine, _SCANNER)
    image.set_sform(affine, _SCANNER)
    if turn is not None:
        # As the header has it: the length of the affine's columns may differ in the last digit.
        image.header["pixdim"][1:4] = np.linalg.norm(turn.affine_lps[:3, :3], axis=0)
    path.write_bytes(gzip.compress(image.to_bytes(), 6, mtime=0))


def read(path: Path, turn: Turn | None = None) -> np.ndarray:
    """(slices, rows, columns) uint8 of the scan, from a label map that `write` has written for it."""
    image = nibabel.Nifti1Image.from_bytes(gzip.decompress(path.read_bytes()))
    mask = np.asarray(image.dataobj, np.uint8).T
    return mask if turn is None else turn.forth(mask)
