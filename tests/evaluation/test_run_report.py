"""The page of a training run: at any time of it, with what there is, and nothing fetched."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path

import pages
import pytest
import runs
from pages import Page

from lungjax import cli
from lungjax.errors import InputError
from lungjax.evaluation import run_evaluate, run_report
from lungjax.train import loop, trained, workdir

HOSTILE = "</script><script>alert(1)</script><b>"


@pytest.fixture(scope="module")
def run(slices_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run with an evaluation."""
    config = runs.small_config("segment", slices_dataset)
    config.steps, config.log_every = 4, 1
    config.eval_every = config.checkpoint_every = 2
    folder = tmp_path_factory.mktemp("run") / "segment"
    assert loop.train_and_evaluate(config, folder)
    run_evaluate.evaluate(folder, data=None, split="all", out=None)
    return folder


def opened(workdir: Path, out: Path) -> Page:
    page = Page(run_report.write(workdir, out=out))
    pages.assert_nothing_is_fetched(page)
    assert "script" not in page.blocks
    return page


def pictures(page: Page) -> list[bytes]:
    sources = [str(attributes["src"]) for tag, attributes in page.tags if tag == "img"]
    return [base64.b64decode(source.removeprefix("data:image/png;base64,")) for source in sources]


def test_the_page_of_a_finished_run(run: Path, tmp_path: Path):
    page = opened(run, tmp_path / "page.html")
    text = " ".join(page.text.split())
    found = json.loads((run / "evaluation-all.json").read_text())
    for side in (found, found["readers"]):
        figure = side["pooled"]["dice"]
        assert f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]" in text
    last = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    loss = [one["train/loss"] for one in last if "train/loss" in one][-1]
    digest = json.loads((run / "split.json").read_text())["digest"]
    for part in (
        *("step 4 of 4, finished", f"{loss:.4g} step 4", "not a medical device", digest, "cores", "jax"),
        *("python -m lungjax.main", "model.encoder.width", "evaluation-all.json", f"{found['patients']} patients"),
        *("95 % percentile bootstrap over patients", "Step 4", "Step 2, the first sheet"),
    ):
        assert part in text, part
    inside = pictures(page)
    kinds = [run / f"evaluation-all.{kind}.png" for kind in ("reliability", "dice", "worst", "spread", "best")]
    for png in (*kinds, run / "examples" / "0000002.png", run / "examples" / "0000004.png"):
        assert png.read_bytes() in inside, png
    assert len(inside) == 7 + 4  # And the curves of loss, accuracy, precision and Dice.
    assert all(attributes["alt"] for tag, attributes in page.tags if tag == "img")


def test_every_figure_with_an_interval_is_there(run: Path, tmp_path: Path):
    """As many rows as the evaluation has figures, whatever the task calls them; a difference beside them."""
    copied = shutil.copytree(run, tmp_path / "run")
    figure = {"value": 0.5, "low": 0.25, "high": None, "left_out": 2}
    report = {
        "split": "test",
        "auc": figure,
        "deep": {"er_name": {"x_y": figure | {"high": 0.75}, "count": 3}},
        "readers": {"auc": figure | {"value": None}},
        "against": {"auc": figure | {"value": 0.4, "high": 0.9}, "difference": {"auc": figure | {"value": 0.1}}},
    }
    (copied / "evaluation-all.json").write_text(json.dumps(report))
    page = opened(copied, tmp_path / "page.html")
    text = " ".join(page.text.split())
    assert "auc 0.500 [-] - 0.400 [0.250, 0.900] 0.100 [-]" in text  # Model, readers, the other, the difference.
    assert "x y" in text
    assert "deep, er name" in text


def test_a_run_that_has_just_begun_and_one_without_evaluation(run: Path, tmp_path: Path):
    begun = tmp_path / "begun"
    begun.mkdir()
    for name in ("config.json", "split.json"):
        shutil.copy(run / name, begun / name)
    text = " ".join(opened(begun, tmp_path / "begun.html").text.split())
    for part in (
        "step 0 of 4, 0 %, not finished",
        "Nothing has been logged",
        "There is none yet",
        "There are none yet",
    ):
        assert part in text, part
    half = json.dumps({"step": 2, "train/loss": 0.5}) + '\n{"step": 3, "tr'
    (begun / "metrics.jsonl").write_text(half)  # As a killed process leaves it, or one that is writing.
    page = opened(begun, tmp_path / "begun.html")
    assert "step 2 of 4, 50 %, not finished" in page.text
    assert len(pictures(page)) == 1


def test_damaged_and_hostile_files_of_a_run(run: Path, tmp_path: Path):
    copied = shutil.copytree(run, tmp_path / "run")
    for content in ("{", "[]", '{"pooled": {"dice": {"value": "x", "low": 1, "high": 2}}}', "null", '{"readers": 5}'):
        (copied / "evaluation-all.json").write_text(content)
        assert "evaluation-all.json is damaged" in opened(copied, tmp_path / "page.html").text, content
    config = workdir.read_config(copied).to_dict()
    (copied / "config.json").write_text(json.dumps(config | {HOSTILE: HOSTILE, "task": HOSTILE}))
    (copied / "origin.json").write_text(json.dumps({"command": HOSTILE, "versions": {HOSTILE: HOSTILE}}))
    (copied / "evaluation-all.json").write_text(
        json.dumps({"split": HOSTILE, HOSTILE: {HOSTILE: {"value": 1.0, "low": 1.0, "high": 1.0}}, "interval": HOSTILE})
    )
    (copied / f"evaluation-{HOSTILE.replace('/', '')}.json").write_text("{")
    page = opened(copied, tmp_path / "page.html")
    assert page.text.count(HOSTILE) >= 9
    assert not [tag for tag, _ in page.tags if tag == "b"]


def test_the_verb(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    copied = shutil.copytree(run, tmp_path / "run")
    before = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}
    assert cli.main(["report", str(copied)]) == 0
    assert capsys.readouterr().out == f"page: {copied / 'report.html'}\n"
    after = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}
    assert after.pop(copied / "report.html").startswith(b"<!DOCTYPE html>")
    assert after == before
    assert cli.main(["report", str(copied), "--out", str(tmp_path / "new" / "page.html")]) == 0
    assert (tmp_path / "new" / "page.html").is_file()
    for arguments, said in (
        ([str(tmp_path)], "no config.json in it"),
        ([str(copied), "--out", str(tmp_path)], "is a folder; --out names"),
        ([str(copied), "--out", str(copied / "config.json" / "x.html")], "cannot be made"),
    ):
        assert cli.main(["report", *arguments]) == 2
        assert said in capsys.readouterr().err


def test_an_exported_folder_is_no_run():
    with pytest.raises(InputError, match="an exported folder, whose page is its README"):
        run_report.write(trained.SHIPPED / "encoder")
