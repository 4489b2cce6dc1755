"""Pretraining with a decoder: places are where the views show them, the losses by a second way, what is handed on."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import runs
import scipy.ndimage

from lungjax import losses
from lungjax.data import augment, distort
from lungjax.errors import InputError
from lungjax.evaluation import run_report
from lungjax.evaluation.plots import embedding
from lungjax.models import layers
from lungjax.tasks import kinds, pretrain
from lungjax.train import checkpoint, loop, mesh, transfer
from lungjax.train.probe import Probe
from lungjax.train.state import TrainState

SIDE_PX = 64


def test_a_place_is_where_a_view_shows_it():
    """Of a bright dot in each image: its middle in each view."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:SIDE_PX, :SIDE_PX]
    centres = rng.uniform(10, SIDE_PX - 10, (24, 2))
    dots = [np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / 8) for row, column in centres]
    images = jnp.asarray(-1300 + 1400 * np.stack(dots), jnp.float32)
    still = {"intensity_jitter": 0.0, "noise": 0.0, "blur_px": 0.0, "cutout": 0.0}
    views_of = augment.make_placed_views(intensity="hu", **still)
    views, maps = jax.jit(views_of)(jax.random.key(3), images)
    compared = 0
    for view, of in zip(views, maps, strict=True):
        at = jax.vmap(lambda of, place: of.inverse(place, (SIDE_PX, SIDE_PX)))(of, jnp.asarray(centres)[:, None])[:, 0]
        for image, (row, column) in zip(np.asarray(view), np.asarray(at), strict=True):
            if min(row, column) < 8 or max(row, column) > SIDE_PX - 9:
                continue  # Beyond a border the image is mirrored: a dot near it is there twice.
            bright = np.where(image > 0.5 * image.max(), image, 0)
            middle = np.array(scipy.ndimage.center_of_mass(bright))
            np.testing.assert_allclose(middle, (row, column), atol=1.0)
            compared += 1
    assert compared > 20


def test_places_keep_apart_and_blocks_have_their_share():
    places = np.asarray(distort.random_places(jax.random.key(0), (64, 96), along=8))
    assert places.shape == (64, 2)
    assert (places >= 0).all()
    assert (places <= (63, 95)).all()
    off = np.linalg.norm(places[:, None] - places[None], axis=-1)
    assert off[~np.eye(64, dtype=bool)].min() >= 4
    hidden = np.asarray(distort.random_blocks(jax.random.key(0), (64, 96), side_px=8, share=0.5))
    assert hidden.mean() == 0.5
    blocks = hidden.reshape(8, 8, 12, 8)
    assert (blocks == blocks[:, :1, :, :1]).all()
    assert not (hidden == np.asarray(distort.random_blocks(jax.random.key(1), (64, 96), side_px=8, share=0.5))).all()
    assert distort.random_blocks(jax.random.key(0), (60, 50), side_px=8, share=0.5).shape == (60, 50)


def test_features_between_pixels_equal_scipy():
    rng = np.random.default_rng(0)
    x, places = rng.normal(size=(2, 9, 7, 3)).astype(np.float32), rng.uniform(-2, 10, (2, 50, 2)).astype(np.float32)
    found = layers.sampled_at(jnp.asarray(x), jnp.asarray(places))
    for image in range(2):
        for channel in range(3):
            expected = scipy.ndimage.map_coordinates(x[image, ..., channel], places[image].T, order=1, mode="nearest")
            np.testing.assert_allclose(found[image, :, channel], expected, atol=1e-5)
    alone = layers.sampled_at(jnp.asarray(x[:, :1, :1]), jnp.asarray(places))
    np.testing.assert_allclose(alone, np.broadcast_to(x[:, :1, 0], alone.shape), atol=1e-6)


def test_contrast_of_places_by_a_second_way():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 3, 6, 5)).astype(np.float32)
    seen = np.array([[1, 1, 0, 1, 0, 1], [0, 0, 0, 1, 0, 0], [1, 1, 1, 1, 1, 1]], bool)  # One place alone: no contrast.

    def loss_of(a, b):
        return losses.ntxent_of_places(embeddings_a=a, embeddings_b=b, seen=jnp.asarray(seen), temperature=0.3)

    loss, top1 = loss_of(jnp.asarray(a), jnp.asarray(b))
    of_slices = []
    for image in (0, 2):
        each = []
        views = [side[image] / np.linalg.norm(side[image], axis=1, keepdims=True) for side in (a, b)]
        keys = [(place, view) for place in np.flatnonzero(seen[image]) for view in range(2)]
        for place, view in keys:
            others = [key for key in keys if key != (place, view)]
            cosines = {key: float(views[view][place] @ views[key[1]][key[0]]) for key in others}
            right = cosines.pop((place, 1 - view))
            total = np.exp(right / 0.3) + sum(np.exp(value / 0.3) for value in cosines.values())
            each.append((np.log(total) - right / 0.3, right > max(cosines.values())))
        of_slices.append(np.mean(each, axis=0))
    np.testing.assert_allclose((loss, top1), np.mean(of_slices, axis=0), rtol=1e-5)

    gradient = jax.grad(lambda a: loss_of(a, jnp.asarray(b))[0])(jnp.asarray(a))
    assert jnp.isfinite(gradient).all()
    assert (gradient[1] == 0).all()
    assert (gradient[0][~seen[0]] == 0).all()
    nothing = losses.ntxent_of_places(
        embeddings_a=jnp.asarray(a), embeddings_b=jnp.asarray(b), seen=jnp.zeros((3, 6), bool), temperature=0.3
    )
    assert [float(value) for value in nothing] == [0.0, 0.0]


