"""What is drawn: read back from the PNG's pixels, or from the drawn lines before they become pixels."""

from __future__ import annotations

import json
import math
import threading
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from lungjax.evaluation.plots import overlay, training_plots


def _log(path: Path, *lines: dict, tail: str = "") -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + tail)
    return path


def _holds(path: Path, colour: str) -> bool:
    """Whether some pixel of a PNG has just this colour."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    return bool((np.abs(pixels - np.round(255 * np.array(to_rgb(colour)))).max(axis=-1) <= 1).any())


def _points(line: Line2D) -> np.ndarray:
    return np.asarray(line.get_xydata(), np.float64)


def test_curves_of_a_segmentation_run(tmp_path: Path, figures: dict[str, Figure]):
    log = _log(
        tmp_path / "metrics.jsonl",
        {"step": 10, "train/loss": 0.9, "train/accuracy": 0.9, "train/dice": 0.1, "train/precision": 0.2},
        {"step": 20, "train/loss": 0.5, "train/accuracy": 0.95, "train/dice": 0.4, "train/precision": 0.5},
        {"step": 10, "val/loss": 0.8, "val/accuracy": 0.9, "val/dice": 0.3, "val/precision": 0.4},
        {"step": 20, "val/loss": 0.6, "val/accuracy": 0.9, "val/dice": 0.2, "val/precision": 0.4},
    )
    written = training_plots.curves(log, tmp_path / "plots")
    assert [path.name for path in written] == ["loss.png", "accuracy.png", "precision.png", "dice.png"]
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == sorted(p.name for p in written)
    train, validation, best = figures["dice.png"].axes[0].lines
    np.testing.assert_allclose(_points(train), [[10, 0.1], [20, 0.4]])
    np.testing.assert_allclose(_points(validation), [[10, 0.3], [20, 0.2]])
    assert best.get_label() == "best: 0.3 at step 10"
    assert figures["loss.png"].axes[0].lines[-1].get_label() == "best: 0.6 at step 20"
    assert all(_holds(path, overlay.BLUE) and _holds(path, overlay.VERMILLION) for path in written)


def test_simclr_has_no_dice_and_its_accuracy_is_named(tmp_path: Path, figures: dict[str, Figure]):
    line = {"step": 1, "train/loss": 5.0, "train/accuracy": 0.1, "train/alignment": 0.4}
    written = training_plots.curves(_log(tmp_path / "m.jsonl", line), tmp_path)
    assert [path.name for path in written] == ["loss.png", "accuracy.png"]
    assert figures["accuracy.png"].axes[0].get_ylabel() == "contrastive top-1 accuracy"


def test_curves_pass_over_what_a_killed_run_left(tmp_path: Path, figures: dict[str, Figure]):
    first, again = {"step": 1, "train/loss": 3.0}, {"step": 1, "train/loss": 2.0}
    broken = '{"step": 2, "train/lo{"step": 2, "train/loss": 1.0}\n{"step": 3, "train/loss": NaN}\n{"step": 4, "tr'
    training_plots.curves(_log(tmp_path / "m.jsonl", first, again, tail=broken), tmp_path)
    np.testing.assert_array_equal(_points(figures["loss.png"].axes[0].lines[0]), [[1, 2]])


def test_an_empty_log_draws_nothing(tmp_path: Path):
    assert training_plots.curves(_log(tmp_path / "m.jsonl"), tmp_path / "plots") == []


def test_many_points_are_shown_with_their_running_mean(tmp_path: Path, figures: dict[str, Figure]):
    loss = np.random.default_rng(0).random(100)
    training_plots.curves(
        _log(tmp_path / "m.jsonl", *({"step": n, "train/loss": x} for n, x in enumerate(loss))), tmp_path
    )
    raw, mean = (np.asarray(line.get_ydata()) for line in figures["loss.png"].axes[0].lines)
    np.testing.assert_allclose(raw, loss)
    np.testing.assert_allclose(mean, [loss[max(n - 10, 0) : n + 11].mean() for n in range(100)])


def _slice(size: int = 128) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Grey, four readers with squares of growing size, a prediction equal to the square of reader 2."""
    readers = np.zeros((1, size, size), np.uint8)
    for slot in range(4):
        readers[0, 50 - slot : 60 + slot, 50 - slot : 60 + slot] |= np.uint8(1 << slot)
    return np.full((1, size, size), 0.25), readers, 0.9 * (readers & 0b0010 != 0)


def test_examples_show_readers_majority_and_prediction(tmp_path: Path, figures: dict[str, Figure]):
    images, readers, probability = _slice()
    path = tmp_path / "examples" / "sheet.png"
    training_plots.draw_slices(images, readers, probability, ["P slice 7"], path)
    assert [p.name for p in path.parent.iterdir()] == ["sheet.png"]
    assert all(_holds(path, colour) for colour in (*overlay.READER_COLOURS, overlay.VERMILLION))
    left, middle, right = figures["sheet.png"].axes
    # At least two readers cover the square of reader 3, 14 px wide. Predicted are 12 x 12 px of it.
    dice = 2 * 12**2 / (12**2 + 14**2)
    assert [axes.get_title() for axes in (left, middle, right)] == [
        "P slice 7",
        "4 readers marked it",
        f"Dice {dice:.2f}",
    ]
    assert left.get_xlim() == (-0.5, 127.5)  # 128 px stay whole,
    assert middle.get_xlim() == right.get_xlim() == (30.5, 78.5)  # beside 48 px seen closer.


