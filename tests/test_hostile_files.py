"""JSON and CSV that nobody should have sent: read, or refused by one sentence of ours, whatever stands in them."""

from __future__ import annotations

import csv
import io
import json
import shutil
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pages
import patches
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lungjax import tables
from lungjax.data import bags, loader, manifest, shards
from lungjax.errors import Fault, InputError
from lungjax.evaluation.detection import luna16_rules
from lungjax.prediction import run
from lungjax.preparation import choices
from lungjax.preparation.run import prepare
from lungjax.train import calibrate, workdir

FEW = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
MANY = settings(FEW, max_examples=1500, derandomize=False)
NUMBERS = st.sampled_from([None, True, -1, 0, 1, 3, 2**31, 2**64, 10**30, 0.5, 1e308, float("nan"), float("-inf")])
OTHERS = st.sampled_from(["", "x", "hu", "../../etc/passwd", "/etc/passwd", [], {}, [1] * 100, [[1]], {"a": 1}])
MODELS = ("model", "candidate_classifier", "nodule_classifier", "patient_classifier")
CELLS = st.one_of(
    st.text(max_size=12), st.sampled_from(["nan", "inf", "-1", "1e400", "9" * 30, "True", "../x", "", '"', "0.5", ";"])
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    prepare(patches.write(folder / "nodules.npz", patients=3), folder / "data", workers=1)
    return folder / "data"


def changed(content: Any, data: st.DataObject) -> Any:
    """JSON with a value replaced somewhere, or left out."""
    if isinstance(content, dict | list) and content and data.draw(st.integers(0, 9)):
        copy: Any = dict(content) if isinstance(content, dict) else list(content)
        place = data.draw(st.sampled_from(sorted(copy) if isinstance(copy, dict) else range(len(copy))))
        if data.draw(st.integers(0, 9)):
            copy[place] = changed(copy[place], data)
        else:
            del copy[place]
        return copy
    return data.draw(st.one_of(NUMBERS, OTHERS))


def refusal(read: Callable[[], object]) -> str:
    """What the InputError or Fault says; empty where there is none."""
    try:
        read()
    except (InputError, Fault) as error:
        return str(error)
    return ""


def use(folder: Path) -> None:
    """Reads all that a training would."""
    dataset = shards.open_dataset(folder)
    rows = np.arange(len(dataset))
    loader.Slices(dataset, crop_px=16, crop_at="nodule").batch(rows)
    for split in ("train", "val", "test"):
        refusal(lambda split=split: loader.select_rows(dataset, split=split, slices="rated"))
    bags.Bags(dataset, nodules=2).batch(np.arange(1))


def fuzz_manifest(folder: Path, data: st.DataObject) -> None:
    whole = json.loads((folder / "manifest.json").read_text())
    whole.pop("sha256")
    (folder / "manifest.json").write_text(json.dumps(changed(whole, data)))
    assert "\n" not in refusal(lambda: use(folder))


def fuzz_index(folder: Path, data: st.DataObject) -> None:
    rows = list(csv.reader((folder / "index.csv").read_text().splitlines()))
    for _ in range(data.draw(st.integers(1, 3))):
        row = data.draw(st.integers(0, len(rows) - 1))
        rows[row][data.draw(st.integers(0, len(rows[row]) - 1))] = data.draw(CELLS)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    (folder / "index.csv").write_bytes(text.getvalue().encode(errors="replace"))
    described = json.loads((folder / "manifest.json").read_text())
    size, digest = (folder / "index.csv").stat().st_size, manifest.sha256(folder / "index.csv")
    described["files"]["index.csv"] |= {"bytes": size, "sha256": digest}
    manifest.save_manifest(folder, described)
    refusal(lambda: use(folder))


@pytest.mark.parametrize("fuzz", [fuzz_manifest, fuzz_index])
@FEW
@given(drawn=st.data())
def test_data_sets_are_read_or_refused(data: Path, tmp_path: Path, fuzz: Callable, drawn: st.DataObject):
    fuzz(Path(shutil.copytree(data, tmp_path / "copy", dirs_exist_ok=True)), drawn)


@pytest.mark.exhaustive
@pytest.mark.parametrize("fuzz", [fuzz_manifest, fuzz_index])
@MANY
@given(drawn=st.data())
def test_data_sets_are_read_or_refused_many_times(data: Path, tmp_path: Path, fuzz: Callable, drawn: st.DataObject):
    fuzz(Path(shutil.copytree(data, tmp_path / "copy", dirs_exist_ok=True)), drawn)


CALIBRATION = {"slope": 0.5, "offset": -0.25, "fitted_on": 7, "step": 3, "prevalence": 0.4, "prevalence_of": 9}
SHARES = {"predicted": [0.0, 0.5, 1.0], "share": [0.0, 0.25, 0.5], "fitted_on": 7, "step": 3}
MARKING = {**SHARES, "peak": [0.0, 0.25, 1.0], "marking": [0.25, 0.5, 0.75]}
POINTS = {"false_positives_a_scan": [0.5, 1.0], "threshold": [0.75, 0.5], "default": 1.0, "fitted_on": "3 scans"}


@FEW
@given(drawn=st.data())
def test_calibrations_and_thresholds_are_read_or_refused(tmp_path: Path, drawn: st.DataObject):
    for whole in (CALIBRATION, SHARES, MARKING):
        (tmp_path / calibrate.CALIBRATION_FILE).write_text(json.dumps(changed(whole, drawn)))

        def read() -> None:
            known = calibrate.read_calibration(tmp_path, 3)
            calibrate.probability(np.zeros(2), known)
            calibrate.shares_of(known)

        assert "\n" not in refusal(read)
    (tmp_path / workdir.POINTS_FILE).write_text(json.dumps(changed(POINTS, drawn)))
    assert "\n" not in refusal(lambda: workdir.read_operating_points(tmp_path))


@FEW
@given(drawn=st.data())
def test_reports_are_gone_on_with_or_refused(tmp_path: Path, drawn: st.DataObject):
    networks = types.SimpleNamespace(descriptions=lambda: {name: whole.get(name) for name in MODELS})
    opened: Any = types.SimpleNamespace(networks=networks, point=types.SimpleNamespace(threshold=0.5), prevalence=None)
    whole = pages.report(threshold=0.5)
    whole["patient"] |= {"prevalence": None, "model": None, "probability": None, "reason": "It is a test."}
    (tmp_path / "report.json").write_text(json.dumps(whole))
    assert run.earlier_report(tmp_path, opened) == json.loads(json.dumps(whole))
    (tmp_path / "report.json").write_text(json.dumps(changed(whole, drawn)))

    def read() -> None:
        run.Summary(tmp_path, {tmp_path: run.earlier_report(tmp_path, opened)}, 1, ()).text()

    assert "\n" not in refusal(read)


@pytest.mark.parametrize("name", [calibrate.CALIBRATION_FILE, workdir.POINTS_FILE, workdir.SPLIT_FILE])
@pytest.mark.parametrize("content", [b"[" * 10**5, b"", b"null", b"[1]", b"\xff", b"9" * 10**5, b'"x"'])
def test_what_is_no_object_is_refused(tmp_path: Path, name: str, content: bytes):
    (tmp_path / name).write_bytes(content)
    read: dict[str, Callable[[], object]] = {
        calibrate.CALIBRATION_FILE: lambda: calibrate.read_calibration(tmp_path, 3),
        workdir.POINTS_FILE: lambda: workdir.read_operating_points(tmp_path),
        workdir.SPLIT_FILE: lambda: workdir.read_split(tmp_path),
    }
    assert refusal(read[name]).startswith(f"{tmp_path / name} is damaged (")


TABLES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "labels": ("patient_id,label", bags.read_labels),
    "patients": ("case,patient", choices.read_patients),
    "candidates": (
        "seriesuid,coordX,coordY,coordZ,probability",
        lambda path: luna16_rules.read_points(path, "probability"),
    ),
    "any": ("a;b", lambda path: list(tables.read(path, ("a", "b")))),
}


@pytest.mark.parametrize("name", TABLES)
@FEW
@given(
    rows=st.lists(st.lists(CELLS, max_size=6), max_size=6),
    between=st.sampled_from([",", ";", "\t", "\x00", "\n", '"']),
    ending=st.sampled_from(["\n", "\r\n", "\r", "\u2028"]),
    raw=st.binary(max_size=8),
)
def test_tables_are_read_or_refused(
    tmp_path: Path, name: str, rows: list[list[str]], between: str, ending: str, raw: bytes
):
    header, read = TABLES[name]
    text = ending.join([header, *(between.join(row) for row in rows)])
    (tmp_path / "table.csv").write_bytes(text.encode(errors="replace") + raw)
    refusal(lambda: read(tmp_path / "table.csv"))


def test_a_quotation_mark_without_end_is_refused(tmp_path: Path):
    (tmp_path / "table.csv").write_text('a,b\n1,"2\n' + "x,y\n" * 50_000)
    assert "table.csv, line" in refusal(lambda: list(tables.read(tmp_path / "table.csv", ("a", "b"))))
