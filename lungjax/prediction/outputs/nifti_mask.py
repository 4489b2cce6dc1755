"""A mask as NIfTI-1, `.nii.gz`, where its scan lies."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

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
    steps_mm = np.linalg.norm(affine[:3, :3], axis=0)
    rotation = affine[:3, :3] / steps_mm
    handed = -1.0 if np.linalg.det(rotation) < 0 else 1.0
    b, c, d, a = Rotation.from_matrix(rotation * (1, 1, handed)).as_quat()
    sign = -1.0 if a < 0 else 1.0  # The format leaves out a, which it takes to be positive.
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, *mask.shape[::-1], 1, 1, 1, 1)
    struct.pack_into("<hh", header, 70, 2, 8)  # uint8, 8 bits
    struct.pack_into("<8f", header, 76, handed, *steps_mm, 0, 0, 0, 0)
    struct.pack_into("<ff", header, 108, 352, 1)  # Where voxels begin; their slope.
    struct.pack_into("<B", header, 123, 2)  # mm
    struct.pack_into("<hh", header, 252, _SCANNER, _SCANNER)
    struct.pack_into("<6f", header, 256, sign * b, sign * c, sign * d, *affine[:3, 3])
    struct.pack_into("<12f", header, 280, *affine[:3].ravel())
    header[344:348] = b"n+1\0"
    path.write_bytes(gzip.compress(bytes(header) + np.ascontiguousarray(mask, np.uint8).tobytes(), 6, mtime=0))
