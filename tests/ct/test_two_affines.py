"""NIfTI files whose qform and sform disagree: ours, nibabel's and SimpleITK's places, and what is said of them."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from lungjax.ct import read

HU = np.random.default_rng(0).integers(-1000, 500, (5, 6, 7)).astype(np.int16)


def write(path: Path, *, sform_code: int, qform_code: int, shift_mm: float) -> None:
    affine = np.diag([-0.7, -0.8, 2.5, 1.0])
    affine[:3, 3] = 10, 20, 30
    image = nibabel.Nifti1Image(HU.T, affine)
    image.set_sform(affine, sform_code)
    moved = affine.copy()
    moved[:3, 3] += shift_mm
    image.set_qform(moved, qform_code)
    image.to_filename(path)


@pytest.mark.parametrize("qform_code", [1, 2])
@pytest.mark.parametrize("sform_code", [1, 2, 4])
def test_disagreeing_affines_are_said(tmp_path: Path, sform_code: int, qform_code: int):
    path = tmp_path / "a.nii"
    write(path, sform_code=sform_code, qform_code=qform_code, shift_mm=5)
    (entry,), _ = read.find(path)
    scan = read.read(entry)
    theirs = nibabel.load(path)
    assert isinstance(theirs, nibabel.Nifti1Image)
    ours = np.diag([-1, -1, 1, 1]) @ theirs.affine
    assert scan.affine_lps is not None
    np.testing.assert_allclose(scan.affine_lps, ours, atol=1e-5)
    (note,) = scan.notes
    assert note.name == "two_affines"
    assert "(-10, -20, 30)" in note.message
    assert "(-15, -25, 35)" in note.message
    image = sitk.ReadImage(str(path))
    takes_sform = np.allclose(image.GetOrigin(), (-10, -20, 30), atol=1e-4)
    assert takes_sform == ("SimpleITK do" in note.message)
    assert takes_sform == (sform_code == 1)
    np.testing.assert_allclose(scan.spacing_mm[::-1], image.GetSpacing(), rtol=1e-7)


@pytest.mark.parametrize("codes", [(1, 1), (2, 1), (1, 0), (0, 1)])
def test_the_same_affine_twice_is_not(tmp_path: Path, codes: tuple[int, int]):
    path = tmp_path / "a.nii"
    write(path, sform_code=codes[0], qform_code=codes[1], shift_mm=0.01)
    (entry,), _ = read.find(path)
    assert read.read(entry).notes == ()


@pytest.mark.parametrize("wrong", ["sform", "qform"])
def test_an_affine_of_other_voxels_is_said(tmp_path: Path, wrong: str):
    """As in ACDC: a sform of 1 mm beside a qform of the true size (nnU-Net's issue 2741)."""
    path = tmp_path / "a.nii"
    write(path, sform_code=1, qform_code=1, shift_mm=0)
    raw = bytearray(path.read_bytes())
    if wrong == "sform":
        raw[280:328] = np.array([[-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 1, 0]], "<f4").tobytes()
    else:
        raw[256:268] = np.full(3, np.nan, "<f4").tobytes()
    path.write_bytes(raw)
    (entry,), _ = read.find(path)
    scan = read.read(entry)
    assert scan.affine_lps is not None
    np.testing.assert_allclose(scan.affine_lps[:3, 3], (-10, -20, 30), atol=1e-4)
    np.testing.assert_allclose(scan.spacing_mm, (2.5, 0.8, 0.7), rtol=1e-6)
    (note,) = scan.notes
    assert note.name == "two_affines"
    assert f"has a {wrong} that is no affine of voxels of its pixdim; the" in note.message
