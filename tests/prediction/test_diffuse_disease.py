"""Diffuse disease is noticed where it is large; what only resembles it is not: in a phantom and in real scans."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import chests
import numpy as np
import pytest
import runs

import lungjax
from lungjax.ct.lungs import find_lungs
from lungjax.ct.scan import Scan
from lungjax.errors import InputError
from lungjax.prediction import diffuse_disease, pipeline, run
from lungjax.prediction.diffuse_disease import LungCheck
from lungjax.prediction.operating_point import OperatingPoint
from lungjax.prediction.patient_classifier import PatientClassifier
from lungjax.preparation.phantom import disease
from lungjax.preparation.phantom import writer as phantom
from lungjax.train.trained import open_trained

script = runs.load(runs.ROOT / "scripts" / "diffuse_disease.py")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A phantom's series, of 128 x 128."""
    out = tmp_path_factory.mktemp("phantom") / "out"
    phantom.write(out, scans=1, seed=0, matrix=128)
    return out


@pytest.fixture(scope="module")
def scan(drawn: Path) -> Scan:
    return lungjax.read_scan(drawn)


@pytest.fixture(scope="module")
def chest(scan: Scan) -> disease.Chest:
    return disease.Chest(scan.voxels, scan.spacing_mm, seed=0)


def check(hu: np.ndarray, scan: Scan, nodules: Any = ()) -> LungCheck:
    scan = dataclasses.replace(scan, voxels=hu)
    return diffuse_disease.check(scan, find_lungs(hu, scan.spacing_mm), nodules)


@pytest.mark.parametrize("kind", disease.KINDS)
@pytest.mark.parametrize("sides", ["right", "left", "both"])
def test_large_disease_is_noticed(kind: str, sides: str, chest: disease.Chest, scan: Scan):
    ml = 0.18 * chest.lungs_ml  # Less than a lower lobe.
    found = check(disease.KINDS[kind](chest, ml, sides), scan)
    assert found.unusual
    what = "denser than usual" if kind == "ground glass" else "hold no air"
    assert what in str(found.warning())
    assert str(found.warning()).startswith("The lungs are unlike those of the patients")


@pytest.mark.parametrize("name", disease.HARMLESS)
def test_what_is_no_disease_is_left_alone(name: str, chest: disease.Chest, scan: Scan):
    found = check(disease.HARMLESS[name](chest), scan)
    assert found.unusual == ()
    assert found.warning() is None
    assert found.dense_share < diffuse_disease.MOST_DENSE / 2
    assert found.missing_share < diffuse_disease.MOST_MISSING / 2


def test_lungs_that_are_dense_everywhere(chest: disease.Chest, scan: Scan):
    found = check(chest.breath(250.0), scan)
    assert "half of the lungs is denser than" in str(found.warning())


def test_a_lung_that_is_not_there(scan: Scan):
    """Where the finder loses a whole lung, the other one is all that is left."""
    grid_scan = scan.voxels.copy()
    middle = grid_scan.shape[2] // 2
    grid_scan[:, :, :middle] = np.maximum(grid_scan[:, :, :middle], 20)
    assert any("one lung is found, not two" in sentence for sentence in check(grid_scan, scan).unusual)


def test_which_way_a_scan_lies_does_not_matter(chest: disease.Chest, scan: Scan):
    """Rows from the back to the front and columns to the right, as the affine says: the same measures."""
    hu = chest.effusion(0.1 * chest.lungs_ml, sides="right")
    assert scan.affine_lps is not None
    turned = dataclasses.replace(scan, affine_lps=scan.affine_lps @ np.diag([-1.0, -1.0, 1.0, 1.0]))
    plain, back = check(hu, scan), check(np.ascontiguousarray(hu[:, ::-1, ::-1]), turned)
    for name in ("dense_share", "missing_share", "right_share"):
        assert getattr(back, name) == pytest.approx(getattr(plain, name), abs=0.01)
    assert plain.unusual
    assert back.unusual


def test_many_nodules_and_large_ones(scan: Scan):
    few, many, large = ([SimpleNamespace(volume_mm3=mm3)] * n for n, mm3 in ((15, 500.0), (16, 10.0), (2, 25_000.0)))
    assert check(scan.voxels, scan, few).unusual == ()
    assert check(scan.voxels, scan, many).unusual == (
        "16 nodules are kept (at most 15 in nearly all patients of LIDC-IDRI)",
    )
    assert "the nodules that are kept have 50 ml" in check(scan.voxels, scan, large).unusual[0]


