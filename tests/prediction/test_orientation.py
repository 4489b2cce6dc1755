"""The same anatomy gives the same nodules at the same places, whatever axes it was stored along."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import chests
import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import source_files
from pydicom.uid import generate_uid

from lungjax.ct.scan import Scan
from lungjax.prediction import pipeline, sources
from lungjax.prediction.operating_point import OperatingPoint
from lungjax.prediction.outputs import nifti_mask
from lungjax.prediction.result import Prediction

AXIS = {"R": (-1, 0, 0), "L": (1, 0, 0), "A": (0, -1, 0), "P": (0, 1, 0), "I": (0, 0, -1), "S": (0, 0, 1)}
ORIGIN_MM = np.array([-157.5, -201.25, -88.0])
STORED_AS = ["LPS", "RAS", "LAS", "RPI", "SPL", "IAR", "PSR", "ASL"]
"""Where a file's columns, rows and slices run to."""
PATIENT_POSITIONS = {
    "HFS": ("L", "P", 1),
    "HFP": ("R", "A", 1),
    "FFS": ("R", "P", -1),
    "FFP": ("L", "A", -1),
    "HFDR": ("P", "R", 1),
    "HFDL": ("A", "L", 1),
    "FFDR": ("A", "R", -1),
    "FFDL": ("P", "L", -1),
}
"""Where rows and columns of an image run to, and slices from one file to the next, by how the patient lies."""


@pytest.fixture(scope="module")
def hu() -> np.ndarray:
    return chests.chest()


@pytest.fixture(scope="module")
def probability() -> np.ndarray:
    return sum((chests.ball(centre, mm) * 0.95 for centre, mm in chests.BALLS), np.zeros(chests.SHAPE))


def affine_lps() -> np.ndarray:
    affine = np.diag([*chests.SPACING_MM[::-1], 1.0])
    affine[:3, 3] = ORIGIN_MM
    return affine


def stored(hu: np.ndarray, code: str) -> tuple[np.ndarray, np.ndarray]:
    """(slices, rows, columns) along other axes, and their affine."""
    axes = [next(axis for axis in range(3) if AXIS[letter][axis]) for letter in code]
    signs = [AXIS[letter][axis] for letter, axis in zip(code, axes, strict=True)]
    indexed = hu.transpose(2, 1, 0)  # (x, y, z)
    affine = affine_lps()
    corner = affine[:3, 3].copy()
    for axis, sign in zip(axes, signs, strict=True):
        if sign < 0:
            indexed = np.flip(indexed, axis)
            corner[axis] += (hu.shape[::-1][axis] - 1) * affine[axis, axis]
    turned = np.zeros((4, 4))
    turned[3, 3], turned[:3, 3] = 1, corner
    for index, (axis, sign) in enumerate(zip(axes, signs, strict=True)):
        turned[axis, index] = sign * affine[axis, axis]
    return np.ascontiguousarray(indexed.transpose(axes).transpose(2, 1, 0)), turned


