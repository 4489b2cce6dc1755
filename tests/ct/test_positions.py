"""Positions of slices: rounded ones are used, gaps and uneven ones refused, and a tilt is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import source_files
from hypothesis import given
from hypothesis import strategies as st

from lungjax.ct import read, series
from lungjax.errors import Fault

STORED = np.random.default_rng(0).integers(0, 1500, (24, 10, 12)).astype(np.int16)


def scan_of(folder: Path):
    (entry,), _ = read.find(folder)
    return read.read(entry)


@pytest.mark.parametrize(("step_mm", "digits"), [(1.25, 1), (0.75, 1), (2.5, 0), (3.75, 0), (0.625, 1)])
def test_rounded_positions_have_their_mean_step(tmp_path: Path, step_mm: float, digits: int):
    z_mm = [round(-379 + step_mm * number, digits) for number in range(len(STORED))]
    source_files.write_ct(tmp_path, STORED, z_mm=z_mm)
    scan = scan_of(tmp_path)
    assert scan.spacing_mm[0] == pytest.approx(step_mm, abs=10**-digits / 20)
    assert np.abs(scan.z_mm - z_mm).max() <= 0.51 * 10**-digits
    assert np.ptp(np.diff(scan.z_mm)) < 1e-9
    assert [note.name for note in scan.notes] == ["rounded_positions"]


@given(st.floats(0.5, 10), st.floats(-500, 500), st.integers(20, 200), st.sampled_from([2, 3, 6]))
def test_rounded_more_finely_they_are_even(step_mm: float, start_mm: float, count: int, digits: int):
    assert series.regular(np.round(start_mm + step_mm * np.arange(count), digits)) is not None


@given(
    st.floats(0.5, 5),
    st.integers(20, 100),
    st.sampled_from([1, 2, 6]),
    st.data(),
    st.sampled_from(["gap", "displaced", "two steps"]),
)
def test_what_is_uneven_is_refused(step_mm: float, count: int, digits: int, data, how: str):
    z_mm = step_mm * np.arange(count)
    at = data.draw(st.integers(2, count - 3))
    if how == "gap":
        z_mm[at:] += step_mm
    elif how == "displaced":
        z_mm[at] += 0.4 * step_mm + 0.1
    else:
        z_mm = np.concatenate([z_mm[:at], z_mm[at] + 1.5 * step_mm * np.arange(count - at)])
    assert series.regular(np.round(z_mm, digits)) is None


def test_a_single_odd_gap_of_whole_mm_is_no_rounding():
    z_mm = 5.0 * np.arange(70)
    z_mm[40:] += 1
    assert series.regular(z_mm) is None


@pytest.mark.parametrize("degrees", [1.0, 15.0, 22.5, -3.0])
def test_a_tilted_gantry_is_named(tmp_path: Path, degrees: float):
    angle = np.radians(degrees)
    tags = {
        "ImageOrientationPatient": [1, 0, 0, 0, round(float(np.cos(angle)), 6), round(float(-np.sin(angle)), 6)],
        "GantryDetectorTilt": degrees,
    }
    source_files.write_ct(tmp_path, STORED, tags=tags)
    with pytest.raises(Fault, match=rf"gantry_tilt: .* stacked {abs(degrees):.2g} degrees off"):
        scan_of(tmp_path)


def test_a_tilt_in_the_header_alone_is_noted(tmp_path: Path):
    source_files.write_ct(tmp_path, STORED, tags={"GantryDetectorTilt": 15})
    (note,) = scan_of(tmp_path).notes
    assert (note.name, "15 degrees" in note.message) == ("tilt_in_header", True)


@pytest.mark.parametrize("degrees", [1.0, 15.0])
@pytest.mark.parametrize("code", [1, 2])
def test_a_sheared_nifti_is_named(tmp_path: Path, degrees: float, code: int):
    """Whatever its qform says, which cannot tell a shear."""
    import nibabel

    affine = np.diag([-2.0, -2.0, 5.0, 1.0])
    affine[1, 2] = 5 * np.sin(np.radians(degrees))
    affine[2, 2] = 5 * np.cos(np.radians(degrees))
    image = nibabel.Nifti1Image((STORED - 1024).T, affine)
    image.set_qform(np.diag([-2.0, -2.0, 5.0, 1.0]), 1)
    image.set_sform(affine, code)
    image.to_filename(tmp_path / "a.nii")
    (entry,), _ = read.find(tmp_path / "a.nii")
    with pytest.raises(Fault, match=rf"gantry_tilt: .* stacked {degrees:.2g} degrees off"):
        read.read(entry)


def test_pydicom_and_simpleitk_are_what_writes_here(tmp_path: Path):
    """The positions are those that others read, too."""
    source_files.write_ct(tmp_path, STORED, z_mm=[1.25 * n for n in range(len(STORED))])
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path)))
    assert scan_of(tmp_path).spacing_mm[0] == reader.Execute().GetSpacing()[2]
    assert float(pydicom.dcmread(tmp_path / "001.dcm").ImagePositionPatient[2]) == scan_of(tmp_path).z_mm[1]
