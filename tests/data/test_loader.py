"""Batches: their order, their position, their crops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lungjax.data import loader, manifest, shards
from lungjax.errors import InputError


@pytest.fixture(scope="module")
def slices(slices_dataset: Path) -> loader.Slices:
    return loader.Slices(shards.open_dataset(slices_dataset), crop_px=0, crop_at="random")


def test_every_slice_comes_once_an_epoch_in_a_new_order(slices: loader.Slices):
    rows = np.arange(24)
    batches = loader.train_batches(slices, rows, batch_size=6, seed=1, workers=0)
    seen = np.concatenate([next(batches)["row"] for _ in range(8)])
    first, second = seen[:24], seen[24:]
    assert sorted(first) == sorted(second) == list(range(24))
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, rows)


def test_from_a_number_on_the_batches_are_the_same(slices: loader.Slices):
    rows = np.arange(20)
    batches = loader.train_batches(slices, rows, batch_size=6, seed=1, workers=0)
    for _ in range(5):
        next(batches)
    expected = [next(batches) for _ in range(3)]
    again = loader.train_batches(slices, rows, batch_size=6, seed=1, workers=0, start=5)
    for batch in expected:
        other = next(again)
        for name, value in batch.items():
            np.testing.assert_array_equal(other[name], value)


def test_images_and_readers_are_those_of_the_rows(slices: loader.Slices):
    batch = next(loader.train_batches(slices, np.arange(30), batch_size=10, seed=0, workers=0))
    images, readers = slices.dataset.pixels(batch["row"])
    np.testing.assert_array_equal(batch["image"], images)
    np.testing.assert_array_equal(batch["readers"], readers)


def test_evaluation_takes_each_row_once_and_weighs_the_filling_zero(slices: loader.Slices):
    batches = list(loader.eval_batches(slices, np.arange(3, 14), batch_size=4))
    rows = np.concatenate([batch["row"][batch["weight"] > 0] for batch in batches])
    np.testing.assert_array_equal(rows, np.arange(3, 14))
    np.testing.assert_array_equal(batches[-1]["weight"], [1, 1, 1, 0])


def test_a_crop_near_the_nodule_holds_its_middle(slices_dataset: Path):
    dataset = shards.open_dataset(slices_dataset)
    rows = loader.select_rows(dataset, split=None, slices="nodule")
    crops = loader.Slices(dataset, crop_px=24, crop_at="nodule")
    uniform = np.random.default_rng(0).random((len(rows), 3))
    batch = crops.batch(rows, uniform)
    assert batch["image"].shape == (len(rows), 24, 24)
    assert (batch["readers"] > 0).any(axis=(1, 2)).all()
    centred = crops.batch(rows)
    middle = [np.argwhere(mask > 0).mean(axis=0) for mask in centred["readers"]]
    np.testing.assert_allclose(middle, 11.5, atol=1.5)
    images, _ = dataset.pixels(rows)
    for image, (row, column), seen in zip(images, batch["corner"], batch["image"], strict=True):
        np.testing.assert_array_equal(image[row : row + 24, column : column + 24], seen)


def test_a_crop_larger_than_the_slice_is_filled_and_keeps_all(slices_dataset: Path):
    dataset = shards.open_dataset(slices_dataset)
    side = int(dataset.index["rows"].iloc[0])
    rows = np.arange(4)
    batch = loader.Slices(dataset, crop_px=side + 10, crop_at="random").batch(rows, np.full((4, 3), 0.5))
    images, _ = dataset.pixels(rows)
    np.testing.assert_array_equal(batch["image"][:, 5:-5, 5:-5], images)
    np.testing.assert_array_equal(batch["image"][:, 0, 0], [image.min() for image in images])
    assert (batch["readers"][:, :5] == 0).all()
    np.testing.assert_array_equal(batch["corner"], np.full((4, 2), -5))


def test_no_patient_is_in_two_splits(slices_dataset: Path):
    dataset = shards.open_dataset(slices_dataset)
    patients = dataset.index["patient_id"].to_numpy()
    sets = [set(patients[loader.select_rows(dataset, split=s, slices="all")]) for s in ("train", "val", "test")]
    assert all(sets)
    assert len(set.union(*sets)) == sum(map(len, sets))


def test_slices_of_the_lungs(phantom_dataset: Path, slices_dataset: Path):
    dataset = shards.open_dataset(phantom_dataset)
    index = dataset.index
    rows = loader.select_rows(dataset, split=None, slices="lung")
    np.testing.assert_array_equal(rows, np.flatnonzero(index["lung_area_mm2"] >= 1000))
    assert set(loader.select_rows(dataset, split=None, slices="nodule")) < set(rows) < set(range(len(index)))
    boxes = index[["lung_row_min", "lung_row_max", "lung_column_min", "lung_column_max"]].to_numpy()
    without = index["lung_area_mm2"].to_numpy() == 0
    assert 0 < np.count_nonzero(without) < len(index)
    np.testing.assert_array_equal(boxes < 0, np.repeat(without[:, None], 4, axis=1))
    crops = shards.open_dataset(slices_dataset)
    assert np.isnan(crops.index["lung_area_mm2"].to_numpy()).all()
    assert (crops.index["lung_row_min"].to_numpy() == -1).all()
    with pytest.raises(InputError, match=r"no lung areas: its source lost HU .* use config.data.slices='all'"):
        loader.select_rows(crops, split="train", slices="lung")


def test_an_older_index_opens_but_knows_no_lungs(phantom_dataset: Path, tmp_path: Path):
    dataset = shards.open_dataset(phantom_dataset)
    older = dataset.index.drop(columns=[name for name in dataset.index if name.startswith("lung_")])
    manifest.write_index(tmp_path, older)
    opened = shards.Dataset(phantom_dataset, dataset.manifest, manifest.read_index(tmp_path))
    assert len(loader.select_rows(opened, split=None, slices="all")) == len(dataset)
    with pytest.raises(InputError, match="an older lungjax prepared it"):
        loader.select_rows(opened, split=None, slices="lung")


def test_mistakes(slices_dataset: Path):
    dataset = shards.open_dataset(slices_dataset)
    with pytest.raises(InputError, match="'lungs'; use one of all, lung, nodule, rated"):
        loader.select_rows(dataset, split="train", slices="lungs")
    with pytest.raises(InputError, match="use one of nodule, lung, random"):
        loader.Slices(dataset, crop_px=0, crop_at="centre")
    slices = loader.Slices(dataset, crop_px=0, crop_at="random")
    with pytest.raises(InputError, match="7 is not a multiple of the 2 processes"):
        loader.train_batches(slices, np.arange(9), batch_size=7, seed=0, workers=0, process_count=2)
