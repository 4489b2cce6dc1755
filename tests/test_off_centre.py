"""`scripts/off_centre.py`: images and masks are moved alike, and unmoved ones have the figures of `evaluate`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import runs

from lungjax import metrics
from lungjax.data import loader, shards
from lungjax.evaluation import run_evaluate
from lungjax.tasks import segment
from lungjax.train import trained

off_centre = runs.load(runs.ROOT / "scripts" / "off_centre.py")


def test_the_way_of_a_slice_is_that_of_its_row():
    slices = np.arange(5 * 4 * 6).reshape(5, 4, 6)
    found = off_centre.moved(slices, np.array([0, 1, 2, 3, 4]), 2, beyond="constant")
    down, up, right, left, again = slices
    np.testing.assert_array_equal(found[0], np.vstack([0 * down[:2], down[:-2]]))
    np.testing.assert_array_equal(found[1], np.vstack([up[2:], 0 * up[:2]]))
    np.testing.assert_array_equal(found[2], np.hstack([0 * right[:, :2], right[:, :-2]]))
    np.testing.assert_array_equal(found[3], np.hstack([left[:, 2:], 0 * left[:, :2]]))
    np.testing.assert_array_equal(found[4], np.vstack([0 * again[:2], again[:-2]]))


def test_what_comes_in_is_mirrored():
    (found,) = off_centre.moved(np.arange(16).reshape(1, 4, 4), np.array([0]), 2, beyond="reflect")
    assert found[:, 0].tolist() == [8, 4, 0, 4]


def test_unmoved_slices_have_the_figures_of_evaluate(slices_dataset: Path, tmp_path: Path, capsys):
    said = run_evaluate.evaluate(Path("segmenter"), data=slices_dataset, split="val", out=tmp_path / "found.json")
    capsys.readouterr()
    assert off_centre.main(["--models", "segmenter", "--data", str(slices_dataset), "--moved-px", "0"]) == 0
    row = capsys.readouterr().out.splitlines()[-1]
    shown = ["{value:.3f} [{low:.3f}, {high:.3f}]".format(**said[name]["dice"]) for name in ("pooled", "per_slice")]
    assert row == f"| segmenter | 0 px | {shown[0]} | {shown[1]} | 0.000 [0.000, 0.000] |"


def test_a_network_that_looks_at_single_pixels_has_no_middle(slices_dataset: Path, monkeypatch: pytest.MonkeyPatch):
    make = segment.make

    def bright(*args: Any, **kwargs: Any) -> Any:
        def predict(params: Any, state: Any, batch: Any) -> dict[str, Any]:
            logit = batch["image"].astype(np.float32) - 115.0
            return {"logit": logit, "share": jax.nn.sigmoid(logit)}

        return dataclasses.replace(make(*args, **kwargs), predict=predict)

    monkeypatch.setattr(segment, "make", bright)
    model, dataset = trained.open_trained(Path("segmenter")), shards.open_dataset(slices_dataset)
    rows = loader.select_rows(dataset, split="val", slices="nodule")
    there, moved = off_centre.scored(model, dataset, rows, [0, 6])
    assert 0.8 < there["pooled"]["dice"]["value"] < 1
    assert moved["pooled"]["dice"] == there["pooled"]["dice"]
    assert moved["per_slice"]["dice"] == there["per_slice"]["dice"]
    assert moved["against"]["difference"]["in_view"]["dice"] == {"value": 0, "low": 0, "high": 0}


def test_what_is_no_longer_in_view_does_not_count(slices_dataset: Path, monkeypatch: pytest.MonkeyPatch):
    """A network that marks the left half of whatever it sees: the gap on the left of a slice moved right is not
    counted, and what it marks in view is compared with what it marked in the same pixels."""
    make = segment.make

    def left(*args: Any, **kwargs: Any) -> Any:
        def predict(params: Any, state: Any, batch: Any) -> dict[str, Any]:
            image = batch["image"]
            columns = jax.numpy.arange(image.shape[2])
            logit = jax.numpy.broadcast_to(jax.numpy.where(columns < image.shape[2] // 2, 1.0, -1.0), image.shape)
            return {"logit": logit, "share": jax.nn.sigmoid(logit)}

        return dataclasses.replace(make(*args, **kwargs), predict=predict)

    monkeypatch.setattr(segment, "make", left)
    model, dataset = trained.open_trained(Path("segmenter")), shards.open_dataset(slices_dataset)
    rows = loader.select_rows(dataset, split="val", slices="nodule")
    rows = rows[rows % 4 == 2]  # Those that move right.
    (report,) = off_centre.scored(model, dataset, rows, [16])
    majority = metrics.majority(
        loader.Slices(dataset, crop_px=0, crop_at="nodule").batch(rows)["readers"], readers=dataset.readers
    )
    shown = majority[:, :, :-16]
    half = majority.shape[2] // 2
    before, after = shown[:, :, :half].sum(), shown[:, :, : half - 16].sum()
    marked_before, marked_after = (len(rows) * majority.shape[1] * columns for columns in (half, half - 16))
    in_view = report["in_view"]["dice"]["value"]
    assert in_view == pytest.approx(2 * after / (marked_after + shown.sum()))
    lost = report["against"]["difference"]["in_view"]["dice"]["value"]
    assert lost == pytest.approx(in_view - 2 * before / (marked_before + shown.sum()))


def test_a_mistake_gets_one_sentence(slices_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert off_centre.main(["--data", str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err
    assert off_centre.main(["--models", "grader", "--data", str(slices_dataset)]) == 2
    assert "grader is a network of the task 'classify'; give segmenters." in capsys.readouterr().err
    with pytest.raises(SystemExit):
        off_centre.main(["--moved-px", "-1"])
    assert "takes distances, 0 or more" in capsys.readouterr().err
