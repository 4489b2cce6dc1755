"""A real scan through `lungjax.predict`: the readers' nodules, told to its network, come out where they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import chests
import numpy as np
import pytest
import SimpleITK as sitk
from pydicom import dcmread

import lungjax
from lungjax.ct.scan import READERS, Reading, Scan
from lungjax.prediction import measure
from lungjax.preparation.formats import lidc


def test_the_readers_nodules_come_out_where_simpleitk_sees_them(real_data: Path, tmp_path: Path):
    """LIDC-IDRI-0003: three nodules of four readers; NIfTI and DICOM-SEG lie on SimpleITK's reading of the series."""
    series = real_data / "lidc-dicom" / "LIDC-IDRI" / "LIDC-IDRI-0003"
    scan, ((entry,), _) = lungjax.read_scan(series), lidc.find(series)
    marked = lidc.read(entry)
    majority = np.bitwise_count(marked.reader_bits()) >= 2
    trained = chests.untrained(tmp_path / "model")
    trained.seen.update(slice_mm=None, pixel_mm=None)
    told: Any = chests.Told([(scan.voxels, np.where(majority, 0.9, 0.0))], trained)
    others: dict[str, Any] = {"candidate_classifier": None, "nodule_classifier": None, "patient_classifier": None}
    result = lungjax.predict(scan, model=told, **others)
    assert result.refused is None
    assert len(result.nodules) == 3
    for nodule in result.nodules:
        assert_as_the_readers_have_it(nodule, marked)
    result.save(tmp_path / "out")
    mask = sitk.ReadImage(str(tmp_path / "out" / "mask.nii.gz"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(mask) > 0, majority)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(scan.dicom_files[0].parent)))
    series = reader.Execute()
    np.testing.assert_array_equal(sitk.GetArrayFromImage(series), scan.voxels)
    for name in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(mask, name)() == pytest.approx(getattr(series, name)(), abs=1e-4), name
    segmentation = dcmread(tmp_path / "out" / "segmentation.dcm")
    found = np.zeros(majority.shape, bool)
    for frame, functional in zip(segmentation.pixel_array, segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        place = [float(mm) for mm in functional.PlanePositionSequence[0].ImagePositionPatient]
        found[series.TransformPhysicalPointToIndex(place)[2]] |= frame > 0
    np.testing.assert_array_equal(found, majority)


def assert_as_the_readers_have_it(nodule: lungjax.PredictedNodule, marked: Scan) -> None:
    """The mean diameter within 2 mm of the median of the readers', who differ by more; and the side, for this
    patient's left is at the right of the picture, whose middle is column 256."""
    (own,) = [
        one
        for one in marked.nodules
        if len(one.readings) == READERS and any(_holds(reading, nodule) for reading in one.readings)
    ]
    diameters_mm = []
    for reading in own.readings:
        _, longest_mm, perpendicular_mm = measure.recist(np.argwhere(reading.mask) + reading.origin, marked.spacing_mm)
        diameters_mm.append((longest_mm + perpendicular_mm) / 2)
    assert nodule.mean_mm == pytest.approx(np.median(diameters_mm), abs=2.0)
    assert nodule.side == ("left" if nodule.centre_voxel[2] > 256 else "right")


def _holds(reading: Reading, nodule: lungjax.PredictedNodule) -> bool:
    at = np.round(np.subtract(nodule.centre_voxel, reading.origin)).astype(int)
    return bool(((at >= 0) & (at < reading.mask.shape)).all() and reading.mask[tuple(at)])
