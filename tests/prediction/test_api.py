"""`lungjax.read_scan`, `scan_from_array` and `predict`: from a folder, file or array to what the command writes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import chests
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import source_files

import lungjax
from lungjax import cli
from lungjax.ct.source import Quarantined, chief
from lungjax.errors import InputError
from lungjax.prediction import opening

STORED = np.random.default_rng(0).integers(0, 1500, (6, 20, 24)).astype(np.int16)
ALONE: dict[str, Any] = {"candidate_classifier": None, "threshold": chests.THRESHOLD}
NOBODY: dict[str, Any] = {**ALONE, "nodule_classifier": None, "patient_classifier": None}


@pytest.fixture
def truth() -> np.ndarray:
    """Probability in `chests.chest`: the second ball is the surer nodule."""
    probability = np.zeros(chests.SHAPE)
    for (centre, radius_mm), sure in zip(chests.BALLS, (0.9, 0.95), strict=True):
        probability[chests.ball(centre, radius_mm)] = sure
    return probability


@pytest.fixture
def segmenter(truth: np.ndarray, tmp_path: Path) -> Any:
    """Stands for one that knows the nodules of `chests.chest`."""
    return chests.Told([(chests.chest(), truth)], chests.untrained(tmp_path / "model"))


def test_any_format_is_read(tmp_path: Path):
    hu = chests.chest()
    image = sitk.GetImageFromArray(hu)
    image.SetSpacing(chests.SPACING_MM[::-1])
    image.SetOrigin((-5, -7, -300))
    sitk.WriteImage(image, str(tmp_path / "case.nii.gz"))
    source_files.write_ct(tmp_path / "dicom", STORED, series_uid="1.2.1")
    for path, voxels, spacing_mm in (
        (tmp_path / "case.nii.gz", hu, chests.SPACING_MM),
        (str(tmp_path / "dicom"), None, (5.0, 2.0, 2.0)),
    ):
        scan = lungjax.read_scan(path)
        assert isinstance(scan, lungjax.Scan)
        assert scan.voxels.dtype == np.int16
        assert scan.spacing_mm == pytest.approx(spacing_mm)
        assert scan.source == str(path)
        assert scan.affine_lps is not None
        if voxels is not None:
            np.testing.assert_array_equal(scan.voxels, voxels)
            np.testing.assert_allclose(scan.affine_lps @ (0, 0, 0, 1), (-5, -7, -300, 1))
    files = sorted((tmp_path / "dicom").iterdir())
    assert sorted(lungjax.read_scan(tmp_path / "dicom").dicom_files) == files
    assert lungjax.read_scan(tmp_path / "case.nii.gz").dicom_files == ()


def test_of_several_scans_one_is_chosen(tmp_path: Path):
    source_files.write_ct(tmp_path / "a", STORED, series_uid="1.2.1")
    source_files.write_ct(tmp_path / "b", STORED[:4], series_uid="1.2.2", tags={"PatientID": "TEST-2"})
    source_files.write_ct(tmp_path / "c", STORED[:4], series_uid="1.2.3", tags={"Modality": "MR"})
    with pytest.raises(InputError) as caught:
        lungjax.read_scan(tmp_path)
    first, *listed = str(caught.value).splitlines()
    assert first == f"{tmp_path} holds 2 scans, give the folder of one of them, or in Python its series_uid:"
    assert listed == [
        f"  1.2.1  (patient TEST-1, {tmp_path / 'a'})",
        f"  1.2.2  (patient TEST-2, {tmp_path / 'b'})",
    ]
    assert len(lungjax.read_scan(tmp_path, series_uid="1.2.2").voxels) == 4
    with pytest.raises(InputError, match=r"none of them has the series_uid '9'.*\n.*1\.2\.1"):
        lungjax.read_scan(tmp_path, series_uid="9")
    with pytest.raises(InputError, match=r"1\.2\.3 cannot be read: not_ct: "):
        lungjax.read_scan(tmp_path, series_uid="1.2.3")


def test_a_long_list_of_scans_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("lungjax.prediction.api.MOST_LISTED", 1)
    for number in range(3):
        (tmp_path / f"{number}.nii.gz").touch()
    with pytest.raises(InputError, match=r"holds 3 scans, .*\n  0  \(patient 0, .*\n  and 2 more$"):
        lungjax.read_scan(tmp_path)


def test_what_cannot_be_read(tmp_path: Path):
    source_files.write_ct(tmp_path / "uneven", STORED[:4], z_mm=[0, 5, 15, 20])
    source_files.write_ct(tmp_path / "mr", STORED, tags={"Modality": "MR"})
    for path, says in (
        (tmp_path / "nowhere", "no such file or folder"),
        (tmp_path / "uneven", "the scan cannot be read: uneven_spacing: "),
        (tmp_path / "mr", "holds no scan that can be read: not_ct: "),
    ):
        with pytest.raises(InputError, match=says):
            lungjax.read_scan(path)


@pytest.mark.parametrize("dtype", [np.int16, np.int64, np.float32, np.float64])
def test_an_array_to_nodules(segmenter: Any, truth: np.ndarray, dtype: Any):
    scan = lungjax.scan_from_array(chests.chest().astype(dtype), spacing_mm=chests.SPACING_MM, patient_id="TEST-3")
    np.testing.assert_array_equal(scan.voxels, chests.chest())
    result = lungjax.predict(scan, model=segmenter, **NOBODY)
    np.testing.assert_array_equal(result.mask, np.select([truth == 0.95, truth == 0.9], [1, 2], 0))
    assert result.mask.dtype == np.uint8
    assert (result.refused, result.warnings, result.candidates) == (None, (), ())
    for number, nodule in enumerate(result.nodules, start=1):
        centre, radius_mm = chests.BALLS[2 - number]
        assert nodule.number == number
        assert nodule.centre_voxel == pytest.approx(centre, abs=0.1)
        assert nodule.centre_mm == pytest.approx(np.array(centre)[::-1] * chests.SPACING_MM[::-1], abs=0.3)
        assert nodule.longest_mm == pytest.approx(2 * radius_mm, rel=0.25)
        assert nodule.volume_mm3 == pytest.approx(4 / 3 * np.pi * radius_mm**3, rel=0.25)
        assert nodule.slices[0] < centre[0] < nodule.slices[1]
        assert (nodule.mean_hu, nodule.malignancy) == (chests.NODULE_HU, None)
    assert result.patient == lungjax.PredictedPatient(None, "No patient classifier was used.")
    assert result.models["nodule_classifier"] is None


def test_an_affine_places_an_array(segmenter: Any):
    """As it lies in the patient, turned half around the body's axis: the centres in mm, and the mask's file."""
    affine_lps = np.array([[-2.5, 0, 0, 100], [0, -2.5, 0, 50], [0, 0, 5, -700], [0, 0, 0, 1.0]])
    scan = lungjax.scan_from_array(chests.chest(), spacing_mm=chests.SPACING_MM, affine_lps=affine_lps)
    np.testing.assert_allclose(scan.z_mm, -700 + 5.0 * np.arange(len(scan.voxels)))
    for nodule in lungjax.predict(scan, model=segmenter, **NOBODY).nodules:
        z, row, column = nodule.centre_voxel
        assert nodule.centre_mm == pytest.approx((100 - 2.5 * column, 50 - 2.5 * row, 5 * z - 700))


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"hu": np.zeros((4, 4))}, r"\(4, 4\); it must be \(slices, rows, columns\)"),
        ({"hu": np.zeros((0, 4, 4))}, "hu has no slice"),
        ({"hu": np.zeros((4, 0, 4))}, r"\(4, 0, 4\)"),
        ({"hu": np.full((2, 4, 4), np.nan)}, "NaN"),
        ({"hu": np.full((2, 4, 4), 1e6)}, "no Hounsfield units"),
        ({"hu": np.full((2, 4, 4), "air")}, "it must hold numbers"),
        ({"spacing_mm": (5.0, 2.5)}, "three numbers above 0"),
        ({"spacing_mm": (5.0, 2.5, -2.5)}, "three numbers above 0"),
        ({"spacing_mm": (5.0, 2.5, np.inf)}, "three numbers above 0"),
        ({"affine_lps": np.eye(3)}, "must be 4 x 4 finite numbers"),
        ({"affine_lps": np.eye(4)}, "a spacing of 1, 1, 1 mm"),
        ({"affine_lps": np.diag([2.5, 2.5, -5, 1])}, "do not ascend from the feet to the head"),
        ({"affine_lps": [[2.5, 0, 0, 0], [0, 0, 5, 0], [0, 2.5, 0, 0], [0, 0, 0, 1]]}, "do not ascend"),
    ],
)
def test_what_is_no_scan(changed: dict[str, Any], says: str):
    with pytest.raises(InputError, match=says):
        lungjax.scan_from_array(**{"hu": chests.chest(), "spacing_mm": chests.SPACING_MM, **changed})


def test_a_scan_unlike_those_of_the_training_is_refused(segmenter: Any, tmp_path: Path):
    scan = lungjax.scan_from_array(np.zeros(chests.SHAPE), spacing_mm=chests.SPACING_MM)
    result = lungjax.predict(scan, model=segmenter, **ALONE)
    assert "0 to 0 HU" in str(result.refused)
    assert (result.nodules, result.candidates, result.mask.any()) == ((), (), False)
    assert result.patient.reason == "The scan was not looked at."
    assert sorted(path.name for path in result.save(tmp_path / "out").iterdir()) == ["nodules.csv", "report.json"]


def test_python_gives_what_the_command_gives(
    told: chests.Told, dicom: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    """Every file, but for the time at which it was made, and what DICOM numbers anew."""
    _, folder = next(iter(chests.folders(dicom).items()))
    result = lungjax.predict(lungjax.read_scan(folder), model="model", **ALONE)
    assert result.save(tmp_path / "python") == tmp_path / "python"
    command = ["predict", str(folder), "--model", "model", "--out", str(tmp_path / "command")]
    assert cli.main([*command, "--candidate-classifier", "none", "--threshold", str(chests.THRESHOLD)]) == 0
    assert f"{len(result.nodules)} nodules" in capsys.readouterr().out
    reports = []
    for name in ("python", "command"):
        reports.append(json.loads((tmp_path / name / "report.json").read_text()))
        assert reports[-1].pop("made")
        (tmp_path / name / "report.json").unlink()
    assert reports[0] == reports[1]
    names = sorted(path.name for path in (tmp_path / "command").iterdir())
    assert sorted(path.name for path in (tmp_path / "python").iterdir()) == names
    assert {"segmentation.dcm", "report.dcm"} < set(names)
    for name in ("mask.nii.gz", "nodules.csv", "overlay.png"):
        assert (tmp_path / "python" / name).read_bytes() == (tmp_path / "command" / name).read_bytes(), name
    assert result.nodules
    assert result.patient.probability is not None
    assert reports[0]["patient"]["probability"] == round(result.patient.probability, 4)
    assert [one["malignancy"] for one in reports[0]["nodules"]] == [
        round(nodule.malignancy, 4) for nodule in result.nodules if nodule.malignancy is not None
    ]


def test_a_table_of_the_nodules(told: chests.Told, dicom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """That of nodules.csv, not rounded; without nodules the same columns."""
    _, folder = next(iter(chests.folders(dicom).items()))
    scan = lungjax.read_scan(folder)
    result = lungjax.predict(scan, model="model", **ALONE)
    table = result.to_dataframe()
    written = pd.read_csv(result.save(tmp_path / "out") / "nodules.csv")
    assert list(table.columns) == list(written.columns)
    assert len(table) == len(result.nodules) > 0
    pd.testing.assert_frame_equal(table, written, atol=0.051, rtol=0, check_dtype=False)
    assert table["score"].tolist() == [nodule.score for nodule in result.nodules]
    none = lungjax.predict(scan, model="model", **{**NOBODY, "threshold": 0.95}).to_dataframe()
    assert (len(none), list(none.columns)) == (0, list(table.columns))


def test_what_is_there_is_not_overwritten(segmenter: Any, tmp_path: Path):
    scan = lungjax.scan_from_array(chests.chest(), spacing_mm=chests.SPACING_MM)
    result = lungjax.predict(scan, model=segmenter, **NOBODY)
    (tmp_path / "empty").mkdir()
    result.save(str(tmp_path / "empty"))
    assert (tmp_path / "empty" / "report.html").is_file()
    for there in ("empty", "file"):
        (tmp_path / "file").touch()
        with pytest.raises(InputError, match="exists and is not an empty folder"):
            result.save(tmp_path / there)
    with pytest.raises(InputError, match="below cannot be made"):
        result.save(tmp_path / "file" / "below")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="link exists and is not an empty folder"):
        result.save(tmp_path / "link")


def test_models_are_opened_once_and_used_again(told: chests.Told, dicom: Path, monkeypatch: pytest.MonkeyPatch):
    opened, open_model = [], opening.open_model

    def counted(name: Any, **kept: Any) -> Any:
        opened.append(name)
        return open_model(name, **kept)

    monkeypatch.setattr(opening, "open_model", counted)
    segmenter, classifier, patient = (lungjax.load(name) for name in ("model", "grader", "patient"))
    assert opened == ["model", "grader", "patient"]
    for folder in chests.folders(dicom).values():
        models = {"model": segmenter, "nodule_classifier": classifier, "patient_classifier": patient}
        lungjax.predict(lungjax.read_scan(folder), **models, **ALONE)
    assert opened == ["model", "grader", "patient"]


def test_a_model_of_another_task(segmenter: Any):
    scan = lungjax.scan_from_array(chests.chest(), spacing_mm=chests.SPACING_MM)
    mistakes: tuple[tuple[dict[str, Any], str], ...] = (
        ({"model": "grader"}, "nodule-classifier: is a network of the task 'classify'; a segmenter is one of the"),
        ({"model": segmenter, "nodule_classifier": "patient"}, "a nodule classifier is one of the task 'classify'"),
        ({"model": segmenter, "patient_classifier": lungjax.load("grader")}, "a patient classifier is one of the"),
        ({"model": "nowhere"}, "nowhere: neither a run's workdir nor an exported folder"),
        ({"model": segmenter, "device": "tpu"}, "there is no device 'tpu' for JAX here; there is cpu"),
    )
    for models, says in mistakes:
        with pytest.raises(InputError, match=says):
            lungjax.predict(scan, **models)


def test_prepare_and_evaluate_are_those_of_the_commands(kaggle_tree: Path, tmp_path: Path):
    summary = lungjax.prepare(kaggle_tree, tmp_path / "data", workers=1)
    assert (summary.scans, summary.slices) == (18, 72)
    shutil.copytree(lungjax.load("segmenter").trained.path, tmp_path / "segmenter")
    out = tmp_path / "o.json"
    figures = lungjax.evaluate(str(tmp_path / "segmenter"), data=tmp_path / "data", split="all", out=out)
    assert json.loads(out.read_text()) == json.loads(json.dumps(figures))
    assert figures["slices"] == 72
    mistakes: tuple[tuple[dict[str, Any], str], ...] = (
        ({}, "evaluate needs --model"),
        ({"model": "segmenter", "whole_scans": True}, "needs --data"),
        ({"submission": "x.csv"}, "needs --luna16 DIR"),
        ({"model": "segmenter", "submission": "x.csv", "luna16": "."}, "takes neither --model nor --data"),
    )
    for arguments, says in mistakes:
        with pytest.raises(InputError, match=says):
            lungjax.evaluate(**arguments)


def test_what_is_given_in_place_of_a_scan_or_a_model(segmenter: Any, truth: np.ndarray):
    scan = lungjax.scan_from_array(truth, spacing_mm=(5.0, 2.5, 2.5))
    wrong: Any = "folder"
    with pytest.raises(InputError, match="predict takes a scan, not a str: make one by read_scan or scan_from_array"):
        lungjax.predict(wrong, model=segmenter)
    with pytest.raises(
        InputError, match="a nodule classifier is a bundled model's name, a path, or what load returned"
    ):
        lungjax.predict(scan, model=segmenter, nodule_classifier=truth)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="compare takes two predictions, not a Scan; make each by predict"):
        lungjax.compare(scan, scan)  # pyright: ignore[reportArgumentType]


def test_the_fault_of_a_series_is_told_before_that_of_a_file_beside_it(tmp_path: Path):
    (tmp_path / "a.dcm").write_bytes(bytes(128) + b"DICM and no more")
    with pytest.raises(InputError, match=r"can be read: missing_tag: .*a\.dcm has no Series"):
        lungjax.read_scan(tmp_path)
    source_files.write_ct(tmp_path / "mr", STORED, tags={"Modality": "MR"})
    with pytest.raises(InputError, match="holds no scan that can be read: not_ct: "):
        lungjax.read_scan(tmp_path)
    kinds = ("several_reconstructions", "unreadable_file", "missing_tag", "incomplete_series", "not_hu")
    faults = [Quarantined(name, "there", name, name) for name in kinds]
    assert [chief(faults[:count]).name for count in (1, 2, 3, 5)] == [*kinds[:4]]
