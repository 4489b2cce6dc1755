"""The patches that classifiers are given."""

from __future__ import annotations

import dataclasses

import numpy as np

from lungjax.prediction import candidates, patches


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
