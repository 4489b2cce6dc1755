"""Scores against hand-made masks and against loops over single pixels; the report against drawing by hand."""

from __future__ import annotations

import io
import json
import zipfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from lungjax.evaluate import bootstrap, segmentation

BITS = hnp.arrays(np.uint8, st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4)))


def test_majority_counts_the_bits():
    readers = np.array([[[0b0000, 0b0001, 0b0011], [0b1010, 0b0111, 0b1111]]], np.uint8)
    np.testing.assert_array_equal(segmentation.majority(readers), [[[False, False, True], [True, True, True]]])
    np.testing.assert_array_equal(segmentation.majority(readers, readers=2), segmentation.majority(readers))
    alone = segmentation.majority(readers, readers=1)
    np.testing.assert_array_equal(alone, [[[False, True, True], [True, True, True]]])


def test_counts_and_scores_by_hand():
    prediction = np.array([[[1, 1, 1, 0]], [[0, 0, 0, 0]]], bool)
    target = np.array([[[1, 1, 0, 1]], [[0, 0, 0, 0]]], bool)
    counts = segmentation.counts(prediction, target)
    np.testing.assert_array_equal(counts, [[2, 1, 1, 0], [0, 0, 0, 4]])
    assert counts.dtype == np.int64
    scores = segmentation.scores(counts)
    # Slice 0: dice 4/6, iou 2/4, precision 2/3, recall 2/3, accuracy 2/4. Slice 1: two empty masks agree.
    np.testing.assert_allclose(scores["dice"], [2 / 3, 1])
    np.testing.assert_allclose(scores["iou"], [1 / 2, 1])
    np.testing.assert_allclose(scores["precision"], [2 / 3, 1])
    np.testing.assert_allclose(scores["recall"], [2 / 3, 1])
    np.testing.assert_allclose(scores["accuracy"], [1 / 2, 1])


@pytest.mark.parametrize("counts", [(0, 0, 5, 11), (0, 5, 0, 11)], ids=["nothing predicted", "nothing there"])
def test_one_empty_mask_scores_zero(counts: tuple[int, ...]):
    scores = segmentation.scores(np.array(counts))
    assert [float(scores[s]) for s in segmentation.SCORES] == [0, 0, 0, 0, 11 / 16]


@settings(max_examples=60, deadline=None)
@given(BITS)
def test_reader_counts_match_a_loop_over_pixels(readers: np.ndarray):
    expected = np.zeros((4, len(readers), 4), np.int64)
    for (n, *_), bits in np.ndenumerate(readers):
        marks = [(int(bits) >> bit) & 1 for bit in range(8)]
        for slot in range(4):
            reference = sum(marks) - marks[slot] >= 2
            expected[slot, n, {(1, True): 0, (1, False): 1, (0, True): 2, (0, False): 3}[marks[slot], reference]] += 1
    np.testing.assert_array_equal(segmentation.reader_counts(readers), expected)


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.int64, st.tuples(st.integers(1, 6), st.just(4)), elements=st.integers(0, 9)))
def test_scores_hold_their_identities(counts: np.ndarray):
    scores = segmentation.scores(counts)
    swapped = segmentation.scores(counts[:, [0, 2, 1, 3]])  # Prediction and target change places.
    assert all(((value >= 0) & (value <= 1)).all() for value in scores.values())
    np.testing.assert_allclose(scores["iou"], scores["dice"] / (2 - scores["dice"]))
    np.testing.assert_allclose(scores["precision"], swapped["recall"])
    np.testing.assert_allclose(scores["dice"], swapped["dice"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: segmentation.counts(np.zeros((1, 2, 2)), np.zeros((1, 2, 2), bool)), "must be bool"),
        (lambda: segmentation.counts(np.zeros((1, 2, 2), bool), np.zeros((1, 2, 3), bool)), r"\(1, 2, 3\)"),
        (lambda: segmentation.majority(np.zeros((1, 2, 2), np.int64)), "uint8 bits, got int64"),
        (lambda: _report(np.zeros((0, 4)), np.zeros((4, 0, 4)), []), "0 patient ids"),
        (lambda: _report(np.zeros((2, 4)), np.zeros((4, 3, 4)), ["a", "b"]), r"\(4, 3, 4\)"),
        (lambda: _report(np.zeros((2, 4)), np.zeros((0, 2, 4)), ["a", "b"]), r"\(0, 2, 4\)"),
    ],
)
def test_wrong_input_says_what_came(call, message: str):
    with pytest.raises(ValueError, match=message):
        call()