def test_what_is_hidden_is_not_shown_and_its_error_is_a_share():
    images = jax.random.uniform(jax.random.key(0), (4, 32, 32))
    (hidden, other), shown = pretrain.hidden_of(jax.random.key(1), (4, 32, 32)), 0.25
    assert not (hidden == other).all()
    covered = pretrain.hide(images, hidden)
    assert (covered == pretrain.hide(jnp.where(hidden, shown, images), hidden)).all()
    assert (jnp.where(hidden, images, covered) == images).all()
    mean = jnp.mean(images, axis=(1, 2), keepdims=True, where=hidden)
    for guess, error in ((images, 0.0), (jnp.where(hidden, mean, 7.0), 1.0), (covered, 1.0)):
        assert float(pretrain.restoration_error(guess, images, hidden)) == pytest.approx(error, abs=0.01)


def test_the_nearest_of_other_patients():
    angles = np.deg2rad([0, 1, 2, 50, 3, 52, 10, 90])
    features = np.stack([np.cos(angles), np.sin(angles)], axis=1) * np.arange(1, 9)[:, None]
    patients = ["a", "a", "b", "b", "b", "c", "d", "e"]
    found = embedding.nearest(features, patients, np.array([0, 5]))
    assert found.tolist() == [[2, 6, 5, 7], [3, 7, 6, 1]]


def test_neighbours_have_no_places_in_common(tmp_path: Path):
    config = runs.load_config("simclr")
    config.positives, config.dense_weight = "neighbours", 1.0
    with pytest.raises(InputError, match=r"config\.dense_weight is above 0, but neighbours have no places in common"):
        loop.check_config(config)


def test_a_weight_against_nothing_is_told():
    config = runs.load_config("simclr")
    config.contrast_weight = 0.5
    with pytest.raises(InputError, match=r"config\.contrast_weight weighs nothing; set config\.dense_weight or"):
        loop.check_config(config)


@pytest.mark.parametrize(("task", "others"), [("segment", 2), ("classify", None)])
def test_only_a_segmenter_takes_the_decoder(task: str, others: int | None):
    """A nodule classifier has one of its own, whose arrays partly have the same names."""
    before, after = runs.load_config("simclr"), runs.load_config(task)
    encoder = {"depth": 10, "width": 8, "norm": "batch", "stem": "patch", "patch_px": 2}
    for config in (before, after):
        config.model.encoder.update(encoder)
        config.data.batch_size = 8
        if "decoder" in config.model:
            config.model.decoder = (16, 8, 8)
    before.masked_weight = 1.0
    theirs, ours = (
        jax.tree.map(
            lambda leaf, fill=fill: jnp.full(leaf.shape, fill, leaf.dtype), kinds.trace_init(config, mesh.make_mesh(8))
        )
        for config, fill in ((before, 1), (after, 0))
    )
    source: Any = SimpleNamespace(
        config=before, variables={"params": theirs[0], "model_state": theirs[1]}, path="before", step=1
    )
    params, model_state = ours
    empty = TrainState(jnp.zeros((), jnp.int32), params, model_state, {}, None)
    state, said = transfer.load_weights(empty, source, task=task)
    full = {name for name, part in state.params.items() if all(leaf.all() for leaf in jax.tree.leaves(part))}
    if others is None:
        assert full == {"encoder"}
        assert "arrays of the encoder loaded" in said
    else:
        assert set(state.params) - full == {"head"}
        assert f"arrays of the encoder and the decoder loaded, {others} others start" in said


def test_a_map_needs_several_slices_of_numbers():
    probe = Probe.__new__(Probe)
    for features, there in (
        (None, False),
        (np.ones((1, 8)), False),
        (np.full((3, 8), np.nan), False),
        (np.eye(8), True),
    ):
        probe.val_features = features
        assert (probe.map_features is not None) == there


@pytest.mark.slow
@pytest.mark.parametrize("weights", [pytest.param((1.0, 1.0, 0.0), marks=pytest.mark.exhaustive), (0.0, 0.0, 1.0)])
def test_a_decoder_is_pretrained_and_handed_on(slices_dataset: Path, tmp_path: Path, weights, capsys):
    before = runs.small_config("simclr", slices_dataset)
    before.contrast_weight, before.dense_weight, before.masked_weight = weights
    before.model.decoder = (16, 8, 8)
    before.steps, before.eval_every, before.checkpoint_every, before.log_every = 40, 40, 40, 5
    assert loop.train_and_evaluate(before, tmp_path / "before")
    logged = [json.loads(line) for line in (tmp_path / "before" / "metrics.jsonl").read_text().splitlines()]
    name = "place_accuracy" if weights[1] else "restored"
    course = [line[f"train/{name}"] for line in logged if f"train/{name}" in line]
    assert np.isfinite(course).all()
    if name == "restored":  # Contrast takes more steps than a test has.
        assert course[-1] > course[0] + 0.05
    assert any(f"val/{name}" in line for line in logged)
    page = run_report.write(tmp_path / "before").read_text()
    assert "What the features know" in page
    assert "Validation slices by two principal components of their features" in page

    after = runs.small_config("segment", slices_dataset)
    after.steps = after.eval_every = after.checkpoint_every = 1
    after.init_from, after.optimizer.learning_rate = str(tmp_path / "before"), 1e-9
    capsys.readouterr()
    assert loop.train_and_evaluate(after, tmp_path / "after")
    assert "arrays of the encoder and the decoder loaded, 2 others start from random weights" in capsys.readouterr().err
    theirs, ours = (checkpoint.load_best(tmp_path / run)[0]["params"] for run in ("before", "after"))
    for part in ("encoder", "up0", "level2_conv1"):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), theirs[part], ours[part])
