"""Neighbours: of the same series, near, every one of them, and the row itself only where there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lungjax.data import loader, shards
from lungjax.data.neighbours import Neighbours


def all_picks(near: Neighbours, row: int) -> set[int]:
    uniform = np.linspace(0, 1, 500, endpoint=False)
    return set(near.pick(np.full(500, row), uniform).tolist())


def expected(index: pd.DataFrame, rows: np.ndarray, row: int, within_mm: float) -> set[int]:
    """By looking at every pair."""
    one = index.iloc[row]
    found = set()
    for other in rows.tolist():
        two = index.iloc[other]
        if other == row or two["series_uid"] != one["series_uid"]:
            continue
        if np.isnan(one["z_mm"]):
            if abs(two["slice_index"] - one["slice_index"]) <= 1:
                found.add(other)
        elif abs(two["z_mm"] - one["z_mm"]) <= within_mm + 1e-3:
            found.add(other)
    return found or {row}


@pytest.mark.parametrize("within_mm", [0.1, 3.0, 7.5])
@pytest.mark.parametrize("source", ["slices_dataset", "phantom_dataset"])
def test_neighbours_by_looking_at_every_pair(source: str, within_mm: float, request: pytest.FixtureRequest):
    dataset = shards.open_dataset(request.getfixturevalue(source))
    index = dataset.index
    rows = np.flatnonzero(np.arange(len(dataset)) % 5 != 2)  # With gaps: a neighbour is of these rows alone.
    near = Neighbours(dataset, rows, within_mm=within_mm)
    for row in rows[:: max(1, len(rows) // 40)].tolist():
        assert all_picks(near, row) == expected(index, rows, row, within_mm)


def test_partners_are_of_the_same_patient_and_the_images_of_near_slices(slices_dataset: Path):
    dataset = shards.open_dataset(slices_dataset)
    slices = loader.Slices(dataset, crop_px=0, crop_at="random")
    rows = loader.select_rows(dataset, split="train", slices="all")
    near = Neighbours(dataset, rows, within_mm=5.0)
    plain = loader.train_batches(slices, rows, batch_size=12, seed=1, workers=0)
    pairs = loader.train_batches(slices, rows, batch_size=12, seed=1, workers=0, neighbours=near)
    for _ in range(4):
        batch, pair = next(plain), next(pairs)
        for name, part in batch.items():  # The same slices, in the same order.
            np.testing.assert_array_equal(part, pair[name])
        assert pair["partner"].shape == pair["image"].shape
        for row, partner in zip(pair["row"].tolist(), pair["partner"], strict=True):
            allowed = sorted(expected(dataset.index, rows, row, 5.0))
            assert len(set(dataset.index["patient_id"].iloc[[row, *allowed]])) == 1
            assert any(np.array_equal(partner, image) for image in dataset.pixels(allowed)[0])
            assert not np.array_equal(partner, dataset.pixels([row])[0][0])