def test_larger_images_are_cut_and_empty_slices_drawn(tmp_path: Path, figures: dict[str, Figure]):
    images, readers, probability = (np.repeat(array, 3, axis=0) for array in _slice(300))
    readers[1], probability[1] = 0, 0
    readers[2] &= 1
    training_plots.draw_slices(images, readers, probability, ["a", "b", "c"], tmp_path / "sheet.png")
    axes = figures["sheet.png"].axes
    assert np.ptp(axes[0].get_xlim()) == 128
    assert [np.ptp(a.get_xlim()) for a in axes[3:6]] == [300, 300, 300]
    assert [a.get_title() for a in axes[4:6]] == ["no reader marked it", "Dice 1.00 (majority empty)"]
    assert [a.get_title() for a in axes[7:9]] == ["1 reader marked it", "Dice 0.00 (majority empty)"]


def test_what_one_reader_marked_is_the_truth(tmp_path: Path, figures: dict[str, Figure]):
    images, readers, probability = (np.repeat(array, 2, axis=0) for array in _slice())
    readers &= 1
    readers[1] = 0
    path = tmp_path / "sheet.png"
    training_plots.draw_slices(images, readers, probability, ["a", "b"], path, slots=1)
    axes = figures["sheet.png"].axes
    dice = 2 * 10**2 / (10**2 + 12**2)  # The square of reader 1, and of reader 2, which is predicted.
    assert axes[2].get_title() == f"Dice {dice:.2f}"
    assert axes[5].get_title() == "Dice 0.00 (nothing to find)"
    (legend,) = figures["sheet.png"].legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert (labels[0], labels[2]) == ("reading 1", "the one reading")
    assert len(labels) == 4


def test_a_scale_is_as_long_as_it_says_and_only_where_that_is_known(tmp_path: Path, figures: dict[str, Figure]):
    images, readers, probability = (np.repeat(array, 2, axis=0) for array in _slice())
    training_plots.draw_slices(
        images, readers, probability, ["a", "b"], tmp_path / "sheet.png", spacing_mm=[0.8, math.nan]
    )
    axes = figures["sheet.png"].axes
    for panel in axes[:2]:
        (bar,) = panel.lines
        assert np.ptp(np.asarray(bar.get_xdata())) == pytest.approx(10 / 0.8)
        assert [text.get_text() for text in panel.texts] == ["10 mm"]
    assert not any(panel.lines or panel.texts for panel in axes[2:])


def test_white_lines_show_on_white_tissue(tmp_path: Path, figures: dict[str, Figure]):
    images, readers, probability = _slice()
    path = tmp_path / "sheet.png"
    training_plots.draw_slices(np.ones_like(images), readers, 0 * probability, ["a"], path)
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("L"))
    left, _, right = figures["sheet.png"].axes
    for panel, (x, y) in ((left, (30.5, 54.5)), (right, (47.5, 54.5))):  # On the frame, on the square of reader 3.
        column, row = np.round(panel.transData.transform((x, y))).astype(int)
        around = pixels[len(pixels) - row - 8 : len(pixels) - row + 8, column - 6 : column + 7]
        assert around.min() < 100  # Without a halo everything here is white.
        assert around.max() > 240


def test_examples_of_unequal_numbers_are_refused(tmp_path: Path):
    images, readers, probability = _slice()
    with pytest.raises(ValueError, match=r"\(1, 1, 1, 2\)"):
        training_plots.draw_slices(images, readers, probability, ["a", "b"], tmp_path / "sheet.png")


def test_pairs_share_one_grey_scale(tmp_path: Path, figures: dict[str, Figure]):
    views = np.random.default_rng(0).normal(size=(2, 10, 16, 16, 1)).astype(np.float32)
    training_plots.draw_pairs(views[0], views[1], tmp_path / "pairs.png", columns=3)
    axes = figures["pairs.png"].axes
    assert len(axes) == 2 * 3
    for n, panel in enumerate(axes):
        (image,) = panel.images
        np.testing.assert_array_equal(np.asarray(image.get_array()), views[n // 3, n % 3, ..., 0])
        assert image.get_clim() == (views[:, :3].min(), views[:, :3].max())


def test_plots_may_be_drawn_in_a_thread(tmp_path: Path):
    log = _log(tmp_path / "m.jsonl", {"step": 1, "train/loss": 1.0})
    thread = threading.Thread(target=training_plots.curves, args=(log, tmp_path))
    thread.start()
    thread.join()
    with Image.open(tmp_path / "loss.png") as image:
        assert image.size == (704, 440)
