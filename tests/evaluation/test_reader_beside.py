"""One reader against the others, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from lungjax.evaluation.classification import binary_scores, one_reader


def test_readings_by_hand():
    malignancy = np.array(
        [
            [5, 0, 0, 0],  # Nobody to be held against.
            [2, 4, 0, 0],  # 2 against 4, 4 against 2.
            [0, 0, 0, 0],
            [1, 3, 0, 5],  # 1 against 4; 3 against 3, which is neither; 5 against 2.
            [4, 4, 3, 2],  # 4 against 3, twice; 3 against 4; 2 against 4.
        ]
    )
    nodules, ratings, above = one_reader.readings(malignancy)
    assert list(zip(nodules.tolist(), ratings.tolist(), above.tolist(), strict=True)) == [
        (1, 2, True),
        (1, 4, False),
        (3, 1, True),
        (3, 5, False),
        (4, 3, True),
        (4, 2, True),
    ]


def test_the_model_and_the_reader_are_scored_on_the_same_readings():
    rng = np.random.default_rng(0)
    truth = rng.integers(1, 6, 80)
    malignancy = np.clip(truth[:, None] + rng.integers(-1, 2, (80, 4)), 1, 5)
    malignancy[rng.random((80, 4)) < 0.3] = 0
    probability = np.clip(truth / 5 + rng.normal(0, 0.05, 80), 0, 1)
    patients = [f"P{number // 2}" for number in range(80)]
    found = one_reader.reader_figures(malignancy, probability, patients)
    assert found is not None
    pairs = []
    for nodule in range(80):
        for reader in range(4):
            others = [one for place, one in enumerate(malignancy[nodule]) if place != reader and one]
            if malignancy[nodule, reader] and others and np.median(others) != 3:
                pairs.append((np.median(others) > 3, malignancy[nodule, reader], probability[nodule], nodule))
    labels, ratings, scores, nodules = (np.array(column) for column in zip(*pairs, strict=True))
    assert (found["readings"], found["rated"]) == (len(pairs), len(set(nodules.tolist())))
    theirs = found["others"][one_reader.NAME]
    for scored, figures in ((scores, found), (ratings, theirs)):
        wanted = binary_scores.ranking(labels, scored.astype(float))[0]
        assert [figures[name]["value"] for name in binary_scores.RANKING] == pytest.approx(wanted.tolist())
    difference = theirs["difference"]["roc_auc"]
    assert difference["value"] == pytest.approx(found["roc_auc"]["value"] - theirs["roc_auc"]["value"])
    assert difference["low"] < difference["value"] < difference["high"]
    assert "ece" not in found


def test_without_a_second_reader_there_is_nothing():
    assert one_reader.reader_figures(np.eye(4, dtype=int) * 4, np.full(4, 0.5), list("abcd")) is None
