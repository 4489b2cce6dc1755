"""What `lungjax` exports is a promise: names, signatures, types and documentation; and importing it costs nothing."""

from __future__ import annotations

import dataclasses
import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import lungjax

ROOT = Path(__file__).parents[1]

FUNCTIONS = {
    "read_scan": "(path: Path | str, *, series_uid: str | None = None) -> Scan",
    "scan_from_array": "(hu: np.ndarray, *, spacing_mm: tuple[float, float, float], "
    "affine_lps: np.ndarray | None = None, patient_id: str = 'unknown') -> Scan",
    "predict": "(scan: Scan, *, model: Path | str | Segmenter = 'detector', "
    "candidate_classifier: Path | str | CandidateClassifier | None = 'candidate-classifier', "
    "nodule_classifier: Path | str | NoduleClassifier | None = 'nodule-classifier', "
    "patient_classifier: Path | str | PatientClassifier | None = 'patient-classifier', "
    "prevalence: Literal['lidc', 'screening'] | float = 'lidc', device: Device | None = None, "
    "false_positives: float | None = None, threshold: float | None = None) -> Prediction",
    "compare": "(first: Prediction, second: Prediction, *, "
    "dates_of: tuple[datetime.date | None, datetime.date | None] | None = None) -> FollowUp",
    "load": "(model: Path | str, *, device: Device | None = None) -> Any",
    "prepare": "(source: Path | str, out: Path | str, *, format: str = 'auto', workers: int | None = None, "
    "dask: str | None = None, overwrite: bool = False, without_patients: bool = False, "
    "labels: Sequence[int] = (), unlabelled_is_empty: bool = False, patients: Path | str | None = None) -> Summary",
    "evaluate": "(model: Path | str | None = None, *, data: Path | str | None = None, "
    "split: Literal['train', 'val', 'test', 'all'] = 'test', out: Path | str | None = None, "
    "against: Path | str | None = None, flips: bool = False, whole_scans: bool = False, "
    "candidate_classifier: Path | str | None = 'candidate-classifier', fit_operating_point: bool = False, "
    "submission: Path | str | None = None, luna16: Path | str | None = None, "
    "labels: Sequence[int] = (), unlabelled_is_empty: bool = False) -> dict[str, Any]",
}
METHODS = {
    "Segmenter": {"predict": "(self, hu: np.ndarray, *, slice_mm: float | None = None) -> np.ndarray"},
    "CandidateClassifier": {"predict": "(self, hu: np.ndarray, pixel_mm: np.ndarray | float) -> np.ndarray"},
    "NoduleClassifier": {"predict": "(self, hu: np.ndarray, pixel_mm: np.ndarray | float) -> NodulePrediction"},
    "PatientClassifier": {
        "predict": "(self, hu: np.ndarray, pixel_mm: np.ndarray | float, present: np.ndarray | None = None) "
        "-> PatientPrediction"
    },
    "Encoder": {"embed": "(self, hu: np.ndarray, *, slice_mm: float | None = None) -> np.ndarray"},
    "Prediction": {
        "save": "(self, out: Path | str) -> Path",
        "to_dict": "(self) -> dict[str, Any]",
        "to_dataframe": "(self) -> pd.DataFrame",
    },
    "FollowUp": {
        "save": "(self, out: Path | str) -> Path",
        "to_dict": "(self) -> dict[str, Any]",
        "to_dataframe": "(self) -> pd.DataFrame",
    },
}
CANNOT_FAIL = ("to_dict", "to_dataframe")
FIELDS = {
    "Scan": "patient_id study_uid series_uid voxels intensity z_mm spacing_mm sop_uids padding_hu nodules affine_lps "
    "source dicom_files turn notes",
    "Prediction": "scan nodules candidates mask patient warnings refused lungs threshold operating_point models made",
    "PredictedNodule": "number centre_voxel centre_mm volume_mm3 longest_mm perpendicular_mm mean_hu score malignancy "
    "slices mean_mm fleischner_mm type solid_mean_mm ratings side zone pleura_mm lung_rads lung_rads_reason",
    "PredictedRating": "expected standard_deviation probabilities",
    "PredictedPatient": "probability reason meaning limits attention calibration prevalence",
    "FollowUp": "first second days no_days_reason failed lung_dice affine_lps spline matched new gone not_shown "
    "warnings made",
    "ComparedScan": "scan report mask date",
    "MatchedNodule": "first second distance_mm volumes_mm3 longest_mm growth doubling_time",
    "UnmatchedNodule": "scan number volume_mm3 longest_mm place_mm shown candidate",
    "Growth": "ratio ratio_interval change",
    "DoublingTime": "days days_interval reason",
    "NodulePrediction": "probability ratings rating_probabilities",
    "PatientPrediction": "probability attention",
}


