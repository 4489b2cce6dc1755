"""Batches mixed from several data sets: at their rates, each with its own intensity, and never across a split."""

from __future__ import annotations

import collections
import dataclasses
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from lungjax.data import bags, intensity, loader, mixture, shards
from lungjax.data.manifest import save_manifest
from lungjax.data.mixture import Mixture, Part
from lungjax.errors import InputError


def part(path: Path, *, slices: str, crop_at: str, rate: float) -> dict:
    return {"path": str(path), "slices": slices, "crop_at": crop_at, "rate": rate}


def config(**parts: dict) -> ml_collections.ConfigDict:
    return ml_collections.ConfigDict({"crop_px": 32, "crop_at": "random", "parts": parts})


@pytest.fixture
def mixed(slices_dataset: Path, phantom_dataset: Path) -> Mixture:
    data = config(
        crops=part(slices_dataset, slices="nodule", crop_at="random", rate=3.0),
        lungs=part(phantom_dataset, slices="lung", crop_at="lung", rate=1.0),
        unused=part(phantom_dataset, slices="all", crop_at="random", rate=0.0),
        unset=part(Path(""), slices="all", crop_at="random", rate=1.0) | {"path": ""},
    )
    made = bags.make_mixture(data, task="segment")
    assert made is not None
    return made


def test_every_batch_is_mixed_by_the_rates(mixed: Mixture):
    rows = mixed.rows(split=None, slices="")
    batches = loader.train_batches(mixed, rows, batch_size=8, seed=0, workers=0)
    first = len(mixed.parts[0].slices.dataset)
    for _ in range(12):
        counts = collections.Counter(bool(row >= first) for row in next(batches)["row"])
        assert counts == {False: 6, True: 2}


def test_an_epoch_of_a_part_shows_each_of_its_slices_once(mixed: Mixture):
    rows = mixed.rows(split=None, slices="")
    crops = rows[rows < len(mixed.parts[0].slices.dataset)]
    batches = loader.train_batches(mixed, rows, batch_size=4, seed=3, workers=0)
    drawn = np.concatenate([next(batches)["row"] for _ in range(len(crops))])
    drawn = drawn[drawn < len(mixed.parts[0].slices.dataset)]
    assert sorted(drawn[: len(crops)]) == sorted(crops)


def test_a_batch_holds_what_each_part_would_give(mixed: Mixture):
    rows = mixed.rows(split=None, slices="")[[0, -1, 1, -2]]
    uniform = np.random.default_rng(0).random((4, 3))
    batch = mixed.batch(rows, uniform)
    first = len(mixed.parts[0].slices.dataset)
    np.testing.assert_array_equal(batch["scaled"], [1, 0, 1, 0])
    assert batch["image"].dtype == np.int16
    for number, which in ((0, [0, 2]), (1, [1, 3])):
        own = mixed.parts[number].slices.batch(rows[which] - number * first, uniform[which])
        np.testing.assert_array_equal(batch["image"][which], own["image"])
        np.testing.assert_array_equal(batch["readers"][which], own["readers"])
    assert len({*batch["scan"].tolist()}) == len(mixed.index.iloc[rows]["study_uid"].unique())
    np.testing.assert_array_equal(mixed.index.iloc[rows]["z_mm"].to_numpy(np.float32), batch["z_mm"])


def test_each_image_becomes_hu_by_its_own_intensity(mixed: Mixture):
    rows = mixed.rows(split=None, slices="")[[0, -1]]
    batch = {name: jnp.asarray(values) for name, values in mixed.batch(rows).items()}
    hu = np.asarray(jax.jit(lambda b: intensity.batch_to_hu(b, intensity="mixed"))(batch))
    estimated = intensity.to_hu(batch["image"][:1].astype(jnp.uint8), intensity="unit")
    np.testing.assert_allclose(hu[0], np.asarray(estimated)[0], rtol=1e-5, atol=0.05)
    np.testing.assert_array_equal(hu[1], np.asarray(batch["image"][1], np.float32))


