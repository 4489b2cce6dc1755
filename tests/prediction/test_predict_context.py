"""Networks that are shown neighbouring slices, on scans and arrays: with the neighbours that they are told, or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import networks
import numpy as np
import pytest

import lungjax
from lungjax.data.intensity import window
from lungjax.errors import InputError
from lungjax.export import signature
from lungjax.tasks import segment
from lungjax.train import trained


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return lungjax.load(networks.made("segment", tmp_path_factory.mktemp("model") / "segment", context=1))


@pytest.fixture(scope="module")
def hu() -> np.ndarray:
    """A scan of 20 slices; more than one batch."""
    return np.random.default_rng(0).normal(-600, 300, (20, 64, 64)).astype(np.int16)


def stacked(hu: np.ndarray, step: int = 1) -> np.ndarray:
    """Each slice between its neighbours, the outermost repeated."""
    last = len(hu) - 1
    return np.stack([[hu[max(n - step, 0)], hu[n], hu[min(n + step, last)]] for n in range(len(hu))])


def test_a_scan_is_its_slices_between_their_neighbours(segmenter: Any, hu: np.ndarray):
    found = segmenter.predict(hu)
    assert (found.shape, found.dtype) == (hu.shape, np.float32)
    stacks = stacked(hu)
    np.testing.assert_array_equal(found, segmenter.predict(stacks))
    network: Any = segment.network(segmenter.trained.config)
    shown = window(jnp.asarray(stacks, jnp.float32), segmenter.trained.config.augment.window_hu).transpose(0, 2, 3, 1)
    logits = network.apply({"params": segmenter.trained.variables["params"]}, shown, train=False)[..., 0]
    np.testing.assert_allclose(found, jax.nn.sigmoid(logits), atol=1e-5)
    changed = hu.copy()
    changed[7] = 0
    near = np.abs(segmenter.predict(changed) - found).max(axis=(1, 2)) > 0
    np.testing.assert_array_equal(np.flatnonzero(near), [6, 7, 8])
    np.testing.assert_array_equal(segmenter.predict(hu[5:6]), segmenter.predict(np.stack([hu[5:6]] * 3, axis=1)))
    assert segmenter.predict(hu[:0]).shape == (0, 64, 64)


def test_slices_of_another_size_are_tiled_with_their_neighbours(segmenter: Any):
    hu = np.random.default_rng(1).normal(-600, 300, (3, 100, 90)).astype(np.int16)
    found = segmenter.predict(hu)
    np.testing.assert_array_equal(found, segmenter.predict(stacked(hu)))
    region = np.zeros(hu.shape, bool)
    region[1] = True
    np.testing.assert_allclose(segmenter.volume(hu, region)[1], found[1], atol=1e-3)  # In 16 bits.
    assert (segmenter.volume(hu, region)[[0, 2]] == 0).all()
    assert segmenter.compilations == 1


def test_a_context_in_mm_needs_the_distance_of_slices(tmp_path: Path, hu: np.ndarray):
    model = lungjax.load(networks.made("segment", tmp_path / "model", context=1, context_mm=2.5))
    np.testing.assert_array_equal(model.predict(hu, slice_mm=1.25), model.predict(stacked(hu, 2)))
    np.testing.assert_array_equal(model.predict(hu, slice_mm=2.5), model.predict(stacked(hu)))
    for slice_mm in (None, 0.0, float("nan"), -1.0):
        with pytest.raises(InputError, match=r"config\.data\.context_mm.* is not known; give slice_mm"):
            model.predict(hu, slice_mm=slice_mm)


@pytest.mark.parametrize("shape", [(4, 2, 64, 64), (4, 5, 64, 64), (64, 64), (1, 4, 3, 64, 64)])
def test_other_planes_are_refused(segmenter: Any, shape: tuple[int, ...]):
    with pytest.raises(InputError, match=r"it must be the \(slices, rows, columns\) of one scan, or \(n, 3, rows, col"):
        segmenter.predict(np.zeros(shape, np.int16))


def test_a_network_without_context_takes_no_planes(tmp_path: Path):
    model = lungjax.load(networks.made("segment", tmp_path / "model"))
    with pytest.raises(InputError, match=r"it must be \(slices, rows, columns\)"):
        model.predict(np.zeros((4, 3, 64, 64), np.int16))


def test_an_encoder_with_context(tmp_path: Path, hu: np.ndarray):
    folder = networks.made("simclr", tmp_path / "model", context=1)
    model = lungjax.load(folder)
    features = model.embed(hu)
    assert features.shape == (20, 64)
    np.testing.assert_array_equal(features, model.embed(stacked(hu)))
    known = trained.open_trained(folder)
    described = signature.network_signature(known)
    assert described.inputs[0].shape == (3, 64, 64)
    (wanted,) = described.function(known.variables, jnp.asarray(stacked(hu), jnp.float32))
    np.testing.assert_allclose(features, wanted, atol=1e-4)
    with pytest.raises(InputError, match="it must be the"):
        model.embed(np.zeros((4, 2, 64, 64), np.int16))


def test_a_description_from_elsewhere_is_checked(tmp_path: Path):
    for context, why in ((10**6, "at most 64 is possible"), (2, "but by config it is")):
        folder = networks.made("segment", tmp_path / str(context)[:1], context=1)
        known = trained.open_trained(folder)
        known.config.data.context = context
        trained.write_description(known, folder)
        with pytest.raises(InputError, match=why):
            trained.open_trained(folder)
