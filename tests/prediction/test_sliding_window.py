"""The network over whole slices: the task's own answers, whatever the training data were in, and one program."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import chests
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import runs

from lungjax.data import crop
from lungjax.data.intensity import window
from lungjax.errors import InputError
from lungjax.prediction import sliding_window
from lungjax.prediction.sliding_window import Segmenter
from lungjax.tasks import segment


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory):
    return chests.untrained(tmp_path_factory.mktemp("model"))


def test_a_tile_is_what_the_network_says_of_its_hu(trained):
    """Although it was trained on 8-bit slices: their HU were guessed, a scan's are read."""
    tile = chests.chest()[15, 30:94, 10:74]
    network: Any = segment.network(trained.config)
    shown: Any = window(jnp.asarray(tile, jnp.float32), trained.config.augment.window_hu)[None, ..., None]
    expected = jax.nn.sigmoid(network.apply({"params": trained.variables["params"]}, shown, train=False))[0, ..., 0]
    found = Segmenter(trained).tiles(np.stack([tile, tile[::-1]]))
    np.testing.assert_allclose(found[0], expected, rtol=1e-4)
    assert found.shape == (2, 64, 64)
    assert np.ptp(expected) > 0


def test_a_volume_is_blended_and_compiled_once(trained):
    hu = chests.chest()
    region = np.zeros(hu.shape, bool)
    region[10:13, 40:90, 20:60] = region[20, 5:7, 100:128] = True
    network = Segmenter(trained)
    found = network.volume(hu, region)
    assert (network.volume(hu[:, :100, :90], region[:, :100, :90]) > 0).any()
    assert network.compilations == 1
    assert found.dtype == np.float16
    assert (found[~region] == 0).all()
    assert (found[region] > 0).all()
    # Where a pixel is the middle of a tile, its neighbours count for nothing.
    corner = network.tiling.corners(region[11])[3]
    alone = network.tiles(crop.cut(hu[11], corner, 64)[None])[0]
    assert region[11, corner[0] + 32, corner[1] + 32]
    assert found[11, corner[0] + 32, corner[1] + 32] == pytest.approx(alone[32, 32], rel=0.1)
    assert network.compilations == 1


def test_a_volume_in_batches_is_the_volume(trained, monkeypatch: pytest.MonkeyPatch):
    hu = chests.chest()
    region = np.zeros(hu.shape, bool)
    region[10:13, 40:90, 20:60] = True
    once = Segmenter(trained).volume(hu, region)
    monkeypatch.setattr(sliding_window, "BATCH", 7)
    np.testing.assert_allclose(Segmenter(trained).volume(hu, region), once, atol=1e-3)


def test_the_share_of_readers_is_the_calibrated_mean_over_levels(trained, tmp_path: Path):
    config = trained.config.copy_and_resolve_references()
    config.targets = "levels"
    tile = chests.chest()[15, 30:94, 10:74]
    shown: Any = window(jnp.asarray(tile, jnp.float32), config.augment.window_hu)[None, ..., None]
    network: Any = segment.network(config)
    params = network.init(jax.random.key(0), shown, train=False)["params"]
    levels = dataclasses.replace(trained, config=config, variables={"params": params, "model_state": {}})
    share = np.asarray(jax.nn.sigmoid(network.apply({"params": params}, shown, train=False)).mean(axis=-1))
    assert np.ptp(share) > 0
    np.testing.assert_allclose(Segmenter(levels).predict_share(tile[None]), share, rtol=1e-4)
    knots = {"predicted": [0.0, 0.4, 1.0], "share": [0.0, 0.1, 0.9]}
    calibrated = Segmenter(dataclasses.replace(levels, calibration=knots))
    expected = np.interp(share, knots["predicted"], knots["share"])
    np.testing.assert_allclose(calibrated.predict_share(tile[None]), expected, rtol=1e-3)
    whole = calibrated.predict_share(chests.chest()[15:16])
    assert whole.shape == (1, *chests.chest().shape[1:])
    assert whole[0, 62, 42] == pytest.approx(expected[0, 32, 32], rel=0.3)
    assert calibrated.predict_share(tile[None][:0]).shape == (0, 64, 64)


def test_a_network_of_the_majority_alone_has_no_share(trained):
    with pytest.raises(InputError, match=r"only the probability that two readers .* config\.targets soft or levels"):
        Segmenter(trained).predict_share(chests.chest()[:1])


def test_only_a_segmenter(trained, tmp_path: Path):
    other = type(trained)(**{**trained.__dict__, "config": runs.small_config("simclr", tmp_path)})
    with pytest.raises(InputError, match="only a segmenter outlines"):
        Segmenter(other)
