"""Connected pieces equal SciPy's, and what is told of each is what its voxels tell."""

from __future__ import annotations

import time

import cc3d
import numpy as np
import pytest
from scipy import ndimage

from lungjax.ct import connected_components

IN_SLICE = ndimage.generate_binary_structure(3, 1) & np.array([False, True, False])[:, None, None]
STRUCTURES = {(0, 1): ndimage.generate_binary_structure(3, 1), (1,): IN_SLICE}


@pytest.mark.parametrize("axes", [(0, 1), (1,)])
@pytest.mark.parametrize("share", [0.02, 0.2, 0.3, 0.6, 1.0])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 9, 8), (7, 1, 30), (6, 5, 1), (9, 10, 11)])
def test_pieces_equal_scipys(axes: tuple[int, ...], share: float, shape: tuple[int, int, int]):
    mask = np.random.default_rng(0).random(shape) < share
    labels, count = ndimage.label(mask, STRUCTURES[axes])  # pyright: ignore[reportGeneralTypeIssues]
    found = connected_components.find(mask, *axes)
    assert len(found.sizes) == count
    expected = {}
    for number in range(1, count + 1):
        slices, _, columns = np.nonzero(labels == number)
        expected[(labels == number).tobytes()] = (len(slices), np.ptp(slices) + 1, columns.mean())
    told = zip(found.sizes, found.heights(), found.columns(), strict=True)
    for number, (size, height, column) in enumerate(told):
        mine = found.mask(np.arange(count) == number)
        assert mine.shape == shape
        assert expected.pop(mine.tobytes()) == (size, height, pytest.approx(column))
    np.testing.assert_array_equal(found.mask(np.ones(count, bool)), mask)


def test_nothing_has_no_pieces():
    found = connected_components.find(np.zeros((2, 3, 4), bool), 0, 1)
    assert [len(each) for each in (found.sizes, found.heights(), found.columns())] == [0, 0, 0]
    assert not found.mask(np.zeros(0, bool)).any()


def test_quicker_than_connected_components_3d_on_whole_scans():
    """Why the components are found here: where this fails, use that package."""
    rng = np.random.default_rng(0)
    mask = np.zeros((20, 512, 512), bool)
    for row, column, radius in zip(*rng.integers(20, 490, (2, 100)), rng.integers(1, 12, 100), strict=True):
        mask[radius : radius + 3, row - radius : row + radius, column - radius : column + radius] = True

    def ours() -> np.ndarray:
        found = connected_components.find(mask, 0, 1)
        return found.mask(found.sizes == found.sizes.max())

    def theirs() -> np.ndarray:
        labels, count = cc3d.connected_components(mask, connectivity=6, return_N=True)
        sizes = np.bincount(labels.ravel(), minlength=count + 1)
        return (sizes == sizes[1:].max())[labels]

    np.testing.assert_array_equal(ours(), theirs())
    taken_s: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(5):  # In turn, for others work here, too; the least of each.
        for name, work in (("ours", ours), ("theirs", theirs)):
            start = time.process_time()
            work()
            taken_s[name].append(time.process_time() - start)
    assert min(taken_s["ours"]) < min(taken_s["theirs"])
