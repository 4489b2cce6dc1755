"""`lungjax evaluate` on a run: its figures by a second way, its pictures, its refusals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import runs
import scipy.special

from lungjax.data import loader, shards, splits
from lungjax.errors import InputError
from lungjax.evaluation import run_evaluate, run_segmentation
from lungjax.preparation.run import prepare
from lungjax.train import calibrate, checkpoint, loop, trained, workdir


@pytest.fixture(scope="module")
def segment_run(slices_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = runs.small_config("segment", slices_dataset)
    config.steps = config.eval_every = config.checkpoint_every = 6
    folder = tmp_path_factory.mktemp("segment")
    assert loop.train_and_evaluate(config, folder)
    return folder


def test_pooled_figures_by_a_second_way(segment_run: Path, slices_dataset: Path, tmp_path: Path):
    out = tmp_path / "figures.json"
    report = run_evaluate.evaluate(segment_run, data=None, split="test", out=out)
    assert json.loads(out.read_text()) == json.loads(json.dumps(report))

    dataset = shards.open_dataset(slices_dataset)
    rows = np.flatnonzero(dataset.index["split"] == "test")
    config = workdir.read_config(segment_run)
    segmenter = run_segmentation.Scorer(config, dataset, checkpoint.load_best(segment_run)[0])
    hits = predicted = there = 0
    for batch in loader.eval_batches(loader.Slices(dataset, crop_px=64, crop_at="nodule"), rows, batch_size=8):
        real = batch["weight"] > 0
        votes = np.unpackbits(batch["readers"][real][..., None], axis=-1).sum(axis=-1)
        mask, truth = segmenter.predict(batch)["logit"][real] > 0, votes >= 2
        hits, predicted, there = hits + (mask & truth).sum(), predicted + mask.sum(), there + truth.sum()
    assert report["slices"] == len(rows)
    assert report["pooled"]["dice"]["value"] == pytest.approx(2 * hits / (predicted + there))
    assert report["pooled"]["recall"]["value"] == pytest.approx(hits / there)


def test_readers_and_nodules_by_a_second_way(segment_run: Path, slices_dataset: Path, tmp_path: Path):
    """A series of this source is one nodule: its slices stacked; and each reader's mask is in the shards."""
    report = run_evaluate.evaluate(segment_run, data=None, split="all", out=tmp_path / "figures.json")
    dataset = shards.open_dataset(slices_dataset)
    found = run_segmentation.Scorer(workdir.read_config(segment_run), dataset, checkpoint.load_best(segment_run)[0])
    slices = loader.Slices(dataset, crop_px=64, crop_at="nodule")
    nodules: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for start in range(0, len(dataset), 8):
        rows = np.arange(start, min(start + 8, len(dataset)))
        batch = slices.batch(np.resize(rows, 8))
        for row, mask, bits in zip(rows, found.predict(batch)["logit"] > 0, batch["readers"], strict=False):
            nodules.setdefault(dataset.index["series_uid"].iloc[row], []).append((mask, bits))
    dice, pooled = [], np.zeros(2)
    for stack in nodules.values():
        mask, bits = (np.stack(part) for part in zip(*stack, strict=True))
        votes = np.unpackbits(bits[..., None], axis=-1).sum(axis=-1) >= 2
        dice.append(2 * (mask & votes).sum() / (mask.sum() + votes.sum()))
        for slot in range(4):
            reader = bits >> slot & 1 > 0
            pooled += 2 * (mask & reader).sum(), mask.sum() + reader.sum()
    assert report["nodules"] == report["nodules_marked"] == len(dice) == 18
    assert report["per_nodule"]["dice"]["value"] == pytest.approx(np.mean(dice))
    assert report["against_readers"]["pooled"]["dice"]["value"] == pytest.approx(pooled[0] / pooled[1])
    assert report["per_nodule"]["hd95_mm"]["value"] is None  # This source lost its spacing.
    assert (tmp_path / "figures.table.txt").read_text().startswith("split: all\n12 patients")


