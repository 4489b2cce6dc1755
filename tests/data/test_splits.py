"""Shares of the patients: nested, by patient, by hash."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest

from lungjax.data import loader, shards, splits

PATIENTS = [f"LIDC-IDRI-{number:04d}" for number in range(300)]
SHARES = (0.01, 0.05, 0.1, 0.25, 1.0)


@pytest.mark.parametrize("seed", [0, 1])
def test_smaller_shares_lie_within_larger_ones(seed: int):
    found = [splits.sample_patients(PATIENTS, share, seed=seed) for share in SHARES]
    assert [len(some) for some in found] == [3, 15, 30, 75, 300]
    assert all(small < large for small, large in itertools.pairwise(found))
    assert splits.sample_patients(reversed(PATIENTS), 0.05, seed=seed) == found[1]


def test_a_patient_keeps_its_place_whoever_else_is_there():
    """What a share of all holds, the same share of half of them draws from in the same order."""
    of_all = [p for number in range(1, 301) for p in _last(PATIENTS, number)]
    half = PATIENTS[::2]
    assert [p for p in of_all if p in half] == [p for number in range(1, 151) for p in _last(half, number)]


def _last(patients: list[str], number: int) -> set[str]:
    """Who joins as the `number`th."""
    of = len(patients)
    earlier = splits.sample_patients(patients, (number - 1) / of, seed=0)
    return splits.sample_patients(patients, number / of, seed=0) - earlier


def test_seeds_draw_other_patients_and_shares_are_rounded_up():
    assert splits.sample_patients(PATIENTS, 0.1, seed=0) != splits.sample_patients(PATIENTS, 0.1, seed=1)
    assert [len(splits.sample_patients(PATIENTS[:7], share, seed=0)) for share in (0.001, 1 / 7, 0.15, 1.0)] == [
        1,
        1,
        2,
        7,
    ]


def test_a_share_of_the_rows_is_all_slices_of_some_patients(slices_dataset: Path):
    dataset = shards.open_dataset(slices_dataset)
    patients = dataset.index["patient_id"]
    rows = loader.select_rows(dataset, split="train", slices="all")
    train = set(patients.iloc[rows])
    some = loader.select_rows(dataset, split="train", slices="all", share=0.4, seed=3)
    chosen = set(patients.iloc[some])
    assert len(chosen) == math.ceil(0.4 * len(train)) < len(train)
    assert list(some) == [row for row in rows if patients.iloc[row] in chosen]
    more = loader.select_rows(dataset, split="train", slices="all", share=0.7, seed=3)
    assert set(some) < set(more) < set(rows)


def test_of_several_networks_the_one_that_has_seen_most_counts():
    detector: dict[str, splits.Split] = {"a": "test", "b": "val", "c": "train"}
    classifier: dict[str, splits.Split] = {"a": "train", "b": "test", "d": "test"}
    assert splits.most_seen(detector, classifier) == {"a": "train", "b": "val", "c": "train", "d": "test"}
    assert splits.most_seen({}, {}) == {}
