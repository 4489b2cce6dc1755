"""Neighbouring slices as channels: which they are, on the host and on the device, and what has none."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lungjax.data import augment, context, loader, manifest, mixture, on_device, shards
from lungjax.data.context import Context
from lungjax.data.neighbours import Neighbours
from lungjax.data.shards import Dataset
from lungjax.errors import InputError
from lungjax.train import mesh


@pytest.fixture(scope="module")
def dataset(phantom_dataset: Path) -> Dataset:
    return shards.open_dataset(phantom_dataset)


def reader(dataset: Dataset, *, slices: int = 1, step_mm: float = 0.0, crop_px: int = 32, crop_at: str = "random"):
    return loader.Slices(dataset, crop_px=crop_px, crop_at=crop_at, context=Context(slices, step_mm))


def changed(source: Path, out: Path, **columns: object) -> Dataset:
    """A copy of a data set whose index has other values."""
    shutil.copytree(source, out)
    known, index = manifest.read_manifest(out), manifest.read_index(out)
    for name, values in columns.items():
        index[name] = values
    manifest.replace_index(out, known, index)
    manifest.save_manifest(out, known)
    return shards.open_dataset(out)


def expected(dataset: Dataset, row: int, steps: list[int]) -> np.ndarray:
    """The slices of the row's scan that lie so many slices further, by the index alone."""
    series, number = (dataset.index[name].to_numpy() for name in ("series_uid", "slice_index"))
    own = np.flatnonzero(series == series[row])
    wanted = np.clip([number[row] + step for step in steps], number[own].min(), number[own].max())
    return np.stack(dataset.pixels([int(own[number[own] == one][0]) for one in wanted])[0])


@pytest.mark.parametrize("slices", [1, 2])
def test_every_slice_lies_between_its_neighbours_and_the_ends_are_repeated(dataset: Dataset, slices: int):
    """Of both scans all slices: also the last of the one, whose next row is of the other."""
    rows = np.arange(len(dataset))
    batch = reader(dataset, slices=slices, crop_px=0).batch(rows)
    assert batch["image"].shape == (len(rows), 2 * slices + 1, 128, 128)
    steps = list(range(-slices, slices + 1))
    for row, image in zip(rows, batch["image"], strict=True):
        np.testing.assert_array_equal(image, expected(dataset, int(row), steps))
    alone = loader.Slices(dataset, crop_px=0, crop_at="random").batch(rows)
    np.testing.assert_array_equal(batch["image"][:, slices], alone["image"])
    np.testing.assert_array_equal(batch["readers"], alone["readers"])
    series = dataset.index["series_uid"].to_numpy()
    number = dataset.index["slice_index"].to_numpy()
    ends = [np.flatnonzero((series == one) & (number == number[series == one].max()))[0] for one in np.unique(series)]
    assert len(ends) == 2
    for row in ends:
        np.testing.assert_array_equal(batch["image"][row, -1], batch["image"][row, slices])
        assert (batch["image"][row, 0] != batch["image"][row, slices]).any()


def test_the_order_of_the_index_does_not_matter(dataset: Dataset):
    backwards = Dataset(dataset.path, dataset.manifest, dataset.index.iloc[::-1].reset_index(drop=True))
    shown = Context(2).in_index(backwards)
    last = len(dataset) - 1
    np.testing.assert_array_equal(last - shown[::-1], Context(2).in_index(dataset))


def test_planes_in_mm_are_the_nearest_slices(dataset: Dataset, phantom_dataset: Path, tmp_path: Path):
    """2.5 mm are one slice of 2.5 mm, two of 1.25 mm, four of 0.6 mm; mixed in one data set."""
    series = dataset.index["series_uid"].to_numpy()
    thin = changed(phantom_dataset, tmp_path / "thin", slice_spacing_mm=np.where(series == series[0], 0.6, 2.5))
    batch = reader(thin, step_mm=2.5, crop_px=0).batch(np.arange(len(thin)))
    for row, image in enumerate(batch["image"]):
        step = 4 if series[row] == series[0] else 1
        np.testing.assert_array_equal(image, expected(thin, row, [-step, 0, step]))
    for slice_mm, steps in ((0.6, [-4, 0, 4]), (1.25, [-2, 0, 2]), (2.5, [-1, 0, 1]), (6.0, [0, 0, 0])):
        np.testing.assert_array_equal(Context(1, 2.5).in_scan(20, slice_mm)[10] - 10, steps)
    np.testing.assert_array_equal(Context(1).in_scan(20, None)[[0, 10, 19]], [[0, 0, 1], [9, 10, 11], [18, 19, 19]])
    with pytest.raises(InputError, match=r"the distance between those of hu is not known; give slice_mm"):
        Context(1, 2.5).in_scan(20, None)
    lost = changed(phantom_dataset, tmp_path / "lost", slice_spacing_mm=np.nan)
    assert reader(lost).context.planes == 3
    with pytest.raises(InputError, match=r"slices of unknown distance.*config\.data\.context_mm=0"):
        reader(lost, step_mm=2.5)