def _report(model_counts, reader_counts, patients, **options):
    return segmentation.report(model_counts=model_counts, reader_counts=reader_counts, patients=patients, **options)


def _made_up(*, slices: int, patients: int, seed: int = 0):
    """Discs that readers see alike but for noise, and some slices nobody marked."""
    rng = np.random.default_rng(seed)
    row, column = np.mgrid[:12, :12] - 5.5
    radius = rng.uniform(-1, 5, (slices, 1, 1))
    masks = [np.hypot(row, column) < radius + rng.normal(0, 1, (slices, 1, 1)) for _ in range(5)]
    readers = sum((mask.astype(np.uint8) << bit for bit, mask in enumerate(masks[:4])), np.zeros(1, np.uint8))
    ids = [f"P{p:02d}" for p in rng.integers(0, patients, slices)]
    return (
        segmentation.counts(masks[4], segmentation.majority(readers)),
        segmentation.reader_counts(readers),
        ids,
    )


def _score(counts) -> dict[str, float]:
    """Second implementation: one slice or sum, in plain Python."""
    hit, false, missed, clear = (float(c) for c in counts)
    if hit + false + missed == 0:
        return {"dice": 1, "iou": 1, "precision": 1, "recall": 1, "accuracy": 1}
    return {
        "dice": 2 * hit / (2 * hit + false + missed),
        "iou": hit / (hit + false + missed),
        "precision": hit / (hit + false) if hit + false else 0,
        "recall": hit / (hit + missed) if hit + missed else 0,
        "accuracy": (hit + clear) / (hit + false + missed + clear),
    }


def _figures(model_counts, reader_counts, chosen) -> dict[tuple[str, str, str], float]:
    """Second implementation: every figure of the slices `chosen` (with repeats), by loops."""
    figures = {}
    marked = [n for n in chosen if model_counts[n][0] + model_counts[n][2] > 0]
    for who, raters in {"model": [model_counts], "readers": reader_counts}.items():
        found = defaultdict(list)
        for counts in raters:
            for name, value in _score(sum(counts[n] for n in chosen)).items():
                found["pooled", name].append(value)
            for name in segmentation.SCORES:
                found["per_slice", name].append(np.mean([_score(counts[n])[name] for n in marked]))
            found["per_slice", "dice_all"].append(np.mean([_score(counts[n])["dice"] for n in chosen]))
            own = [n for n in chosen if counts[n][0] + counts[n][2] > 0]
            found["per_slice", "dice_own"].append(np.mean([_score(counts[n])["dice"] for n in own]))
        figures |= {(who, *name): float(np.mean(values)) for name, values in found.items()}
    return figures


def test_report_equals_drawing_patients_in_a_loop():
    model_counts, reader_counts, ids = _made_up(slices=60, patients=9)
    report = _report(model_counts, reader_counts, ids, resamples=50, seed=3)
    people = sorted(set(ids))
    drawn = defaultdict(list)
    for times in bootstrap.draw(len(people), resamples=50, seed=3):
        sample = [p for p, often in zip(people, times, strict=True) for _ in range(often)]
        chosen = [n for p in sample for n in range(60) if ids[n] == p]
        for name, value in _figures(model_counts, reader_counts, chosen).items():
            drawn[name].append(value)
    for (who, kind, score), value in _figures(model_counts, reader_counts, range(60)).items():
        figure = (report if who == "model" else report["readers"])[kind][score]
        low, high = np.percentile(drawn[who, kind, score], [2.5, 97.5])
        np.testing.assert_allclose([figure["value"], figure["low"], figure["high"]], [value, low, high])
    assert (report["patients"], report["slices"]) == (len(people), 60)
    assert report["slices_marked"] == sum(counts[0] + counts[2] > 0 for counts in model_counts) < 60


