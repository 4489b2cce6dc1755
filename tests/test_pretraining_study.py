"""`scripts/pretraining_study.py`: its arms are what they say, it ends with a table, and stops when its time is up."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import runs

from lungjax.train import loop

study = runs.load(runs.ROOT / "scripts" / "pretraining_study.py")


@pytest.mark.parametrize("size", [study.CPU, study.GPU])
@pytest.mark.parametrize("arm", study.ARMS)
def test_an_arm_is_a_configuration_of_the_one_network(arm: str, size: dict[str, object]):
    name, changes = study.ARMS[arm]
    config_name, _, variant = name.partition(":")
    config = runs.load_config(config_name.removesuffix(".py"), variant or "patches")
    values = study.NETWORK | size | changes
    decoder = tuple(map(int, str(values.pop("model.decoder", "(64,32,16)")).strip("()").split(",")))
    config.update_from_flattened_dict(values)
    loop.check_config(config)
    encoder = runs.load_config("segment", "slices").model.encoder
    encoder.update({key.rpartition(".")[2]: value for key, value in study.NETWORK.items()})
    assert config.model.encoder == encoder
    assert decoder == (64, 32, 16)
    if arm == "phantoms":
        assert config.data.crop_px == 128, "of whole slices of 512 px a step takes 16 times as long"


@pytest.mark.slow
def test_an_arm_and_the_study_of_it(slices_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    monkeypatch.setattr(study, "NETWORK", study.NETWORK | {"model.encoder.width": 8})
    monkeypatch.setattr(study, "CPU", {"steps": 2, "eval_every": 2, "checkpoint_every": 2, "data.batch_size": 8})
    command = [f"--data={slices_dataset}", f"--out={tmp_path}", "--arms=simclr", "--", "--shares=100", "--seeds=1"]
    command += [f"--config.{name}=2" for name in ("steps", "eval_every", "checkpoint_every")]
    command += ["--config.data.batch_size=8"]
    assert study.main(command) == 0
    config = json.loads((tmp_path / "study" / "runs" / "simclr-100-0" / "config.json").read_text())
    assert config["init_from"] == str(tmp_path / "arms" / "simclr")
    assert "| 100 % " in (tmp_path / "study" / "table.md").read_text()


def test_it_stops_when_its_time_is_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    """Each arm is asked to stop, and ends in its own time; nothing is scored."""
    code = "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(0)); print('.', flush=True); time.sleep(60)"
    monkeypatch.setattr(study, "_pretraining", lambda *_: [sys.executable, "-c", code])
    assert study.main([f"--data={tmp_path}", f"--out={tmp_path}", "--arms=simclr,dense", "--minutes=.02", "--gpu"]) == 1
    assert "stopped; the same command goes on" in capsys.readouterr().err


def test_an_arm_that_fails_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(study, "_pretraining", lambda *_: [sys.executable, "-c", "raise SystemExit(2)"])
    assert study.main([f"--data={tmp_path}", f"--out={tmp_path}", "--arms=simclr"]) == 1


@pytest.mark.parametrize(
    ("arms", "sentence"), [("magic", "there is no arm 'magic'; there are simclr,"), ("ratings", "needs --nodules")]
)
def test_a_mistake_gets_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str], arms: str, sentence: str):
    with pytest.raises(SystemExit) as ended:
        study.main([f"--data={tmp_path}", f"--out={tmp_path}", f"--arms={arms}"])
    assert ended.value.code == 2
    assert sentence in capsys.readouterr().err
