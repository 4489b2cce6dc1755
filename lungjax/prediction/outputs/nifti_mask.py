"""A mask as NIfTI-1, `.nii.gz`, where its scan lies."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np

_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""DICOM counts to the left and the back, NIfTI to the right and the front."""
_SCANNER = 1
"""Code of an affine into the scanner's coordinates."""


def write(path: Path, mask: np.ndarray, affine_lps: np.ndarray) -> None:
    """Writes a label map; equal masks give equal bytes.

    Args:
      path: `.nii.gz`.
      mask: (slices, rows, columns) uint8.
      affine_lps: (4, 4), from (column, row, slice, 1) to mm to the left, back and head.
    """
    affine = _TO_RAS @ affine_lps
    image = nibabel.Nifti1Image(np.asarray(mask, np.uint8).T, affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, _SCANNER)
    image.set_qform(affine, _SCANNER)
    path.write_bytes(gzip.compress(image.to_bytes(), 6, mtime=0))


def read(path: Path) -> np.ndarray:
    """(slices, rows, columns) uint8 of a label map that `write` has written."""
    image = nibabel.Nifti1Image.from_bytes(gzip.decompress(path.read_bytes()))
    return np.asarray(image.dataobj, np.uint8).T
