"""The report against a second implementation: masks stacked by hand, scores in loops, patients drawn one by one."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from typing import Any

import numpy as np
import pytest
import scans
import stacks

from lungjax.evaluation.segmentation import report, surface
from lungjax.evaluation.segmentation.tally import Tally
from lungjax.evaluation.stats import bootstrap

UNKNOWN = (math.nan, math.nan, math.nan)


def _at(found: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    who, *names = path
    place: Any = found if who == "model" else found[who]
    for name in names:
        place = place[name]
    return place


@pytest.fixture(scope="module")
def some() -> list[scans.Series]:
    return scans.several(8, patients=5)


@pytest.fixture(scope="module")
def tally(some: list[scans.Series]) -> Tally:
    return scans.tally_of(some)


def test_every_figure_and_interval_equals_drawing_patients_in_a_loop(some: list[scans.Series], tally: Tally):
    found = report.segmentation_figures(tally, resamples=12, seed=3)
    slices, nodules = stacks.slices(some), stacks.nodules(some)
    people = sorted({one.patient for one in some})
    drawn = defaultdict(list)
    for times in bootstrap.resample_weights(len(people), resamples=12, seed=3):
        sample = [person for person, often in zip(people, times, strict=True) for _ in range(often)]
        parts = ([stack for person in sample for stack in of if stack.patient == person] for of in (slices, nodules))
        for path, value in stacks.figures(*parts).items():
            drawn[path].append(value)
    expected = stacks.figures(slices, nodules)
    assert len(expected) == 2 * (5 + 5 + 10 + 10 + 5 + 9 + 9 + 3)
    for path, value in expected.items():
        figure = _at(found, path)
        low, high = np.nanpercentile(drawn[path], [2.5, 97.5])
        np.testing.assert_allclose(
            [figure["value"], figure["low"], figure["high"]], [value, low, high], err_msg=str(path)
        )
    assert (found["patients"], found["slices"], found["nodules"]) == (len(people), len(slices), len(nodules))
    assert found["slices_marked"] == sum(stacks.votes(stack.readers).any() for stack in slices) < len(slices)
    assert found["nodules_marked"] == sum(stacks.votes(stack.readers).any() for stack in nodules) < len(nodules)


def test_hd95_tells_how_many_it_leaves_out(some: list[scans.Series], tally: Tally):
    found = report.segmentation_figures(tally, resamples=2)
    slices = stacks.slices(some)
    agreed = [stack for stack in slices if stacks.votes(stack.readers).any()]
    missed = [not stack.prediction.any() for stack in agreed]
    assert found["per_slice"]["hd95_mm"]["left_out"] == sum(missed) > 0
    out = [not (r.mask.any() and r.reference.any()) for stack in agreed for r in stack.raters["readers"]]
    assert found["readers"]["per_slice"]["hd95_mm"]["left_out"] == sum(out)
    each = [not r.mask.any() for stack in slices for r in stack.raters["model each"] if r.reference.any()]
    assert found["against_readers"]["per_slice"]["hd95_mm"]["left_out"] == sum(each)


def test_without_spacing_distances_are_null_and_all_else_stays(some: list[scans.Series], tally: Tally):
    bare = report.segmentation_figures(scans.tally_of(some, spacing_mm=UNKNOWN), resamples=20)
    full = report.segmentation_figures(tally, resamples=20)
    for kind in ("per_slice", "per_nodule"):
        nothing = {"value": None, "low": None, "high": None}
        assert bare[kind]["hd95_mm"] == nothing | {"left_out": 0}
        assert bare[kind]["surface_dice_1mm"] == nothing
        assert {n: v for n, v in bare[kind].items() if n not in surface.NAMES} == {
            n: v for n, v in full[kind].items() if n not in surface.NAMES
        }
    json.dumps(bare, allow_nan=False)


def test_differences_are_paired(some: list[scans.Series], tally: Tally):
    rng = np.random.default_rng(1)
    worse = [
        scans.Series(
            one.patient, one.name, one.marks, one.prediction ^ (rng.random(scans.SHAPE) < 0.02), one.probability
        )
        for one in some
    ]
    other = scans.tally_of(worse)
    found = report.segmentation_figures(tally, other, resamples=200, seed=7)
    alone = report.segmentation_figures(other, resamples=200, seed=7)
    for section in ("pooled", "pooled_own", "per_slice", "per_nodule", "against_readers", "ged", "reliability"):
        assert found["against"][section] == alone[section]
    difference = found["against"]["difference"]["pooled"]["dice"]
    ours, theirs = found["pooled"]["dice"], found["against"]["pooled"]["dice"]
    assert difference["value"] == pytest.approx(ours["value"] - theirs["value"])
    people = sorted({one.patient for one in some})
    counts = np.zeros((2, len(people), 3))  # By hand: true positives and sizes of both, of each patient.
    for side, group in enumerate((some, worse)):
        for one in group:
            truth = stacks.votes(one.readers)
            prediction = one.prediction
            counts[side, people.index(one.patient)] += (prediction & truth).sum(), prediction.sum(), truth.sum()
    sums = np.tensordot(bootstrap.resample_weights(len(people), resamples=200, seed=7), counts, axes=(1, 1))
    dice = 2 * sums[..., 0] / (sums[..., 1] + sums[..., 2])
    low, high = np.percentile(dice[:, 0] - dice[:, 1], [2.5, 97.5])
    np.testing.assert_allclose([difference["low"], difference["high"]], [low, high])
    assert "difference" in found["conventions"]
    json.dumps(found, allow_nan=False)


def test_a_model_against_itself_differs_nowhere(tally: Tally):
    difference = report.segmentation_figures(tally, tally, resamples=50)["against"]["difference"]
    assert difference["pooled"]["dice"] == {"value": 0, "low": 0, "high": 0}
    assert difference["ged"]["16"] == {"value": 0, "low": 0, "high": 0}


def test_models_of_different_slices_are_not_compared(some: list[scans.Series], tally: Tally):
    with pytest.raises(ValueError, match="pooled: the two models were not scored on the same slices"):
        report.segmentation_figures(tally, scans.tally_of(some[1:]), resamples=2)


def test_samples_are_scored_apart_from_the_mask(some: list[scans.Series], tally: Tally):
    """A hundred samples that are all the prediction are as far from the readers as it is; empty ones are not."""
    alone = report.segmentation_figures(tally, resamples=2)["ged"]
    for threshold in (0.5, 1.0):  # A probability is below 0.3 where nothing is predicted, above 0.7 where there is.
        same = scans.tally_of(some, thresholds=np.full(100, threshold))
        found = report.segmentation_figures(same, resamples=2)["ged"]
        assert found["one_mask"] == alone["one_mask"]
        for number in ("16", "100"):
            assert (found[number]["value"] == pytest.approx(alone["one_mask"]["value"])) == (threshold < 1)


def test_each_slot_stands_beside_the_mean(tally: Tally):
    dice = report.segmentation_figures(tally, resamples=2)["readers"]["pooled"]["dice"]
    assert len(dice["each"]) == 4
    assert dice["value"] == pytest.approx(np.mean(dice["each"]))
    assert "each" not in report.segmentation_figures(tally, resamples=2)["readers"]["against_readers"]["pooled"]["dice"]


def test_the_slot_of_a_reading_does_not_matter_against_each_reader(some: list[scans.Series], tally: Tally):
    rng = np.random.default_rng(0)
    shuffled = [
        scans.Series(one.patient, one.name, one.marks[:, rng.permutation(4)], one.prediction, one.probability)
        for one in some
    ]
    a, b = (
        report.segmentation_figures(tally, resamples=9),
        report.segmentation_figures(scans.tally_of(shuffled), resamples=9),
    )
    for kind in ("pooled", "per_slice", "per_nodule"):
        for name, figure in a["against_readers"][kind].items():
            assert b["against_readers"][kind][name] == pytest.approx(figure)
            assert b["readers"]["against_readers"][kind][name] == pytest.approx(
                a["readers"]["against_readers"][kind][name]
            )


def test_one_reader_is_the_truth_and_there_are_no_others(some: list[scans.Series]):
    found = report.segmentation_figures(scans.tally_of(some, readers=1), resamples=20)
    masks = [(one.prediction, one.readers[0]) for one in some]
    flat = [np.concatenate([pair[side].ravel() for pair in masks]) for side in (0, 1)]
    assert found["pooled"]["dice"]["value"] == pytest.approx(stacks.score(*flat)["dice"])
    assert found["readers"] is None
    assert "ged" not in found
    assert "against_readers" not in found
    assert found["conventions"]["scores"] == report.AGAINST_ONE_READER
    json.dumps(found, allow_nan=False)


def test_one_patient_has_values_and_no_interval():
    some = scans.several(3, patients=1)
    found = report.segmentation_figures(scans.tally_of(some))
    assert found["pooled"]["dice"]["value"] > 0
    assert found["pooled"]["dice"]["low"] is found["pooled"]["dice"]["high"] is None
    assert found["interval"].startswith("none: one patient")
    json.dumps(found, allow_nan=False)


def test_nothing_marked_anywhere_is_null_per_slice():
    bare = [
        scans.Series(
            f"P{n}", f"S{n}", np.zeros((2, 4, *scans.SHAPE), bool), np.zeros(scans.SHAPE, bool), np.zeros(scans.SHAPE)
        )
        for n in range(3)
    ]
    found = report.segmentation_figures(scans.tally_of(bare))
    nothing = {"value": None, "low": None, "high": None}
    assert found["per_slice"]["dice"] == found["per_nodule"]["dice"] == found["ged"]["16"] == nothing
    assert found["per_slice"]["dice_all"] == {"value": 1, "low": 1, "high": 1}
    assert found["pooled"]["dice"]["value"] == 1
    assert found["nodules"] == found["slices_marked"] == 0
    assert found["reliability"]["ece"]["value"] == 0
    assert found["reliability"]["ece_from_0.05"] == nothing
    json.dumps(found, allow_nan=False)


def test_no_slices_are_an_error():
    with pytest.raises(ValueError, match="no slices to score"):
        report.segmentation_figures(Tally())
