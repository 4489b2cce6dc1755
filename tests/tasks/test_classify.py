"""The grading task: targets by hand, grades that no turn of the patch changes, and what its loss leaves out."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import patches as made
import pytest
import runs

from lungjax.ct.scan import RATING_NAMES
from lungjax.data import augment, nodules
from lungjax.tasks import classify
from lungjax.train import mesh


@pytest.fixture(scope="module")
def config():
    config = runs.load_config("classify")
    config.model.encoder.width = 8
    config.model.width = config.model.hidden = 8
    return config


@pytest.fixture(scope="module")
def batch() -> dict[str, jax.Array]:
    columns = made.columns(patients=4)
    ratings = columns["reader_ratings"].astype(np.int32)
    given = np.where(ratings[:, :, -1] > 0, ratings[:, :, -1], np.nan)
    bits = np.where(columns["hu"] > -400, 7, 0).astype(np.uint8)
    return {
        "image": jnp.array(columns["hu"]),
        "readers": jnp.array(bits),
        "spacing_mm": jnp.array(columns["pixel_spacing_mm"], jnp.float32),
        "ratings": jnp.array(ratings),
        "label": jnp.array(nodules.label_of(np.nanmedian(given, axis=1))),
        "weight": jnp.ones(8, jnp.float32),
    }


@pytest.fixture(scope="module")
def task(config):
    return classify.make(config, intensity="hu", readers=4, mesh=mesh.make_mesh(8))


@pytest.fixture(scope="module")
def fresh(task, batch):
    return task.init(jax.random.key(0), batch)


def test_labels_are_medians_above_and_below_three():
    found = nodules.label_of(np.array([1.0, 2.5, 3.0, 3.5, 5.0, np.nan]))
    np.testing.assert_array_equal(found, [0, 0, np.nan, 1, 1, np.nan])
    label, weight = classify.labels(jnp.array(found))
    np.testing.assert_array_equal(label, [0, 0, 0, 1, 1, 0])
    np.testing.assert_array_equal(weight, [1, 1, 0, 1, 1, 0])


def test_targets_are_shares_of_readers_above_each_value():
    ratings = np.zeros((1, 4, 9), np.int32)
    ratings[0, :, -1] = [1, 3, 5, 0]
    ratings[0, 0, 2] = 6  # Calcification goes up to 6.
    targets, trust = classify.ordinal_targets(jnp.array(ratings))
    np.testing.assert_allclose(targets[0, -4:], [2 / 3, 2 / 3, 1 / 3, 1 / 3])
    np.testing.assert_allclose(trust[0, -4:], np.sqrt(3))
    calcification = [place for place, (name, _) in enumerate(classify.STEPS) if name == 2]
    assert len(calcification) == 5
    np.testing.assert_allclose(targets[0, np.array(calcification)], 1)
    assert trust[0, 0] == 0  # Nobody said how subtle it is.
    assert len(classify.STEPS) == 4 + 3 + 5 + 6 * 4


def test_expected_ratings_run_from_one_to_the_highest():
    high = 50 * np.ones((1, len(classify.STEPS)), np.float32)
    np.testing.assert_allclose(classify.expected_ratings(jnp.array(high))[0], classify.HIGHEST)
    np.testing.assert_allclose(classify.expected_ratings(jnp.array(-high))[0], np.ones(len(RATING_NAMES)))
    malignancy = np.zeros((1, len(classify.STEPS)), np.float32)
    malignancy[0, -4:] = np.log([3.0, 1.0, 1 / 3, 1 / 9])  # Above 1: 3/4, above 2: 1/2, 1/4, 1/10.
    np.testing.assert_allclose(classify.expected_ratings(jnp.array(malignancy))[0, -1], 1 + 0.75 + 0.5 + 0.25 + 0.1)


def test_the_share_that_marked_is_of_those_who_marked():
    bits = np.zeros((2, 4, 4), np.uint8)
    bits[0, 1, 1], bits[0, 1, 2] = 0b101, 0b001
    found = classify.share_marked(jnp.array(bits))
    assert (found[0, 1, 1], found[0, 1, 2], found.sum()) == (1.0, 0.5, 1.5)


def test_no_turn_and_no_flip_changes_a_grade(config, batch, fresh):
    predict = jax.jit(classify.make_nodule_classifier(config))
    hu, mm = batch["image"], batch["spacing_mm"]
    rough = hu + jax.random.randint(jax.random.key(1), hu.shape, -300, 300, jnp.int16)
    predicted = predict(*fresh, rough, mm)
    shapes = {"logit": (8,), "ratings": (8, 9), "above": (8, len(classify.STEPS))}
    assert {name: part.shape for name, part in predicted.items()} == shapes
    for turned in (jnp.rot90(rough, 1, axes=(1, 2)), rough[:, ::-1], rough.transpose(0, 2, 1)):
        again = predict(*fresh, turned, mm)
        for name, part in predicted.items():
            np.testing.assert_allclose(again[name], part, atol=2e-4)
    wider = predict(*fresh, rough, 2 * mm)
    assert not np.allclose(wider["logit"], predicted["logit"], atol=1e-3)


def test_a_patch_is_moved_with_its_outline_to_pixels_of_one_size():
    """Without any chance in it, a disk of 6 px of 0.5 mm has a radius of 3 mm whatever the pixels are."""
    rows, columns = np.mgrid[:41, :41] - 20
    disk = (np.hypot(rows, columns) <= 6).astype(np.float32)
    none = {"zoom": 0.0, "shift_mm": 0.0, "offset_hu": 0.0, "noise_hu": 0.0}
    given = jax.random.key(3), jnp.array(1000 * disk), jnp.array(disk), jnp.float32(0.5)
    for pixel_mm in (0.25, 0.5, 1.0):
        hu, marked = augment.nodule(*given, side_px=round(16 / pixel_mm), pixel_mm=pixel_mm, **none)
        np.testing.assert_allclose(hu, 1000 * np.asarray(marked), atol=1e-3)
        assert float(marked.sum()) * pixel_mm**2 == pytest.approx(np.pi * 3**2, rel=0.08)
    moved, _ = augment.nodule(*given, side_px=16, pixel_mm=1.0)
    assert not np.allclose(moved, hu, atol=10)


def test_what_is_not_known_costs_nothing(task, batch, fresh):
    """No outline: no loss of it. Neither malignant nor benign: none of that. No weight: none at all."""
    loss = jax.jit(task.loss_fn)
    rng = jax.random.key(2)
    _, (_, state) = loss(*fresh, batch, rng)
    assert jax.tree.structure(state) == jax.tree.structure(fresh[1])
    _, (bare, _) = loss(*fresh, {**batch, "readers": jnp.zeros_like(batch["readers"])}, rng)
    assert float(bare["outline"]) == 0.0
    _, (unsure, _) = loss(*fresh, {**batch, "label": jnp.full(8, jnp.nan)}, rng)
    assert float(unsure["cross_entropy"]) == 0.0
    _, (silent, _) = loss(*fresh, {**batch, "ratings": jnp.zeros_like(batch["ratings"])}, rng)
    assert float(silent["ratings"]) == 0.0
    _, (known, _) = loss(*fresh, batch, rng)
    assert min(float(value) for value in known.values()) > 0


def test_validation_sums_give_the_auc_of_all_batches(task, batch, fresh):
    step = jax.jit(task.eval_fn)
    logits = np.asarray(task.predict(*fresh, batch)["logit"])
    padded = {**batch, "weight": jnp.array([1, 1, 1, 1, 1, 1, 1, 0], jnp.float32)}
    sums = {name: np.asarray(value, np.float64) for name, value in step(*fresh, padded, jax.random.key(0)).items()}
    label = np.asarray(batch["label"])
    used = ~np.isnan(label) & (np.arange(8) < 7)
    pairs = [(a > b) + 0.5 * (a == b) for a in logits[used & (label == 1)] for b in logits[used & (label == 0)]]
    found = task.summarize(sums)
    assert found["auc"] == pytest.approx(np.mean(pairs), abs=0.1)  # In bins of probability.
    p = 1 / (1 + np.exp(-logits[used]))
    loss = -np.mean(np.where(label[used] == 1, np.log(p), np.log(1 - p)))
    assert found["loss"] == pytest.approx(loss, rel=1e-4)
    nobody = {"loss": np.float64(0), "benign": np.zeros(2000), "malignant": np.zeros(2000)}
    assert task.summarize(nobody) == {"loss": 0.0, "auc": 0.5}