def test_crops_lie_in_all_planes_alike(dataset: Dataset):
    rows = loader.select_rows(dataset, split=None, slices="nodule")
    uniform = np.random.default_rng(0).random((len(rows), 3))
    batch = reader(dataset, crop_at="nodule").batch(rows, uniform)
    alone = loader.Slices(dataset, crop_px=32, crop_at="nodule").batch(rows, uniform)
    for name in ("readers", "corner", "row", "z_mm"):
        np.testing.assert_array_equal(batch[name], alone[name])
    whole = reader(dataset, crop_px=0).batch(rows)["image"]
    for image, of, (row, column) in zip(batch["image"], whole, batch["corner"], strict=True):
        np.testing.assert_array_equal(image, of[:, row : row + 32, column : column + 32])
    beyond = reader(dataset, crop_px=160).batch(rows[:1])["image"][0]
    np.testing.assert_array_equal(beyond[:, 0, 0], whole[0].min(axis=(1, 2)))


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("crop_px", [0, 32, 160])
def test_batches_from_the_device_are_the_same(dataset: Dataset, mixed: bool, crop_px: int):
    slices = reader(dataset, crop_px=crop_px, crop_at="nodule")
    rows = loader.select_rows(dataset, split=None, slices="nodule")[::3]
    source = slices
    if mixed:
        source = mixture.Mixture([mixture.Part(name, slices, "nodule", 1.0) for name in ("a", "b")])
        rows = np.concatenate([rows, rows + len(dataset)])
    devices = mesh.make_mesh(8)
    put = functools.partial(mesh.to_every_device, mesh=devices)
    placed = on_device.OnDevice(source, rows, put=put, devices=devices.local_devices)
    assert len(placed.pixels.image) > len(rows), "neighbours of the rows are there, too"
    uniform = np.random.default_rng(1).random((len(rows), 3))
    found, wanted = placed.read(placed.plan(rows, uniform)), source.batch(rows, uniform)
    assert found.keys() == wanted.keys()
    assert found["image"].ndim == 4
    for name, values in wanted.items():
        np.testing.assert_array_equal(found[name], values)


def test_partners_have_their_own_context(dataset: Dataset):
    rows = np.arange(len(dataset))
    slices = reader(dataset, crop_px=0)
    near = Neighbours(dataset, rows, within_mm=5.0)
    batch = next(loader.train_batches(slices, rows, batch_size=8, seed=0, workers=0, neighbours=near))
    assert batch["partner"].shape == batch["image"].shape == (8, 3, 128, 128)
    every = {slices.batch(np.array([row]))["image"].tobytes() for row in rows}
    assert all(partner[None].tobytes() in every for partner in batch["partner"])


def test_crops_around_nodules_have_no_context(slices_dataset: Path, phantom_dataset: Path, tmp_path: Path):
    crops = shards.open_dataset(slices_dataset)
    with pytest.raises(InputError, match=r"has the format slices, .* set config\.data\.context=0, or give whole scans"):
        reader(crops)
    index = manifest.read_index(phantom_dataset)
    place = index["slice_index"]
    ends = (place == 0) | (place == index.groupby("series_uid")["slice_index"].transform("max"))
    cubes = changed(phantom_dataset, tmp_path / "cubes", readers_marked=np.where(ends, 1, index["readers_marked"]))
    with pytest.raises(InputError, match=r"2 of 2 marked scans are marked in their first and last slice"):
        reader(cubes)
    assert loader.Slices(cubes, crop_px=32, crop_at="random").batch(np.arange(2))["image"].ndim == 3
    one_end = np.where(place == 0, 1, index["readers_marked"])
    assert reader(changed(phantom_dataset, tmp_path / "lower", readers_marked=one_end)).context.slices == 1


def test_planes_are_moved_alike_and_their_noise_is_their_own():
    """Where all planes show the same, they stay the same but for the noise; and each moves as the slice alone does."""
    hu = jax.random.uniform(jax.random.key(0), (2, 24, 24), jnp.float32, -1000, 400)
    readers = (hu > 0).astype(jnp.uint8)
    stacks = jnp.stack([hu, hu[::-1], hu], axis=1)
    quiet = augment.make_segment(intensity="hu", noise=0.0)
    moved, bits = quiet(jax.random.key(1), stacks, readers)
    alone, alone_bits = quiet(jax.random.key(1), hu, readers)
    np.testing.assert_array_equal(moved[:, 0], moved[:, 2])
    np.testing.assert_allclose(moved[:, 0], alone, atol=1e-6)
    np.testing.assert_array_equal(bits, alone_bits)
    other, _ = quiet(jax.random.key(1), hu[::-1], readers)
    np.testing.assert_allclose(moved[:, 1], other, atol=1e-6)
    noisy, _ = augment.make_segment(intensity="hu", noise=0.1)(jax.random.key(1), stacks, readers)
    assert (noisy[:, 0] != noisy[:, 2]).mean() > 0.5

    views = augment.make_views(intensity="hu", noise=0.0)
    for stacked, single in zip(views(jax.random.key(2), stacks), views(jax.random.key(2), hu), strict=True):
        np.testing.assert_array_equal(stacked[:, 0], stacked[:, 2])
        np.testing.assert_allclose(stacked[:, 0], single, atol=1e-6)
    a, _ = augment.make_views(intensity="hu", noise=0.1)(jax.random.key(2), stacks)
    assert (a[:, 0] != a[:, 2]).mean() > 0.3


def test_networks_see_planes_last_and_pictures_the_middle_one():
    images = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    np.testing.assert_array_equal(context.channels(images)[1, 2, 3], images[1, :, 2, 3])
    np.testing.assert_array_equal(context.middle(images), images[:, 1])
    assert context.channels(images[:, 0]).shape == (2, 4, 5, 1)
    assert context.middle(images[:, 0]) is not None
