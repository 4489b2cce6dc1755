"""`lungjax predict` from DICOM to its files: places, volumes, refusals; many scans, resumed, the faulty ones apart."""

from __future__ import annotations

import csv
import dataclasses
import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any, cast

import chests
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from PIL import Image

import lungjax
from lungjax.ct.scan import Scan
from lungjax.errors import InputError
from lungjax.prediction import detection, opening, pipeline
from lungjax.prediction import run as predicting
from lungjax.prediction.operating_point import OperatingPoint
from lungjax.train.trained import open_trained

FILES = ["mask.nii.gz", "nodules.csv", "overlay.png", "report.dcm", "report.html", "report.json", "segmentation.dcm"]


def test_one_scan(told: chests.Told, dicom: Path, read: dict[str, Scan], tmp_path: Path):
    key, folder = next(iter(chests.folders(dicom).items()))
    summary = chests.run(folder, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == FILES
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert summary.reports == {tmp_path / "out": report}
    scan = read[key]
    assert report["scan"]["series_uid"] == key
    assert report["scan"]["shape"] == list(scan.voxels.shape)
    assert (report["refused"], report["schema"]) == (None, 4)
    assert "not a medical device" in report["notice"]
    assert report["nodules"]
    mask = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out" / "mask.nii.gz")))
    majority = np.bitwise_count(scan.reader_bits()) >= 2
    assert not (mask.astype(bool) & ~majority).any()
    for nodule in report["nodules"]:
        marked = mask == nodule["number"]
        assert nodule["volume_mm3"] == pytest.approx(marked.sum() * np.prod(scan.spacing_mm), abs=0.06)
        assert nodule["mean_hu"] == pytest.approx(scan.voxels[marked].mean(), abs=0.06)
        assert nodule["centre_voxel"] == pytest.approx(np.argwhere(marked).mean(axis=0), abs=0.006)
        present = np.flatnonzero(marked.any(axis=(1, 2)))
        assert nodule["slices"] == [present[0], present[-1]]
        assert nodule["score"] == pytest.approx(0.9, abs=1e-3)
        assert nodule["malignancy"] is None
        assert (nodule["type"], nodule["ratings"], nodule["lung_rads"]) == (None, {}, None)
        assert nodule["side"] in ("left", "right")
        assert nodule["zone"] in ("upper", "middle", "lower")
    assert (report["lung_rads"]["category"], "baseline" in report["lung_rads"]["note"]) == (None, True)
    with Image.open(tmp_path / "out" / "overlay.png") as sheet:
        assert sheet.size[0] > 300
    with (tmp_path / "out" / "nodules.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [float(line["volume_mm3"]) for line in lines] == [one["volume_mm3"] for one in report["nodules"]]
    assert [float(line["x_mm"]) for line in lines] == [one["centre_mm"][0] for one in report["nodules"]]


def test_the_mask_lies_where_simpleitk_reads_the_series(told: chests.Told, dicom: Path, tmp_path: Path):
    """Also the centres in mm: to the patient's left, to the back and to the head."""
    _, folder = next(iter(chests.folders(dicom).items()))
    chests.run(folder, tmp_path / "out")
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    series, mask = reader.Execute(), sitk.ReadImage(str(tmp_path / "out" / "mask.nii.gz"))
    for name in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(mask, name)() == pytest.approx(getattr(series, name)(), abs=1e-4), name
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    for nodule in report["nodules"]:
        index = series.TransformPhysicalPointToContinuousIndex(nodule["centre_mm"])
        assert index[::-1] == pytest.approx(nodule["centre_voxel"], abs=0.02)


def test_what_scores_low_is_a_candidate(
    told: chests.Told, dicom: Path, read: dict[str, Scan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    _, folder = next(iter(chests.folders(dicom).items()))
    every = chests.run(folder, tmp_path / "all").reports[tmp_path / "all"]
    none = chests.run(folder, tmp_path / "none", threshold=0.95).reports[tmp_path / "none"]
    assert none["nodules"] == []
    assert [one["centre_mm"] for one in none["candidates"]] == [one["centre_mm"] for one in every["nodules"]]
    assert none["threshold"] == 0.95
    mask = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "none" / "mask.nii.gz")))
    assert not mask.any()
    monkeypatch.setattr(detection, "MOST_NODULES", 1)
    first = chests.run(folder, tmp_path / "first", threshold=0.8).reports[tmp_path / "first"]
    assert len(first["nodules"]) == 1
    assert len(first["candidates"]) == len(every["nodules"]) - 1


def test_a_refused_scan_has_a_report_and_no_mask(told: chests.Told, tmp_path: Path):
    image = sitk.GetImageFromArray(chests.chest())
    image.SetSpacing((0.8, 0.8, 9.0))
    sitk.WriteImage(image, str(tmp_path / "case.nii.gz"))
    summary = chests.run(tmp_path / "case.nii.gz", tmp_path / "out")
    (report,) = summary.reports.values()
    assert "slices are 9 mm apart" in report["refused"]
    assert (report["nodules"], report["candidates"], told.calls) == ([], [], 0)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["nodules.csv", "report.json"]
    assert "refused: Its slices" in summary.text()


def test_what_dicom_cannot_say_is_told(
    told: chests.Told, dicom: Path, read: dict[str, Scan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Where the extra is not installed, and where a header lacks what a segmentation needs."""
    key, folder = next(iter(chests.folders(dicom).items()))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    report = chests.run(folder, tmp_path / "without").reports[tmp_path / "without"]
    assert "lungjax[dicom-seg]" in " ".join(report["warnings"])
    monkeypatch.undo()
    shutil.copytree(folder, tmp_path / "bare")
    for path in (files := sorted((tmp_path / "bare").rglob("*.dcm"))):
        held = pydicom.dcmread(path)
        del held.FrameOfReferenceUID
        held.save_as(path)
    out = tmp_path / "written"
    scan = dataclasses.replace(read[key], dicom_files=tuple(files))
    point = OperatingPoint(chests.THRESHOLD, None, "It is a test.")
    pipeline.predict(scan, pipeline.Networks(cast("Any", told)), point).save(out)
    report = json.loads((out / "report.json").read_text())
    assert "its images have no FrameOfReferenceUID" in " ".join(report["warnings"])
    assert sorted(path.name for path in out.iterdir()) == [name for name in FILES if not name.endswith(".dcm")]


def test_each_candidate_has_a_malignancy(
    told: chests.Told, dicom: Path, read: dict[str, Scan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """That of a patch with the candidate in its middle; another nodule classifier makes another result."""

    class Middle:
        """As likely malignant as the middle pixel is bright."""

        trained = dataclasses.replace(
            open_trained(Path("nodule-classifier")), calibration={"slope": 2.0, "offset": 0.1}
        )

        def predict(self, hu: np.ndarray, pixel_mm: np.ndarray) -> lungjax.NodulePrediction:
            assert hu.shape == (len(pixel_mm), 71, 71)
            return lungjax.NodulePrediction((hu[:, 35, 35] + 1024) / 4096.0, np.full((len(hu), 9), 5, np.float32))

    monkeypatch.setattr(opening, "open_model", lambda name, **_: told if name == "model" else Middle())
    uid, folder = next(iter(chests.folders(dicom).items()))
    out = tmp_path / "out"
    others = {"candidate_classifier": None, "patient_classifier": None, "threshold": chests.THRESHOLD}
    predicting.predict(folder, model="model", nodule_classifier="middle", out=out, **others)
    report = json.loads((out / "report.json").read_text())
    assert report["nodule_classifier"]["calibration"] == {"slope": 2.0, "offset": 0.1}
    mask = sitk.GetArrayFromImage(sitk.ReadImage(str(out / "mask.nii.gz")))
    rows = list(csv.DictReader((out / "nodules.csv").read_text().splitlines()))
    for nodule, row in zip(report["nodules"], rows, strict=True):
        own = mask == nodule["number"]
        widest = own.sum(axis=(1, 2)).argmax()
        r, c = np.nonzero(own[widest])
        middle = read[uid].voxels[widest, (r.min() + r.max()) // 2, (c.min() + c.max()) // 2]
        assert nodule["malignancy"] == pytest.approx((middle + 1024) / 4096, abs=1e-4)
        assert float(row["malignancy"]) == nodule["malignancy"]
        assert (row["type"], row["side"], row["zone"]) == (nodule["type"], nodule["side"], nodule["zone"])
        assert float(row["expected_texture"]) == nodule["ratings"]["texture"]["expected"]
        assert (row["lung_rads"], row["solid_mean_mm"]) == (nodule["lung_rads"], "")
    assert all(one["malignancy"] is not None for one in report["candidates"])
    categories = ["1", "2", "3", "4A", "4B"]
    assert report["lung_rads"]["category"] == max((one["lung_rads"] for one in report["nodules"]), key=categories.index)
    with pytest.raises(InputError, match="another model or threshold"):
        chests.run(folder, out)


def test_the_patients_probability_comes_from_the_nodules(
    told: chests.Told, dicom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """From those above the threshold, the surest first; without one there is none; another model, another result."""
    given = []

    class Knows:
        trained = dataclasses.replace(open_trained(Path("patient-classifier")), calibration={})

        def predict(self, hu: np.ndarray, pixel_mm: np.ndarray, present: np.ndarray) -> lungjax.PatientPrediction:
            assert (present == 1).all()
            given.append((hu, pixel_mm))
            return lungjax.PatientPrediction(np.array([0.625]), np.full(hu.shape[:2], 1 / hu.shape[1]))

    monkeypatch.setattr(opening, "open_model", lambda name, **_: told if name == "model" else Knows())
    _, folder = next(iter(chests.folders(dicom).items()))

    def asked(out: Path, threshold: float = chests.THRESHOLD) -> dict[str, Any]:
        others = {"candidate_classifier": None, "nodule_classifier": None, "threshold": threshold}
        predicting.predict(folder, model="model", patient_classifier="knows", out=out, **others)
        return json.loads((out / "report.json").read_text())

    report = asked(tmp_path / "out")
    numbers = [one["number"] for one in report["nodules"]]
    assert [one["number"] for one in report["patient"]["attention"]] == numbers
    assert report["patient"]["probability"] == 0.625
    assert report["patient"]["model"]["name"] == "patient-classifier"
    assert "not pathology" in report["patient"]["meaning"]
    ((hu, pixel_mm),) = given
    assert hu.shape == (1, len(numbers), 71, 71)
    np.testing.assert_allclose(pixel_mm, report["scan"]["spacing_mm"][1])
    page = (tmp_path / "out" / "report.html").read_text()
    assert "62 %" in page
    assert "has not been measured" in page
    assert asked(tmp_path / "out") == report  # Resumed.
    assert len(given) == 1
    with pytest.raises(InputError, match="another model or threshold"):
        chests.run(folder, tmp_path / "out")
    none = asked(tmp_path / "none", threshold=0.95)
    assert none["candidates"]
    assert none["patient"]["probability"] is None
    assert "No candidate reached the threshold" in none["patient"]["reason"]
    assert none["patient"]["model"] == report["patient"]["model"]
    assert len(given) == 1
