"""DICOM-SEG and structured report: read back by highdicom and SimpleITK's geometry, judged by dciodvfy."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

import chests
import highdicom as hd
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from lungjax.ct import dicom
from lungjax.ct.scan import RATING_NAMES
from lungjax.errors import Fault
from lungjax.prediction.candidates import Candidate
from lungjax.prediction.nodule_classifier import NodulePrediction
from lungjax.prediction.outputs import dicom_seg
from lungjax.preparation.formats import lidc


@pytest.fixture(scope="module", params=[1, 2])
def written(request, phantom_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Folder, series folder, scan, mask, report, of a phantom with one or two made-up nodules."""
    (entry, *_), _ = lidc.find(phantom_dataset.parent / "dicom")
    scan = lidc.read(entry)
    mask = np.zeros(scan.voxels.shape, np.uint8)
    mask[10:13, 40:46, 50:53] = 1
    mask[30:31, 60:70, 80:90] = 2
    mask[mask > request.param] = 0
    nodules = [
        Candidate(np.argwhere(mask == n), 0.9 - n / 10, 100.0 * n, 7.5 * n, 4.0 * n, 11, -50.0 * n)
        for n in range(1, request.param + 1)
    ]
    report = chests.report(scan, nodules, classified(request.param), name="segment", step=3)
    folder = tmp_path_factory.mktemp("dicom")
    images = dicom.read_headers([Path(path) for path in entry.locator], scan.sop_uids)
    dicom_seg.write(folder, images, mask, report)
    return folder, Path(entry.where), scan, mask, report


def classified(count: int) -> NodulePrediction:
    """A solid nodule, and one that is part-solid; of each rating both 3 and 4 are as likely."""
    ratings = np.full((count, 9), 3.5, np.float32)
    ratings[:, RATING_NAMES.index("texture")] = [5.0, 3.8][:count]
    chances = np.zeros((count, 9, 6))
    chances[..., 2:4] = 0.5
    return NodulePrediction(np.linspace(0.2, 0.8, count), ratings, chances)


def errors_of(path: Path) -> list[str]:
    program = shutil.which("dciodvfy")
    if program is None:
        pytest.skip("dciodvfy (Debian: dicom3tools) is not on PATH: the files are not validated")
    done = subprocess.run([program, str(path)], capture_output=True, text=True, timeout=60, check=False)
    lines = (done.stdout + done.stderr).splitlines()
    assert {"Segmentation", "Comprehensive3DSR"} & set(lines), lines
    return [line for line in lines if line.startswith("Error")]


@pytest.mark.parametrize("name", [dicom_seg.SEG_FILE, dicom_seg.SR_FILE])
def test_dciodvfy_finds_no_error(written: Any, name: str):
    assert errors_of(written[0] / name) == []


def test_the_segmentation_is_the_mask_where_the_series_is(written: Any):
    """Every frame, by its own position in the patient, against SimpleITK's reading of the series."""
    folder, series_folder, scan, mask, _ = written
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(series_folder)))
    series = reader.Execute()
    found = np.zeros(mask.shape, np.uint8)
    with dicom_seg.database_closed(hd.seg.segread(folder / dicom_seg.SEG_FILE)) as segmentation:
        assert segmentation.number_of_segments == mask.max()
        functionals = segmentation.PerFrameFunctionalGroupsSequence
        for frame, functional in zip(segmentation.pixel_array, functionals, strict=True):
            place = [float(mm) for mm in functional.PlanePositionSequence[0].ImagePositionPatient]
            column, row, number = series.TransformPhysicalPointToIndex(place)
            assert (column, row) == (0, 0)
            shared = segmentation.SharedFunctionalGroupsSequence[0]
            named = functional if "SegmentIdentificationSequence" in functional else shared
            found[number][frame > 0] = named.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        np.testing.assert_array_equal(found, mask)
        in_order = segmentation.get_pixels_by_source_instance(
            list(scan.sop_uids), combine_segments=True, assert_missing_frames_are_empty=True
        )
    np.testing.assert_array_equal(in_order, mask)


def test_no_database_is_left_open(written: Any):
    """Where this fails for want of `_db_con`, highdicom may no longer need `database_closed`."""
    with dicom_seg.database_closed(hd.seg.segread(written[0] / dicom_seg.SEG_FILE)) as segmentation:
        assert segmentation._db_con.execute("SELECT 1").fetchall() == [(1,)]
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        segmentation._db_con.execute("SELECT 1")


def test_both_refer_to_the_source_series(written: Any):
    folder, _, scan, mask, _ = written
    segmentation = pydicom.dcmread(folder / dicom_seg.SEG_FILE)
    (series,) = segmentation.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == scan.series_uid
    marked = {uid for uid, plane in zip(scan.sop_uids, mask, strict=True) if plane.any()}
    assert {one.ReferencedSOPInstanceUID for one in series.ReferencedInstanceSequence} == marked
    structured = pydicom.dcmread(folder / dicom_seg.SR_FILE)
    for one in (segmentation, structured):
        assert (one.StudyInstanceUID, one.PatientID) == (scan.study_uid, scan.patient_id)
    evidence = {
        instance.ReferencedSOPInstanceUID
        for study in (
            *structured.CurrentRequestedProcedureEvidenceSequence,
            *structured.get("PertinentOtherEvidenceSequence", []),
        )
        for series in study.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    }
    assert {segmentation.SOPInstanceUID} | marked <= evidence


