"""Data with the mask of one reader: a segmentation is trained and scored on it, beside data of four readers."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import pytest
import runs
import SimpleITK as sitk
from PIL import Image

from lungjax.data import loader, shards, splits
from lungjax.evaluation import run_evaluate, run_segmentation
from lungjax.evaluation.plots import training_plots
from lungjax.evaluation.segmentation.report import AGAINST_ONE_READER
from lungjax.lidc import annotations
from lungjax.preparation.run import prepare
from lungjax.tasks import segment
from lungjax.train import checkpoint, loop, workdir

SIDE_PX = 64
BRIGHT = np.zeros((4, SIDE_PX, SIDE_PX), bool)
BRIGHT[:, 24:32, 24:30] = True
MASK = np.zeros_like(BRIGHT)
for number, width in enumerate((0, 3, 6, 9)):
    MASK[number, 26:34, 24 : 24 + width] = True
"""Of each patient: in four slices 8 x 6 px are bright; marked are 8 rows, two lower, of so many columns."""


def of_each_split(patients: Iterable[str]) -> list[str]:
    """The first two patients of each split."""
    names = list(patients)
    each = [[name for name in names if splits.split_of(name) == split][:2] for split in splits.SPLITS]
    assert [len(part) for part in each] == [2, 2, 2]
    return list(itertools.chain(*each))


def write_nifti(root: Path) -> None:
    for case in of_each_split(f"case{number}" for number in range(99)):
        for voxels, suffix in ((np.where(BRIGHT, 100, -1300).astype(np.int16), ""), (MASK.astype(np.uint8), "_label")):
            sitk.WriteImage(sitk.GetImageFromArray(voxels), str(root / f"{case}{suffix}.nii.gz"))


def write_lungd_png(root: Path) -> None:
    scans = {row.patient_id: row for row in annotations.all_scans()}
    for patient_id in of_each_split(scans):
        study = scans[patient_id].study_uid.rsplit(".", 1)[1]
        for kind, stack in (("images", np.where(BRIGHT, 240, 15)), ("masks", 255 * MASK)):
            (root / kind).mkdir(exist_ok=True)
            for number, pixels in enumerate(stack):
                Image.fromarray(pixels.astype(np.uint8)).save(root / kind / f"{study}_slice{number}.png")


class Threshold(nn.Module):
    """In place of the U-Net: what is bright is a nodule, however the one parameter, above 0, is trained."""

    encoder: Any
    widths: Any
    out_channels: Any
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        return self.param("steepness", nn.initializers.constant(4.0), (1, 1, 1, 1)) * (x - 0.5)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Nothing is learnt or drawn, which takes long; of each sheet, for how many readers it would be."""
    slots_drawn: list[int] = []
    monkeypatch.setattr(segment, "UNet", Threshold)
    monkeypatch.setattr(training_plots, "draw_slices", lambda *_, slots, **__: slots_drawn.append(slots))
    return slots_drawn


@pytest.mark.parametrize("write", [write_nifti, write_lungd_png])
def test_figures_are_those_of_the_one_mask(
    write: Callable[[Path], None],
    tmp_path: Path,
    drawn: list[int],
    capsys: pytest.CaptureFixture[str],
):
    (tmp_path / "source").mkdir()
    write(tmp_path / "source")
    prepare(tmp_path / "source", tmp_path / "data", workers=1)
    dataset = shards.open_dataset(tmp_path / "data")
    assert dataset.readers == dataset.manifest["readers"] == 1
    assert dataset.index["majority_px"].tolist() == [0, 24, 48, 72] * 6

    config = runs.small_config("segment", tmp_path / "data")
    config.steps = config.eval_every = config.checkpoint_every = 4
    assert loop.train_and_evaluate(config, tmp_path / "run")
    capsys.readouterr()
    report = run_evaluate.evaluate(tmp_path / "run", data=None, split="test", out=None)

    # Of 48 px found in each slice, 0, 6 x 3, 6 x 6 and again 6 x 6 are among the 0, 24, 48 and 72 px marked.
    pooled, each = 2 * 90 / (4 * 48 + 144), np.array([0, 36 / 72, 72 / 96, 72 / 120])
    log = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert log[-1]["val/dice"] == pytest.approx(pooled)
    figures = {
        ("pooled", "dice"): pooled,
        ("pooled", "precision"): 90 / (4 * 48),
        ("pooled", "recall"): 90 / 144,
        ("per_slice", "dice"): each[1:].mean(),
        ("per_slice", "dice_all"): each.mean(),
    }
    for (kind, score), value in figures.items():
        assert report[kind][score]["value"] == pytest.approx(value), (kind, score)
    assert (report["patients"], report["slices"], report["slices_marked"]) == (2, 8, 6)
    assert (report["readers"], report["data"]["readers"]) == (None, 1)
    assert AGAINST_ONE_READER in report["conventions"].values()
    assert json.loads((tmp_path / "run" / "evaluation-test.json").read_text()) == json.loads(json.dumps(report))
    printed = capsys.readouterr().out
    assert "2 patients, 8 slices, 6 that the reader marked" in printed
    assert not any(line.startswith(" ") and "readers" in line for line in printed.splitlines())
    assert drawn == [1] * 4  # The validation's sheet, and worst, spread and best.


@pytest.mark.usefixtures("drawn")
def test_a_run_is_scored_by_the_readers_of_the_data(slices_dataset: Path, tmp_path: Path):
    """One trained on one reader on data of four, and the reverse; and the second starts from the first."""
    (tmp_path / "source").mkdir()
    write_lungd_png(tmp_path / "source")
    prepare(tmp_path / "source", tmp_path / "one", workers=1)
    for name, data, start in (("first", tmp_path / "one", ""), ("second", slices_dataset, str(tmp_path / "first"))):
        config = runs.small_config("segment", data)
        config.steps = config.eval_every = config.checkpoint_every = 2
        config.init_from = start
        assert loop.train_and_evaluate(config, tmp_path / name)
    for name, data, readers in (("first", slices_dataset, 4), ("second", tmp_path / "one", 1)):
        report = run_evaluate.evaluate(tmp_path / name, data=data, split="test", out=None)
        dataset = shards.open_dataset(data)
        segmenter = run_segmentation.Scorer(
            workdir.read_config(tmp_path / name), dataset, checkpoint.load_best(tmp_path / name)[0]
        )
        both = found = there = 0
        whole = loader.Slices(dataset, crop_px=SIDE_PX, crop_at="nodule")
        rows = np.flatnonzero(dataset.index["split"] == "test")
        for batch in loader.eval_batches(whole, rows, batch_size=8):
            real = batch["weight"] > 0
            votes = np.unpackbits(batch["readers"][real][..., None], axis=-1).sum(axis=-1)
            truth, mask = votes >= {1: 1, 4: 2}[readers], segmenter.predict(batch)["logit"][real] > 0
            both, found, there = both + (mask & truth).sum(), found + mask.sum(), there + truth.sum()
        assert there > 0
        assert report["data"]["readers"] == readers
        assert report["pooled"]["dice"]["value"] == pytest.approx(2 * both / (found + there))
        assert (report["readers"] is None) == (readers == 1)


def test_a_folder_that_does_not_tell_has_four_readers(slices_dataset: Path):
    dataset = shards.open_dataset(slices_dataset)
    assert dataset.manifest.pop("readers") == 4
    assert dataset.readers == 4