def write_volume(path: Path, hu: np.ndarray, code: str) -> None:
    voxels, affine = stored(hu, code)
    image = sitk.GetImageFromArray(voxels)
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    image.SetSpacing(steps.tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection((affine[:3, :3] / steps).ravel().tolist())
    sitk.WriteImage(image, str(path))


def write_dicom(folder: Path, hu: np.ndarray, position: str) -> None:
    row, column, way = PATIENT_POSITIONS[position]
    voxels, affine = stored(hu, f"{row}{column}{'S' if way > 0 else 'I'}")
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    for number, plane in enumerate(voxels):
        place = (affine @ (0, 0, number, 1))[:3]
        tags: dict[str, Any] = {
            "ImagePositionPatient": place.tolist(),
            "ImageOrientationPatient": [*AXIS[row], *AXIS[column]],
            "PixelSpacing": [steps[1], steps[0]],
            "PatientPosition": position,
            "SOPInstanceUID": generate_uid(),
            "FrameOfReferenceUID": "1.2.3.5",
        }
        (path,) = source_files.write_ct(folder / "one", (plane + 1024).astype(np.int16)[None], tags=tags)
        path.rename(folder / f"{number:03}.dcm")
    (folder / "one").rmdir()


def read(source: Path) -> Scan:
    reader, (entry,), quarantined = sources.find_scans(source)
    assert quarantined == []
    return sources.read(reader, entry)


def predicted(scan: Scan, hu: np.ndarray, probability: np.ndarray, tmp_path: Path) -> Prediction:
    segmenter: Any = chests.Told([(hu, probability)], chests.untrained(tmp_path))
    return pipeline.predict(scan, pipeline.Networks(segmenter), OperatingPoint(0.5, None, "It is a test."))


def assert_same(scan: Scan, hu: np.ndarray, probability: np.ndarray, tmp_path: Path) -> Prediction:
    """The network sees the same numbers (`Told` knows no others), and its nodules lie where they are."""
    np.testing.assert_array_equal(scan.voxels, hu)
    assert scan.affine_lps is not None
    np.testing.assert_allclose(scan.affine_lps, affine_lps(), atol=1e-4)
    prediction = predicted(scan, hu, probability, tmp_path)
    places = np.array(sorted(nodule.centre_mm for nodule in prediction.nodules))
    whole = predicted(chests.scan(hu, affine_lps=affine_lps()), hu, probability, tmp_path)
    expected = np.array(sorted(nodule.centre_mm for nodule in whole.nodules))
    assert len(expected) == len(chests.BALLS)
    np.testing.assert_allclose(places, expected, atol=1e-3)
    assert {(one.side, one.zone) for one in prediction.nodules} == {(one.side, one.zone) for one in whole.nodules}
    return prediction


def mask_places(mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Places of a mask's voxels in mm, sorted."""
    voxels = np.argwhere(mask)[:, ::-1]
    places = np.column_stack([voxels, np.ones(len(voxels))]) @ affine[:3].T
    return np.round(places[np.lexsort(np.round(places, 2).T)], 2)


@pytest.mark.parametrize("suffix", ["nii.gz", "mhd"])
@pytest.mark.parametrize("code", STORED_AS)
def test_a_volume_along_any_axes(tmp_path: Path, hu, probability, code: str, suffix: str):
    path = tmp_path / f"case.{suffix}"
    write_volume(path, hu, code)
    prediction = assert_same(read(path), hu, probability, tmp_path)
    prediction.save(tmp_path / "out")
    mask, image = sitk.ReadImage(str(tmp_path / "out" / "mask.nii.gz")), sitk.ReadImage(str(path))
    assert mask.GetSize() == image.GetSize()
    for name in ("GetSpacing", "GetOrigin", "GetDirection"):
        theirs, ours = getattr(image, name)(), getattr(mask, name)()
        np.testing.assert_allclose(ours, theirs, atol=0 if name == "GetSpacing" and suffix != "mhd" else 1e-4)
    marked, _ = stored((prediction.mask > 0).astype(np.int16), code)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(mask) > 0, marked > 0)
    if suffix == "nii.gz":
        first, second = nibabel.load(path), nibabel.load(tmp_path / "out" / "mask.nii.gz")
        assert isinstance(first, nibabel.Nifti1Image)
        assert isinstance(second, nibabel.Nifti1Image)
        np.testing.assert_array_equal(first.affine, second.affine)
        np.testing.assert_array_equal(first.header["pixdim"][1:4], second.header["pixdim"][1:4])
        np.testing.assert_allclose(second.get_qform(), second.get_sform(), atol=1e-4)
        assert second.header.get_xyzt_units()[0] == "mm"
        assert (int(second.header["qform_code"]), int(second.header["sform_code"])) == (1, 1)


@pytest.mark.parametrize("position", PATIENT_POSITIONS)
def test_dicom_in_every_patient_position(tmp_path: Path, hu, probability, position: str):
    folder = tmp_path / "dicom"
    write_dicom(folder, hu, position)
    scan = read(folder)
    prediction = assert_same(scan, hu, probability, tmp_path)
    prediction.save(tmp_path / "out")
    assert json.loads((tmp_path / "out" / "report.json").read_text())["warnings"] == []
    segmentation = pydicom.dcmread(tmp_path / "out" / "segmentation.dcm")
    planes = segmentation.pixel_array
    (shared,) = segmentation.SharedFunctionalGroupsSequence
    row, column = np.split(np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float), 2)
    row_mm, column_mm = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    places = []
    for plane, groups in zip(planes, segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        corner = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, float)
        affine = np.column_stack([row * column_mm, column * row_mm, np.zeros(3), corner])
        places.append(mask_places(plane[None], np.vstack([affine, (0, 0, 0, 1)])))
    found = np.concatenate(places)
    expected = mask_places(prediction.mask, affine_lps())
    np.testing.assert_allclose(found[np.lexsort(found.T)], expected[np.lexsort(expected.T)], atol=0.02)


def test_a_turn_goes_back(tmp_path: Path):
    voxels = np.arange(24).reshape(2, 3, 4)
    for code in map("".join, itertools.product("RL", "AP", "IS")):
        for order in itertools.permutations(code):
            path = tmp_path / "a.nii"
            write_volume(path, (voxels * 100 - 1000).astype(np.int16), "".join(order))
            scan = read(path)
            assert scan.turn is not None
            np.testing.assert_array_equal(scan.voxels, voxels * 100 - 1000)
            raw = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
            np.testing.assert_array_equal(scan.turn.back(scan.voxels), raw)
            mask = (voxels % 5 == 0).astype(np.uint8)
            assert scan.affine_lps is not None
            nifti_mask.write(tmp_path / "m.nii.gz", mask, scan.affine_lps, scan.turn)
            np.testing.assert_array_equal(nifti_mask.read(tmp_path / "m.nii.gz", scan.turn), mask)