def test_the_report_says_what_was_measured(written: Any):
    folder, _, _, _, report = written
    content: Any = hd.sr.srread(folder / dicom_seg.SR_FILE).content
    groups = content.get_volumetric_roi_measurement_groups()
    assert len(groups) == len(report["nodules"])
    for group, nodule in zip(groups, report["nodules"], strict=True):
        said = {}
        for one in group.get_measurements():
            assert (one.name.meaning, one.derivation) not in said
            said[one.name.meaning, None if one.derivation is None else one.derivation.meaning] = (
                one.value,
                one.unit.value,
            )
        expected = {
            ("Volume", None): (nodule["volume_mm3"], "mm3"),
            ("Long Axis", None): (nodule["longest_mm"], "mm"),
            ("Short Axis", None): (nodule["perpendicular_mm"], "mm"),
            ("Attenuation Coefficient", "Mean"): (nodule["mean_hu"], "[hnsf'U]"),
            ("Diameter", "Mean"): (nodule["mean_mm"], "mm"),
            ("Distance", None): (nodule["pleura_mm"], "mm"),
            ("Probability that readers call it malignant", None): (nodule["malignancy"], "1"),
        }
        if nodule["solid_mean_mm"] is not None:
            expected["Diameter of the solid part", "Mean"] = (nodule["solid_mean_mm"], "mm")
        for name, rating in nodule["ratings"].items():
            meaning = dicom_seg._RATINGS[name].meaning
            expected[meaning, "Mean"] = (rating["expected"], "1")
            expected[meaning, "Standard Deviation"] = (rating["standard_deviation"], "1")
        assert said == expected
        assert group.referenced_segment.referenced_segment_numbers == [nodule["number"]]


def test_the_report_says_where_it_lies_and_what_it_is(written: Any):
    folder, _, _, _, report = written
    content: Any = hd.sr.srread(folder / dicom_seg.SR_FILE).content
    kinds = {"solid": "solid", "part-solid": "part-solid", "ground glass": "non-solid"}
    for group, nodule in zip(content.get_volumetric_roi_measurement_groups(), report["nodules"], strict=True):
        (site,) = group.finding_sites
        assert (site.value.meaning, site.laterality.meaning) == ("Lung", nodule["side"].capitalize())
        assert site.topographical_modifier.meaning == f"{nodule['zone'].capitalize()} zone of lung"
        evaluated = {one.name.meaning: one.value for one in group.get_qualitative_evaluations()}
        assert evaluated["Type of nodule"].meaning == f"{kinds[nodule['type']]} pulmonary nodule"
        assert evaluated["Assessment Category"].value == f"lung-rads-{nodule['lung_rads']}"
        assert "no reading" in evaluated["Assessment Category"].meaning
    with dicom_seg.database_closed(hd.seg.segread(folder / dicom_seg.SEG_FILE)) as segmentation:
        regions = [one.AnatomicRegionSequence[0].CodeMeaning for one in segmentation.SegmentSequence]
    assert regions == [f"{nodule['side'].capitalize()} lung" for nodule in report["nodules"]]


def test_without_nodules_there_is_nothing_to_write(written: Any, tmp_path: Path):
    report = json.loads(json.dumps(written[4])) | {"nodules": []}
    assert dicom_seg.write(tmp_path, [], np.zeros((1, 2, 2), np.uint8), report) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("tags", "why"),
    [
        ({}, None),
        ({"SOPInstanceUID": "1.2.3.4"}, "several of its images have the same SOPInstanceUID"),
        ({"SOPClassUID": "2.25.1234"}, "a SOPClassUID that DICOM does not know"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, None),
        ({"FrameOfReferenceUID": ""}, "no FrameOfReferenceUID"),
    ],
)
def test_images_that_nothing_can_refer_to(phantom_dataset: Path, tmp_path: Path, tags: dict[str, str], why: str | None):
    """As anonymisers make them that replace every UID."""
    (entry, *_), _ = lidc.find(phantom_dataset.parent / "dicom")
    for path in map(Path, entry.locator[:3]):
        dataset = pydicom.dcmread(path)
        for tag, value in tags.items():
            setattr(dataset, tag, value)
        dataset.save_as(tmp_path / path.name)
    paths = sorted(tmp_path.iterdir())
    headers = dicom.read_headers(paths, [str(pydicom.dcmread(path).SOPInstanceUID) for path in paths])
    told = dicom.why_not_referred(headers)
    assert (told is None) == (why is None)
    assert (why or "") in (told or "")


def test_headers_in_the_order_of_the_scan(phantom_dataset: Path):
    (entry, *_), _ = lidc.find(phantom_dataset.parent / "dicom")
    scan = lidc.read(entry)
    headers = dicom.read_headers([Path(path) for path in entry.locator][::-1], scan.sop_uids)
    assert [float(one.ImagePositionPatient[2]) for one in headers] == pytest.approx(scan.z_mm.tolist())
    assert "PixelData" not in headers[0]
    with pytest.raises(Fault, match="changed while it was being read"):
        dicom.read_headers([Path(entry.locator[0])], scan.sop_uids)