def test_the_patients_probability_is_withheld(chest: disease.Chest, scan: Scan, tmp_path: Path):
    """With the reason, which is a warning, too; and it is there of the same scan without the disease."""
    classifier = PatientClassifier(open_trained(Path("patient-classifier")))
    trained = dataclasses.replace(chests.untrained(tmp_path), seen={"slice_mm": [0.5, 5.0], "pixel_mm": [0.5, 8.0]})
    ball = np.zeros(scan.voxels.shape, np.float32)
    lung = np.argwhere(find_lungs(scan.voxels, scan.spacing_mm).mask())
    z, row, column = lung[len(lung) // 2]
    ball[z - 1 : z + 2, row - 2 : row + 3, column - 2 : column + 3] = 0.95
    diseased = dataclasses.replace(scan, voxels=chest.ground_glass(0.2 * chest.lungs_ml, sides="both"))
    told: Any = chests.Told([(scan.voxels, ball), (diseased.voxels, ball)], trained)
    networks = pipeline.Networks(told, patient_classifier=classifier)
    point = OperatingPoint(chests.THRESHOLD, None, "It is a test.")
    usual, unusual = (pipeline.predict(one, networks, point) for one in (scan, diseased))
    assert usual.patient.probability is not None
    assert usual.lungs is not None
    assert usual.lungs.unusual == ()
    assert unusual.patient.probability is None
    assert unusual.nodules
    (warning,) = [sentence for sentence in unusual.warnings if "diffuse disease" in sentence]
    assert unusual.patient.reason == f"It is withheld. {warning}"
    unusual.save(tmp_path / "out")
    with pytest.raises(InputError, match="was made for another prevalence; name another --out"):
        run.earlier_report(tmp_path / "out", pipeline.Pipeline(networks, point, networks.prevalence("screening")))
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["lungs"]["unusual"]
    assert warning in report["warnings"]
    assert "denser than usual" in (tmp_path / "out" / "report.html").read_text()


def test_the_script_tells_extents(drawn: Path, capsys: pytest.CaptureFixture):
    assert script.main([str(drawn), "--ml", "10", "900"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "| as it is | 0 of 1 |" in lines[2]
    assert [line for line in lines if line.startswith("| effusion |")] == ["| effusion | 0 of 3 | 3 of 3 |"]
    assert script.main([str(drawn / "nowhere")]) == 2


def test_real_scans(real_data: Path):
    """A healthy person's, and LIDC-IDRI-0003's, on which nothing was tuned, pass; a tenth of effusion does not."""
    for path in (real_data / "normal-dicom" / "normal001", real_data / "lidc-dicom" / "LIDC-IDRI" / "LIDC-IDRI-0003"):
        (scan,) = script.scans([path])
        chest = disease.Chest(scan.voxels, scan.spacing_mm, seed=0)
        for paint in disease.HARMLESS.values():
            assert script.checked(paint(chest), scan).unusual == ()
        assert script.checked(chest.effusion(0.1 * chest.lungs_ml, sides="both"), scan).unusual
        assert script.checked(chest.ground_glass(0.1 * chest.lungs_ml, sides="both"), scan).unusual


@pytest.mark.parametrize("series", ["lidc-dicom/LIDC-IDRI/LIDC-IDRI-0003", "normal-dicom/normal001"])
def test_a_real_field_of_view_with_one_lung_is_noticed(real_data: Path, series: str):
    """Of half the columns the sides had been guessed: two nodules of a left lung were on the right."""
    scan = lungjax.read_scan(real_data / series)
    assert check(scan.voxels, scan).unusual == ()
    slices, _, width = scan.voxels.shape
    for first in range(0, slices, slices // 3):  # Each third has two lungs, where it has any.
        assert not find_lungs(scan.voxels[first : first + slices // 3], scan.spacing_mm).is_one()
    for columns in (slice(width // 2), slice(width // 2, None)):
        found = check(np.ascontiguousarray(scan.voxels[..., columns]), scan)
        assert any(why.startswith("one lung is found, not two") for why in found.unusual), found.unusual
