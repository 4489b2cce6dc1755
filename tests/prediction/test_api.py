"""`lungjax.load`: from a NumPy volume to a mask; and the patches that a grader is given."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import chests
import numpy as np
import pytest

import lungjax
from lungjax.errors import InputError
from lungjax.prediction import api, candidates, patches


@pytest.fixture
def truth(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> np.ndarray:
    """Probability: the second ball is the surer nodule."""
    found = np.zeros(chests.SHAPE)
    for (centre, radius_mm), probability in zip(chests.BALLS, (0.9, 0.95), strict=True):
        found[chests.ball(centre, radius_mm)] = probability
    monkeypatch.setattr(api, "open_trained", lambda _: chests.untrained(tmp_path))
    monkeypatch.setattr(api, "Segmenter", lambda _: chests.Told([(chests.chest(), found)]))
    return found


@pytest.mark.parametrize("dtype", [np.int16, np.float64])
def test_a_volume_to_a_mask(truth: np.ndarray, dtype: type):
    model = lungjax.load("somewhere")
    mask = model.mask(chests.chest().astype(dtype), spacing_mm=chests.SPACING_MM)
    np.testing.assert_array_equal(mask, np.select([truth == 0.95, truth == 0.9], [1, 2], 0))
    found = model.detect(chests.chest(), spacing_mm=chests.SPACING_MM)
    assert [one.mean_hu for one in found.nodules] == [chests.NODULE_HU] * 2
    assert found.warnings == []


def test_what_is_no_volume_of_a_chest(truth: np.ndarray):
    model = lungjax.load("somewhere")
    for hu, says in (
        (np.zeros((4, 4)), r"\(4, 4\); it must be"),
        (np.full((2, 4, 4), np.nan), "NaN"),
        (np.full(chests.SHAPE, 1e6), "no Hounsfield units"),
        (np.zeros(chests.SHAPE), "0 to 0 HU"),
    ):
        with pytest.raises(InputError, match=says):
            model.mask(hu, spacing_mm=chests.SPACING_MM)
    assert model.detect(np.zeros(chests.SHAPE), spacing_mm=chests.SPACING_MM).refused is not None


def test_jax_is_imported_by_those_who_load_alone():
    said = "import lungjax, sys; assert 'jax' not in sys.modules; assert callable(lungjax.load)"
    subprocess.run([sys.executable, "-c", said], check=True, timeout=60)


def test_patches_lie_around_the_widest_slice():
    hu = np.random.default_rng(0).integers(-1000, 400, (4, 100, 120)).astype(np.int16)
    voxels = np.array([[1, 50, 60], [2, 49, 60], [2, 50, 60], [2, 51, 60], [3, 40, 40]])
    one = candidates.Candidate(voxels, 0.9, 1.0, 3.0, 1.0, 2, 0.0)
    edge = dataclasses.replace(one, voxels=np.array([[0, 5, 118]]), widest=0)
    found = patches.cut(hu, [one, edge])
    assert (found.shape, found.dtype) == ((2, 71, 71), np.int16)
    np.testing.assert_array_equal(found[0], hu[2, 15:86, 25:96])
    assert found[1, 35, 35] == hu[0, 5, 118]
    np.testing.assert_array_equal(found[1, 30:, :37], hu[0, :41, 83:120])
    assert (found[1, :30] == hu[0].min()).all()
    assert patches.cut(hu, []).shape == (0, 71, 71)
