"""The verbs as a user meets them: exit codes, one line for a mistake, nothing heavy before it is needed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, ClassVar

import pytest

import lungjax
from lungjax import cli
from lungjax.evaluation import run_evaluate
from lungjax.preparation import run


def mistake(capsys: pytest.CaptureFixture[str]) -> str:
    """What was printed as an error, one line; stdout is empty."""
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("lungjax: error: ")
    assert err.count("\n") == 1
    return err


def test_prepare_prints_its_summary(kaggle_tree, tmp_path, capsys):
    arguments = ["prepare", "--source", str(kaggle_tree), "--out", str(tmp_path / "out"), "--workers", "1"]
    assert cli.main(arguments) == 0
    # A dozen patients, every second with two nodules, four slices each.
    assert f"{tmp_path / 'out'}: 18 scans, 72 slices, 12 patients" in capsys.readouterr().out
    assert cli.main(arguments) == 0
    assert "complete already" in capsys.readouterr().out


def test_strict_tells_of_quarantined_scans(kaggle_tree, tmp_path, capsys):
    shutil.copytree(kaggle_tree, tmp_path / "source")
    next((tmp_path / "source").rglob("mask-1/slice-2.png")).unlink()
    arguments = ["prepare", "--source", str(tmp_path / "source"), "--workers", "1"]
    assert cli.main([*arguments, "--out", str(tmp_path / "a")]) == 0
    assert "quarantined: 1 (1 missing_mask)" in capsys.readouterr().out
    assert cli.main([*arguments, "--out", str(tmp_path / "b"), "--strict"]) == 1
    assert cli.main([*arguments, "--out", str(tmp_path / "b"), "--strict"]) == 1


def test_mistakes_are_one_line_and_code_2(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    out = str(tmp_path / "out")
    for arguments, says in (
        (["--source", str(tmp_path / "nowhere")], "nowhere: no such file or folder"),
        (["--source", str(tmp_path / "empty")], "empty holds neither DICOM files nor"),
        (["--source", str(tmp_path / "empty"), "--format", "nrrd"], "unknown format 'nrrd'"),
    ):
        assert cli.main(["prepare", "--out", out, *arguments]) == 2
        assert says in mistake(capsys)
    assert cli.main(["evaluate", "--workdir", str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in mistake(capsys)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "VERB"),
        (["train"], "train"),
        (["prepare", "--source", "x"], "--out"),
        (["prepare", "--source", "x", "--out", "y", "--workers", "none"], "'none' is not a whole number above 0"),
        (["prepare", "--source", "x", "--out", "y", "--colour"], "--colour"),
        (["phantom", "--out", "y", "--scans", "0"], "'0' is not a whole number above 0"),
        (["evaluate", "--workdir", "x", "--split", "dev"], "'dev'"),
    ],
)
def test_wrong_options_are_named(arguments, says, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2
    assert says in capsys.readouterr().err.splitlines()[-1]


def test_each_verb_passes_on_what_it_was_given(tmp_path, monkeypatch):
    from lungjax.preparation import phantom

    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def called(*arguments, **named):
        calls.append((arguments, named))
        return []

    monkeypatch.setattr(phantom, "write", called)
    monkeypatch.setattr(run_evaluate, "evaluate", called)
    assert cli.main(["phantom", "--scans", "3", "--out", "here", "--seed", "7", "--matrix", "128"]) == 0
    assert cli.main(["evaluate", "--workdir", "run"]) == 0
    options = ["--data", "d", "--split", "val", "--out", "o.json", "--against", "other", "--flips"]
    assert cli.main(["evaluate", "--workdir", "run", *options]) == 0
    plain = {"data": None, "split": "test", "out": None, "against": None, "flips": False}
    given = {"data": Path("d"), "split": "val", "out": Path("o.json"), "against": Path("other"), "flips": True}
    assert calls == [
        ((Path("here"),), {"scans": 3, "seed": 7, "matrix": 128}),
        ((Path("run"),), plain),
        ((Path("run"),), given),
    ]


@pytest.mark.parametrize(
    "options",
    [["--nodule-classifier", "n", "--patient-classifier", "p"], ["--grader", "n", "--patient", "p"], []],
)
def test_predict_takes_the_classifiers_by_either_name(options, monkeypatch):
    from lungjax.prediction import run as predicting

    calls = []
    monkeypatch.setattr(predicting, "predict", lambda *given, **named: calls.append((given, named)) or Summary())
    assert cli.main(["predict", "scan", "--out", "out", *options]) == 0
    ((given, named),) = calls
    assert given == (Path("scan"),)
    names = ("n", "p") if options else ("nodule-classifier", "patient-classifier")
    assert named == {
        "model": Path("detector"),
        "candidate_classifier": Path("candidate-classifier"),
        "nodule_classifier": Path(names[0]),
        "patient_classifier": Path(names[1]),
        "out": Path("out"),
        "device": None,
        "prevalence": "lidc",
        "false_positives": None,
        "threshold": None,
        "workers": 1,
        "dask": None,
    }


class Summary:
    reports: ClassVar = {Path("out"): {"refused": None}}

    def text(self) -> str:
        return ""


@pytest.mark.parametrize("name", ["grader", "nodule-classifier"])
def test_a_bundled_model_goes_by_either_name_in_every_verb(name, tmp_path, capsys):
    assert cli.main(["export", "--model", name, "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "model.safetensors").is_file()
    assert cli.main(["evaluate", "--model", name, "--data", str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_ctrl_c_says_how_to_go_on(tmp_path, monkeypatch, capsys):

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "prepare", stop)
    assert cli.main(["prepare", "--source", str(tmp_path), "--out", "x"]) == 130
    assert "run the same command again" in capsys.readouterr().err


def test_an_error_of_ours_keeps_its_traceback(tmp_path, monkeypatch):

    monkeypatch.setattr(run, "prepare", lambda *_, **__: {}["bug"])
    with pytest.raises(KeyError):
        cli.main(["prepare", "--source", str(tmp_path), "--out", "x"])


def test_version_and_help(capsys):
    for option, says in (("--version", f"lungjax {lungjax.__version__}"), ("--help", "prepare")):
        with pytest.raises(SystemExit) as stopped:
            cli.main([option])
        assert stopped.value.code == 0
        assert says in capsys.readouterr().out


@pytest.mark.parametrize("flag", ["--help", "-h", "--helpfull"])
def test_the_trainers_help_names_every_flag(flag, capsys):
    from lungjax.main import main as train

    assert train(["main", flag]) == 0
    said = capsys.readouterr().out
    for name in ("--config", "--workdir", "--coordinator", "--processes", "--process", "--config.KEY=VALUE"):
        assert f"  {name}: " in said


def test_help_tells_the_exit_codes(capsys: pytest.CaptureFixture[str]):
    for verb in cli._RUN:
        with pytest.raises(SystemExit):
            cli.main([verb, "--help"])
        said = " ".join(capsys.readouterr().out.split())
        assert "exit codes: 0: " in said, verb
        assert said.endswith("2: a mistake in the command, or a disk that is full or not writable; 130: interrupted.")


def test_a_refused_scan_is_exit_code_1(phantom_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Its pixels are far too large; a second call, which finds the folder there, says the same."""
    for _ in range(2):
        assert cli.main(["predict", str(phantom_dataset), "--out", str(tmp_path / "out")]) == 1
        assert capsys.readouterr().out.count("refused: Its pixels are 2.") == 2
