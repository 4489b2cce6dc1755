"""`lungjax predict` of many scans, called again, and in vain."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import chests
import jax
import numpy as np
import pytest

import lungjax
from lungjax import cli
from lungjax.errors import InputError
from lungjax.prediction import opening
from lungjax.prediction import run as predicting
from lungjax.prediction.outputs import contact_sheet, report_json


def test_many_scans_resumed_and_quarantined(
    told: chests.Told, dicom: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    source, out = tmp_path / "source", tmp_path / "out"
    shutil.copytree(dicom, source)
    keys = sorted(chests.folders(source))
    broken = chests.folders(source)[keys[1]]
    held = sorted(broken.rglob("*.dcm"))
    kept = held[3].read_bytes()
    held[3].unlink()
    arguments = ["predict", str(source), "--model", "model", "--out", str(out)]
    assert cli.main(arguments) == 0
    said = capsys.readouterr().out
    assert f"{out / keys[0]}: " in said
    assert "quarantined: incomplete_series" in said
    (line,) = (out / "quarantine.jsonl").read_text().splitlines()
    assert json.loads(line)["key"] == keys[1]
    assert sorted(path.name for path in out.iterdir()) == sorted([keys[0], "quarantine.jsonl"])
    before = (out / keys[0] / "report.json").read_bytes()
    held[3].write_bytes(kept)
    assert cli.main(arguments) == 0
    assert "there already: 1 scan" in capsys.readouterr().out
    assert told.calls == 2
    assert sorted(path.name for path in out.iterdir()) == keys
    assert (out / keys[0] / "report.json").read_bytes() == before


def test_nothing_is_written_by_a_call_that_fails(
    told: chests.Told, dicom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    _, folder = next(iter(chests.folders(dicom).items()))

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(contact_sheet, "draw", full)
    with pytest.raises(OSError, match="No space"):
        chests.run(folder, tmp_path / "in" / "out")
    assert list((tmp_path / "in").iterdir()) == []


def test_a_report_of_another_version_is_not_gone_on_with(told: chests.Told, dicom: Path, tmp_path: Path):
    _, folder = next(iter(chests.folders(dicom).items()))
    chests.run(folder, tmp_path / "out")
    path = tmp_path / "out" / "report.json"
    before = json.loads(path.read_text()) | {"schema": 3}
    del before["lung_rads"]
    path.write_text(json.dumps(before))
    assert list(chests.run(folder, tmp_path / "out").reports.values()) == [before]
    old = before | {"schema": 1, "patient": {"probability": None, "calibration": None}}
    path.write_text(json.dumps(old))
    with pytest.raises(InputError, match="another version of lungjax"):
        chests.run(folder, tmp_path / "out")


def test_mistakes(
    told: chests.Told,
    dicom: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
):
    _, folder = next(iter(chests.folders(dicom).items()))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    with pytest.raises(InputError, match=r"holds no report\.json of ours"):
        chests.run(folder, tmp_path / "mine")
    chests.run(folder, tmp_path / "out")
    monkeypatch.setattr(report_json, "describe_model", lambda _: {"name": "another"})
    with pytest.raises(InputError, match="another model or threshold"):
        chests.run(folder, tmp_path / "out")
    arguments = ["predict", str(folder), "--model", "detector", "--out", str(tmp_path / "new"), "--device", "tpu"]
    assert cli.main(arguments) == 2
    assert "there is no device 'tpu' for JAX here; there is cpu" in capsys.readouterr().err
    for path in sorted(folder.rglob("*.dcm"))[1:]:
        (tmp_path / "some").mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / "some" / path.name)
    with pytest.raises(InputError, match="no scan could be read: incomplete_series"):
        chests.run(tmp_path / "some", tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("key", ["1.2.840.3", "a/b", "..", ".hidden", "with space", "Ä"])
def test_a_scans_folder_is_a_folder_in_out(key: str, tmp_path: Path):
    folder = tmp_path / predicting.file_name(key)
    assert folder.resolve().parent == tmp_path.resolve()
    assert not folder.name.startswith(".")


def test_every_network_runs_on_the_device_that_was_asked_for(monkeypatch: pytest.MonkeyPatch):
    """Its weights and all that it is given are put there, and a program runs where its inputs are."""
    fourth, device_put, devices = jax.devices()[3], jax.device_put, []

    def put(values: Any, device: Any = None, **kept: Any) -> Any:
        devices.append(device)
        return device_put(values, device, **kept)

    monkeypatch.setattr(opening, "find_device", lambda _: fourth)
    monkeypatch.setattr(jax, "device_put", put)
    hu = np.zeros((1, 64, 64), np.int16)
    for name, predict in (
        ("detector", lambda model: model.tiles(hu)),
        ("encoder", lambda model: model.embed(hu)),
        ("nodule-classifier", lambda model: model.predict(hu, 0.7)),
        ("patient-classifier", lambda model: model.predict(hu[None], 0.7)),
    ):
        predict(lungjax.load(name))
        assert devices == [fourth] * 2, name
        devices.clear()