def test_each_slot_stands_beside_the_mean():
    model_counts, reader_counts, ids = _made_up(slices=30, patients=5)
    dice = _report(model_counts, reader_counts, ids)["readers"]["pooled"]["dice"]
    expected = [_score(reader_counts[slot].sum(axis=0))["dice"] for slot in range(4)]
    np.testing.assert_allclose(dice["each"], expected)
    assert dice["value"] == pytest.approx(np.mean(expected))
    assert dice["low"] < dice["value"] < dice["high"]


def test_one_reader_has_no_others_and_changes_nothing_of_the_model():
    model_counts, reader_counts, ids = _made_up(slices=30, patients=5)
    alone, beside = _report(model_counts, None, ids), _report(model_counts, reader_counts, ids)
    assert alone["readers"] is None
    assert {name for name in beside if beside[name] != alone[name]} == {"readers", "conventions"}
    assert "readers is null" in alone["conventions"]


def test_order_of_slices_does_not_matter():
    model_counts, reader_counts, ids = _made_up(slices=40, patients=6)
    order = np.random.default_rng(1).permutation(40)
    a = _report(model_counts, reader_counts, ids)
    b = _report(model_counts[order], reader_counts[:, order], [ids[n] for n in order])
    assert a["pooled"] == b["pooled"]
    for score in a["per_slice"]:
        assert a["per_slice"][score] == pytest.approx(b["per_slice"][score])


def test_one_patient_has_values_and_no_interval():
    model_counts, reader_counts, _ = _made_up(slices=10, patients=1)
    report = _report(model_counts, reader_counts, ["P"] * 10)
    assert report["pooled"]["dice"]["value"] == pytest.approx(_score(model_counts.sum(axis=0))["dice"])
    assert report["pooled"]["dice"]["low"] is report["pooled"]["dice"]["high"] is None
    assert report["interval"].startswith("none: one patient")
    json.dumps(report, allow_nan=False)


def test_nothing_marked_anywhere_is_null_per_slice():
    empty = np.tile([0, 0, 0, 9], (4, 1))
    report = _report(empty, np.stack([empty] * 4), ["a", "a", "b", "c"])
    assert report["per_slice"]["dice"] == {"value": None, "low": None, "high": None}
    assert report["per_slice"]["dice_all"] == {"value": 1, "low": 1, "high": 1}
    assert report["pooled"]["dice"]["value"] == 1
    json.dumps(report, allow_nan=False)


def test_readers_of_all_real_slices_agree_as_published(real_data: Path):
    """The shared data's own README: slots score 0.64 to 0.74, on average 0.68, pooled over 12,471 slices."""
    counts = np.zeros((4, 4), np.int64)
    slices = 0
    with zipfile.ZipFile(real_data / "lidc-slices.zip") as archive:
        for name in archive.namelist():
            if "/mask-0/" not in name or not name.endswith(".png"):
                continue
            bits = np.zeros((1, 128, 128), np.uint8)
            for slot in range(4):
                mask = Image.open(io.BytesIO(archive.read(name.replace("/mask-0/", f"/mask-{slot}/"))))
                bits[0] |= (np.asarray(mask) > 0).astype(np.uint8) << slot
            counts += segmentation.reader_counts(bits)[:, 0]
            slices += 1
    dice = segmentation.scores(counts)["dice"]
    assert slices == 12471
    np.testing.assert_allclose(dice, [0.637, 0.712, 0.739, 0.638], atol=5e-4)
    assert dice.mean() == pytest.approx(0.681, abs=5e-4)