def test_crops_in_the_lungs_are_centred_in_their_box(phantom_dataset: Path):
    dataset = shards.open_dataset(phantom_dataset)
    slices = loader.Slices(dataset, crop_px=32, crop_at="lung")
    rows = slices.rows(split=None, slices="lung")[:40]
    batch = slices.batch(rows, np.random.default_rng(0).random((len(rows), 3)))
    centre = batch["corner"] + 16
    box = dataset.index.iloc[rows]
    for axis, side in enumerate(("row", "column")):
        assert (centre[:, axis] >= box[f"lung_{side}_min"] - 1).all()
        assert (centre[:, axis] <= box[f"lung_{side}_max"] + 1).all()
        assert np.ptp(centre[:, axis]) > 30
    images, _ = dataset.pixels(rows)
    inside = [(min(corner) >= 0) and (max(corner) + 32 <= 128) for corner in batch["corner"]]
    assert any(inside)
    for image, (row, column), crop, whole in zip(images, batch["corner"], batch["image"], inside, strict=True):
        if whole:
            np.testing.assert_array_equal(image[row : row + 32, column : column + 32], crop)


def test_a_source_without_lungs_has_no_crops_in_them(slices_dataset: Path):
    with pytest.raises(InputError, match="no lung areas"):
        loader.Slices(shards.open_dataset(slices_dataset), crop_px=32, crop_at="lung")


def test_a_patient_in_two_splits_is_refused(slices_dataset: Path, tmp_path: Path):
    moved = tmp_path / "moved"
    shutil.copytree(slices_dataset, moved)
    manifest = json.loads((moved / "manifest.json").read_text())
    patient, split = next(iter(manifest["split"]["patients"].items()))
    other = "val" if split != "val" else "train"
    manifest["split"]["patients"][patient] = other
    save_manifest(moved, manifest)
    parts = [Part(path.name, slices_of(path), "nodule", 1.0) for path in (slices_dataset, moved)]
    with pytest.raises(InputError, match=f"first: {patient}, now {other}, then {split}"):
        Mixture(parts)


def slices_of(path: Path) -> loader.Slices:
    manifest = json.loads((path / "manifest.json").read_text())
    return loader.Slices(shards.Dataset(path, manifest, shards.read_index(path)), crop_px=32, crop_at="random")


def test_parts_without_anything_to_draw_from_are_refused(slices_dataset: Path):
    with pytest.raises(InputError, match="no part has a path and a rate above 0"):
        bags.make_mixture(config(a=part(slices_dataset, slices="all", crop_at="random", rate=0.0)), task="segment")
    with pytest.raises(InputError, match=r"parts\.a\.rate is -1"):
        bags.make_mixture(config(a=part(slices_dataset, slices="all", crop_at="random", rate=-1.0)), task="segment")
    with pytest.raises(InputError, match=r"parts\.a: .*no such folder"):
        bags.make_mixture(config(a=part(Path("nowhere"), slices="all", crop_at="random", rate=1.0)), task="segment")
    with pytest.raises(InputError, match="the task classify draws from one data set"):
        bags.make_mixture(config(a=part(slices_dataset, slices="all", crop_at="random", rate=1.0)), task="classify")
    assert bags.make_mixture(config(), task="segment") is None


def test_z_scores_are_not_mixed_with_others(mixed: Mixture):
    slices = mixed.parts[0].slices
    scored = loader.Slices(slices.dataset, crop_px=32, crop_at="random")
    scored.dataset = shards.Dataset(
        slices.dataset.path, {**slices.dataset.manifest, "intensity": "zscore"}, slices.dataset.index
    )
    with pytest.raises(InputError, match="z-scored slices cannot be mixed"):
        Mixture([dataclasses.replace(mixed.parts[0], slices=scored), mixed.parts[1]])


def test_parts_of_different_sizes_name_the_option(slices_dataset: Path, phantom_dataset: Path):
    data = config(
        a=part(slices_dataset, slices="all", crop_at="random", rate=1.0),
        b=part(phantom_dataset, slices="all", crop_at="random", rate=1.0),
    )
    data.crop_px = 0
    made = bags.make_mixture(data, task="segment")
    assert isinstance(made, mixture.Mixture)
    with pytest.raises(InputError, match=r"set config\.data\.crop_px"):
        made.batch(made.rows(split=None, slices="")[[0, -1]])