def test_exactly_this_is_exported():
    assert sorted(lungjax.__all__) == sorted({*FUNCTIONS, *METHODS, *FIELDS, "InputError"})
    assert lungjax.__all__ == sorted(lungjax.__all__)
    assert set(lungjax.__all__) <= set(dir(lungjax))
    for name in lungjax.__all__:
        assert getattr(lungjax, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'grade'"):
        lungjax.grade  # noqa: B018  # pyright: ignore


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_takes_and_returns_what_is_promised(name: str):
    assert signature(getattr(lungjax, name)) == FUNCTIONS[name]


@pytest.mark.parametrize(("owner", "name"), [(owner, name) for owner, methods in METHODS.items() for name in methods])
def test_a_method_takes_and_returns_what_is_promised(owner: str, name: str):
    assert signature(getattr(getattr(lungjax, owner), name)) == METHODS[owner][name]


class Bare(str):
    """An annotation that is shown without quotation marks."""

    def __repr__(self) -> str:
        return str(self)


def signature(function: Any) -> str:
    found = inspect.signature(function)
    named = [one.replace(annotation=Bare(one.annotation)) for one in found.parameters.values() if one.name != "self"]
    own = [one for one in found.parameters.values() if one.name == "self"]
    return str(found.replace(parameters=[*own, *named], return_annotation=Bare(found.return_annotation)))


@pytest.mark.parametrize("name", FIELDS)
def test_a_class_has_the_promised_fields_and_says_what_they_are(name: str):
    kind = getattr(lungjax, name)
    assert [field.name for field in dataclasses.fields(kind)] == FIELDS[name].split()
    described = kind.__doc__.split("Attributes:")[1]
    for field in FIELDS[name].split():
        assert field in described, f"{name}.{field} is not documented"


def test_every_argument_is_documented():
    documented = [getattr(lungjax, name) for name in FUNCTIONS]
    documented += [getattr(getattr(lungjax, owner), name) for owner, methods in METHODS.items() for name in methods]
    for function in documented:
        text = inspect.getdoc(function) or ""
        for argument in inspect.signature(function).parameters:
            assert argument == "self" or f"{argument}:" in text or f"{argument}, " in text, (function, argument)
        without = {owner.__dict__[name] for owner in (lungjax.Prediction, lungjax.FollowUp) for name in CANNOT_FAIL}
        assert "Raises:" in text or function in without, function


def run(code: str, folder: Path) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_it_is_cheap(tmp_path: Path):
    """Neither JAX nor NumPy is loaded; processor time, for other tests may run beside this one."""
    code = """
import sys, time
started = time.process_time()
import lungjax
print(time.process_time() - started)
heavy = {"jax", "numpy", "pandas", "scipy", "flax", "pydicom", "matplotlib"} & set(sys.modules)
assert not heavy, heavy
for name in lungjax.__all__:
    assert name in dir(lungjax)
assert "jax" not in sys.modules
lungjax.Scan
assert "jax" not in sys.modules, "a scan is no matter of JAX"
lungjax.Segmenter
assert "jax" in sys.modules
"""
    assert float(run(code, tmp_path)) < 0.5


CLIENT = """
from typing import Any, Literal, assert_type

import numpy as np
import pandas as pd

import lungjax

scan = lungjax.read_scan("folder", series_uid="1.2.3")
assert_type(scan, lungjax.Scan)
assert_type(scan.hu, np.ndarray)
assert_type(scan.spacing_mm, tuple[float, float, float])
assert_type(scan.affine_lps, np.ndarray | None)
assert_type(lungjax.scan_from_array(scan.hu, spacing_mm=(1.0, 0.7, 0.7)), lungjax.Scan)

result = lungjax.predict(scan, model="detector", nodule_classifier=None, device="cpu")
assert_type(result, lungjax.Prediction)
assert_type(result.nodules, tuple[lungjax.PredictedNodule, ...])
assert_type(result.nodules[0].malignancy, float | None)
assert_type(result.nodules[0].slices, tuple[int, int])
assert_type(result.nodules[0].type, Literal["solid", "part-solid", "ground glass"] | None)
assert_type(result.nodules[0].ratings["texture"], lungjax.PredictedRating)
assert_type(result.nodules[0].side, Literal["left", "right"] | None)
assert_type(result.lung_rads, Literal["1", "2", "3", "4A", "4B"] | None)
assert_type(result.patient, lungjax.PredictedPatient)
assert_type(result.refused, str | None)
assert_type(result.mask, np.ndarray)
assert_type(result.to_dataframe(), pd.DataFrame)

follow_up = lungjax.compare(result, result, dates_of=None)
assert_type(follow_up, lungjax.FollowUp)
assert_type(follow_up.matched[0].growth, lungjax.Growth)
assert_type(follow_up.matched[0].doubling_time, lungjax.DoublingTime | None)
assert_type(follow_up.new, tuple[lungjax.UnmatchedNodule, ...])
assert_type(follow_up.first, lungjax.ComparedScan)

segmenter = lungjax.load("segmenter")
assert_type(segmenter, lungjax.Segmenter)
assert_type(segmenter.predict(scan.hu), np.ndarray)
lungjax.predict(scan, model=segmenter, patient_classifier=lungjax.load("patient"))
assert_type(lungjax.load("grader"), lungjax.NoduleClassifier)
assert_type(lungjax.load("nodule-classifier").predict(scan.hu, 0.7), lungjax.NodulePrediction)
assert_type(lungjax.load("patient-classifier").predict(scan.hu, 0.7).attention, np.ndarray)
assert_type(lungjax.load("encoder").embed(scan.hu), np.ndarray)
assert_type(lungjax.load("workdir/run"), Any)

assert_type(lungjax.prepare("source", "out").slices, int)
assert_type(lungjax.evaluate("segmenter", data="slices.zip", split="val"), dict[str, Any])

lungjax.predict("folder")  # mistake: no scan
lungjax.predict(scan, device="cuda")  # mistake: no such device
lungjax.load("encoder").predict(scan.hu)  # mistake: an encoder predicts nothing
lungjax.evaluate("segmenter", split="dev")  # mistake: no such split
lungjax.diagnose(scan)  # mistake: no such function
"""


def test_a_type_checker_sees_what_is_promised(tmp_path: Path):
    """In a program of somebody else: every type as it should be, and every mistake at its line, no other."""
    (tmp_path / "client.py").write_text(CLIENT)
    settings = {"typeCheckingMode": "standard", "extraPaths": [str(ROOT)], "pythonVersion": "3.11"}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, "client.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    found = {one["range"]["start"]["line"]: one["message"] for one in json.loads(done.stdout)["generalDiagnostics"]}
    mistakes = {number for number, line in enumerate(CLIENT.splitlines()) if "# mistake" in line}
    assert set(found) == mistakes, found
    assert (Path(lungjax.__file__).parent / "py.typed").is_file()