def test_a_run_against_another_one(segment_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    other = tmp_path / "other"
    shutil.copytree(segment_run, other)
    report = run_evaluate.evaluate(segment_run, data=None, split="all", out=tmp_path / "figures.json", against=other)
    assert report["against"]["model"] == report["model"] | {"workdir": str(other)}
    assert report["against"]["difference"]["per_slice"]["dice"] == {"value": 0, "low": 0, "high": 0}
    assert report["against"]["pooled"] == report["pooled"]
    assert "A - B" in capsys.readouterr().out
    run = tmp_path / "run"
    shutil.copytree(segment_run, run)
    run_evaluate.evaluate(run, data=None, split="test", out=None, against=other)
    assert (run / "evaluation-test-against-other.json").is_file()
    config = workdir.read_config(other).to_dict()
    config["data"]["crop_px"] = 32
    (other / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        InputError, match=r"other: has config\.data\.crop_px 32, .* has 64; only models that see the same"
    ):
        run_evaluate.evaluate(segment_run, data=None, split="all", out=None, against=other)


@pytest.mark.parametrize("likely", [0.0, 0.3])
def test_samples_are_what_that_share_of_readers_would_mark(
    segment_run: Path, slices_dataset: Path, monkeypatch: pytest.MonkeyPatch, likely: float
):
    """A network that says how many readers mark a pixel; here three of ten mark all of the left, the others nothing."""
    dataset = shards.open_dataset(slices_dataset)
    config, variables = workdir.read_config(segment_run), checkpoint.load_best(segment_run)[0]

    config.targets = "soft"
    left = np.zeros((64, 64), bool)
    left[:, :32] = True

    def predict(_: run_segmentation.Scorer, variables: Any, batch: Any) -> dict[str, jax.Array]:
        share = jnp.broadcast_to(jnp.where(left, jnp.float32(likely), jnp.float32(0)), batch["image"].shape)
        return {"logit": share - jnp.float32(1), "share": share, "drawn": share}

    monkeypatch.setattr(run_segmentation.Scorer, "_predict", predict)
    rows = np.arange(11)
    tally = run_segmentation.Scorer(config, dataset, variables).tally(rows)
    assert tally.ged is not None
    bits = loader.Slices(dataset, crop_px=64, crop_at="nodule").batch(rows)["readers"]
    readers = np.stack([bits >> slot & 1 for slot in range(4)])

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        return 1 - (a & b).sum() / (a | b).sum() if (a | b).any() else 0.0

    for number, ged in zip((16, 100), tally.ged, strict=True):
        share = round(likely * number) / number  # Of the samples that are generous; the others are empty.
        for masks, found in zip(readers.swapaxes(0, 1) > 0, ged, strict=True):
            to_left, to_empty = (np.mean([distance(mask, m) for mask in masks]) for m in (left, left & ~left))
            between = np.mean([distance(a, b) for a in masks for b in masks])
            expected = 2 * (share * to_left + (1 - share) * to_empty) - between - 2 * share * (1 - share)
            np.testing.assert_allclose(found, expected, atol=1e-9)


def test_shares_are_calibrated_on_the_val_patients(segment_run: Path, slices_dataset: Path, tmp_path: Path):
    dataset, model = shards.open_dataset(slices_dataset), trained.open_trained(segment_run)
    known = model.calibration
    val = np.flatnonzero(dataset.index["split"] == "val")
    assert known["fitted_on"] == len(val)
    given = (model.config, dataset, model.variables)
    plain, calibrated = run_segmentation.Scorer(*given), run_segmentation.Scorer(*given, calibration=known)
    batch = loader.Slices(dataset, crop_px=64, crop_at="nodule").batch(np.resize(val, 8))
    before, after = plain.predict(batch), calibrated.predict(batch)
    np.testing.assert_array_equal(before["logit"], after["logit"])
    risen = np.interp(before["share"], known["predicted"], known["share"])
    np.testing.assert_allclose(after["share"], risen, atol=1e-5)
    np.testing.assert_array_equal(before["drawn"], before["share"])
    assert known["outline"] == sorted(known["outline"])
    for share, drawn in zip(before["share"], after["drawn"], strict=True):
        fifth = np.argsort(share, axis=None)[-5]
        features = [scipy.special.logit(share.flat[fifth]), *(np.log1p((share > x).sum()) for x in (0.1, 0.5, 0.9))]
        marking = scipy.special.expit(known["marking_weights"] @ np.array([1, *features]))
        outline = np.interp(share, known["outline_predicted"], known["outline"])
        expected = marking * np.minimum(outline / outline.flat[fifth], 1)
        np.testing.assert_allclose(drawn, expected, atol=1e-5)
    ece = [
        (run_evaluate.evaluate(run, data=None, split="val", out=tmp_path / "o.json"))["reliability"]["ece"]["value"]
        for run in (segment_run, _without(segment_run, tmp_path / "run", calibrate.CALIBRATION_FILE))
    ]
    assert ece[0] < 0.5 * ece[1]


def _without(run: Path, copy: Path, file: str) -> Path:
    shutil.copytree(run, copy)
    (copy / file).unlink()
    return copy


@pytest.mark.parametrize("shown", [6, 12])
def test_three_sheets_and_two_charts_even_if_a_batch_is_smaller(
    segment_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shown: int
):
    monkeypatch.setattr(run_segmentation, "SHOWN", shown)  # A batch holds 8.
    run_evaluate.evaluate(segment_run, data=None, split="all", out=tmp_path / "figures.json")
    assert {path.name for path in tmp_path.glob("*.png")} == {
        "figures.worst.png",
        "figures.spread.png",
        "figures.best.png",
        "figures.reliability.png",
        "figures.dice.png",
    }


def test_the_mean_over_flips(segment_run: Path, slices_dataset: Path, tmp_path: Path):
    """The same as scoring the flipped slices one by one; and a flipped slice gets the flipped answer."""
    dataset = shards.open_dataset(slices_dataset)
    given = (workdir.read_config(segment_run), dataset, checkpoint.load_best(segment_run)[0])
    plain, flipping = run_segmentation.Scorer(*given), run_segmentation.Scorer(*given, flips=True)
    batch = loader.Slices(dataset, crop_px=64, crop_at="nodule").batch(np.arange(8))
    answers = []
    for turn in (lambda x: x, lambda x: x[:, ::-1], lambda x: x[:, :, ::-1], lambda x: x[:, ::-1, ::-1]):
        turned = {**batch, "image": turn(batch["image"])}
        answers.append({name: turn(part) for name, part in plain.predict(turned).items()})
        for name, part in flipping.predict(turned).items():
            np.testing.assert_allclose(turn(part), flipping.predict(batch)[name], atol=1e-5)
    for name, part in flipping.predict(batch).items():
        np.testing.assert_allclose(part, np.mean([answer[name] for answer in answers], axis=0), atol=1e-5)
    assert not np.allclose(flipping.predict(batch)["logit"], plain.predict(batch)["logit"])
    report = run_evaluate.evaluate(segment_run, data=None, split="test", out=tmp_path / "figures.json", flips=True)
    assert report["model"]["flips"]


def test_a_report_tells_how_many_patients_were_trained_on(
    segment_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    patients = workdir.read_split(segment_run)["patients"]
    trained_on = sum(split == "train" for split in patients.values())
    expected_of: dict[splits.Split | Literal["all"], int] = {"test": 0, "all": trained_on, "train": trained_on}
    for split, expected in expected_of.items():
        report = run_evaluate.evaluate(segment_run, data=None, split=split, out=tmp_path / "figures.json")
        assert report["model"]["trained_on_patients"] == expected
        said = f"{segment_run} was trained on {trained_on} of these patients"
        assert (said in capsys.readouterr().out) == (split != "test")
        assert split != "train" or report["patients"] == trained_on


def test_data_of_another_intensity_are_scored(segment_run: Path, phantom_dataset: Path, tmp_path: Path):
    """A network sees HU, guessed where a source lost them: any source will do, and the report says which it was."""
    report = run_evaluate.evaluate(segment_run, data=phantom_dataset, split="all", out=tmp_path / "hu.json")
    assert report["data"]["intensity"] == "hu"
    assert report["model"]["trained_on"] == "unit"


def test_a_folder_for_a_file(segment_run: Path, tmp_path: Path):
    with pytest.raises(InputError, match="is a folder; --out names the JSON file"):
        run_evaluate.evaluate(segment_run, data=None, split="test", out=tmp_path)


def test_data_with_another_split_are_refused(
    segment_run: Path, kaggle_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The leak lock on whole data sets: what is scored, and what starts from the run's encoder."""
    with monkeypatch.context() as patch:
        patch.setattr(splits, "SALT", "another")
        prepare(kaggle_tree, tmp_path / "data", workers=1)
    with pytest.raises(InputError, match=r"data: \d+ patients are in another split than when the checkpoint was"):
        run_evaluate.evaluate(segment_run, data=tmp_path / "data", split="test", out=None)
    config = workdir.read_config(segment_run)
    config.data.path, config.init_from = str(tmp_path / "data"), str(segment_run)
    with pytest.raises(InputError, match=r"data: \d+ patients are in another split than when the checkpoint was"):
        loop.train_and_evaluate(config, tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


def test_figures_on_other_data_have_a_name_of_their_own(segment_run: Path, slices_dataset: Path, tmp_path: Path):
    run, other = tmp_path / "run", tmp_path / "other"
    shutil.copytree(segment_run, run)
    shutil.copytree(slices_dataset, other)
    report = run_evaluate.evaluate(run, data=other, split="test", out=None)
    assert json.loads((run / "evaluation-test-other.json").read_text())["data"] == report["data"]
    assert (report["data"]["crop_px"], report["data"]["crop_at"]) == (64, "nodule")
    assert not (run / "evaluation-test.json").exists()


def test_other_runs_and_damaged_ones_are_refused(segment_run: Path, tmp_path: Path):
    copy = tmp_path / "copy"
    shutil.copytree(segment_run, copy)
    (copy / "config.json").write_text('{"task": "segm')
    with pytest.raises(InputError, match=r"config\.json is damaged"):
        run_evaluate.evaluate(copy, data=None, split="test", out=None)
    shutil.copy(segment_run / "config.json", copy)
    shutil.rmtree(copy / "checkpoints")
    with pytest.raises(InputError, match="no checkpoints in it"):
        run_evaluate.evaluate(copy, data=None, split="test", out=None)
    shutil.copytree(segment_run / "checkpoints", copy / "checkpoints")
    (copy / "origin.json").unlink()
    with pytest.raises(InputError, match="was started by an older version of lungjax"):
        run_evaluate.evaluate(copy, data=None, split="test", out=None)
