"""The mask as NIfTI, read back by SimpleITK and by our own reader."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from lungjax.ct import nifti
from lungjax.prediction.outputs import nifti_mask

MASK = np.random.default_rng(0).integers(0, 4, (5, 7, 9)).astype(np.uint8)


def affine(rotation: np.ndarray) -> np.ndarray:
    out = np.eye(4)
    out[:3, :3] = rotation * (0.7, 0.8, 2.5)
    out[:3, 3] = (-100, -150, 30)
    return out


@pytest.mark.parametrize(
    "rotation",
    [np.eye(3), np.diag([-1, -1, 1]), np.diag([1, -1, 1]), Rotation.from_euler("xyz", (8, -170, 5), True).as_matrix()],
    ids=["usual", "half a turn", "left-handed", "tilted"],
)
def test_it_lies_where_it_should(tmp_path: Path, rotation: np.ndarray):
    """By the sform and, with that blanked, by the qform."""
    path = tmp_path / "mask.nii.gz"
    nifti_mask.write(path, MASK, affine(rotation))
    for name in ("sform", "qform"):
        image = sitk.ReadImage(str(path))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image), MASK)
        for index in ((0, 0, 0), (8, 6, 4), (3, 1, 2)):
            expected = (affine(rotation) @ (*index, 1))[:3]
            np.testing.assert_allclose(image.TransformIndexToPhysicalPoint(index), expected, atol=1e-4, err_msg=name)
        raw = bytearray(gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes())
        raw[254:256] = bytes(2)
        path = tmp_path / "other.nii"
        path.write_bytes(raw)
    np.testing.assert_array_equal(nifti.read_voxels(path, nifti.read_header(path)), MASK)


def test_equal_masks_give_equal_bytes(tmp_path: Path):
    for name in ("a", "b"):
        nifti_mask.write(tmp_path / f"{name}.nii.gz", MASK, affine(np.eye(3)))
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
