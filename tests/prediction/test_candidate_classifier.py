"""A candidate's probability: that of the task itself, however many others there are; and its place in a prediction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import chests
import networks
import numpy as np
import pytest

import lungjax
from lungjax.errors import InputError
from lungjax.prediction import detection, patches
from lungjax.prediction.candidate_classifier import CandidateClassifier
from lungjax.prediction.candidates import Candidate
from lungjax.tasks import sift
from lungjax.train import calibrate
from lungjax.train.trained import Trained, open_trained


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return open_trained(networks.made("sift", tmp_path_factory.mktemp("models") / "sift"))


def stacks(number: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:96, :96] - 48
    radius_px = np.linspace(3, 20, number)[:, None, None, None]
    return np.where(np.hypot(y, x) < radius_px, 40, -850) + rng.normal(0, 30, (number, 3, 96, 96))


def test_it_is_the_tasks_own_logit_calibrated(trained: Trained):
    hu, pixel_mm = stacks(5), np.linspace(0.6, 0.8, 5)
    outputs = sift.make_candidate_classifier(trained.config)(
        trained.variables["params"],
        trained.variables["model_state"],
        hu.astype(np.float32),
        pixel_mm.astype(np.float32),
    )
    expected = calibrate.probability(np.asarray(outputs["logit"]), trained.calibration)
    classifier = CandidateClassifier(trained)
    np.testing.assert_allclose(classifier.predict(hu, pixel_mm), expected, atol=1e-5)
    assert trained.calibration["slope"] != 1


def test_others_in_the_batch_change_nothing(trained: Trained):
    hu, classifier = stacks(40), CandidateClassifier(trained)
    every = classifier.predict(hu, 0.7)
    np.testing.assert_array_equal(classifier.predict(hu[7:8], 0.7), every[7:8])
    assert classifier.predict(hu[:0], 0.7).shape == (0,)


@pytest.mark.parametrize(
    ("hu", "says"),
    [
        (np.zeros((2, 96, 96)), r"it must be \(candidates, planes, rows, columns\)"),
        (np.zeros((2, 5, 96, 96)), r"it must be \(candidates, 3, rows, columns\)"),
        (np.full((1, 3, 96, 96), np.nan), "hu holds NaN"),
    ],
)
def test_mistakes(trained: Trained, hu: np.ndarray, says: str):
    with pytest.raises(InputError, match=says):
        CandidateClassifier(trained).predict(hu, 0.7)


def test_another_task_is_refused(trained: Trained):
    with pytest.raises(InputError, match="is a network of the task 'segment', no candidate classifier"):
        CandidateClassifier(chests.untrained(Path("m")))


class Larger:
    """Stands for a classifier: the larger ball is a nodule, the other is none."""

    def __init__(self, trained: Trained):
        self.trained = trained
        self.given: list[tuple[np.ndarray, np.ndarray]] = []

    def predict(self, hu: np.ndarray, pixel_mm: np.ndarray) -> np.ndarray:
        self.given.append((hu, pixel_mm))
        wide = (hu[:, 1, 38:58, 38:58] > -300).sum(axis=(1, 2))
        return np.where(wide == wide.max(), 0.9, 0.05)


def told() -> Any:
    """More sure of the smaller ball than of the larger one."""
    first, second = (chests.ball(*ball) for ball in chests.BALLS)
    probability = np.select([first, second], [0.6, 0.95], 0.0)
    return chests.Told([(chests.chest(), probability)], chests.untrained(Path("m")))


def test_scores_and_nodules_follow_the_classifier(trained: Trained):
    network, classifier = told(), Larger(trained)
    alone = detection.detect(chests.scan(), network.trained, network, classifier=None, threshold=0.5)
    sifted: Any = classifier
    found = detection.detect(chests.scan(), network.trained, network, classifier=sifted, threshold=0.5)
    assert [len(alone.nodules), len(alone.candidates)] == [2, 0]
    assert [len(found.nodules), len(found.candidates)] == [1, 1]
    np.testing.assert_array_equal(found.nodules[0].voxels, alone.nodules[1].voxels)
    assert (found.nodules[0].score, found.candidates[0].score) == (0.9, 0.05)
    ((hu, pixel_mm),) = classifier.given
    assert hu.shape == (2, 3, patches.STACK_PX, patches.STACK_PX)
    np.testing.assert_array_equal(pixel_mm, 2.5)


def test_neighbours_are_as_far_away_as_in_training():
    voxels = np.array([(5, 30, 30), (5, 30, 31)])
    candidate = Candidate(voxels, 0.5, 1.0, 1.0, 1.0, 5, 0.0)
    hu = np.repeat(np.arange(12, dtype=np.int16), 60 * 60).reshape(12, 60, 60)
    for slice_mm, planes in (
        (1.25, (3, 5, 7)),
        (2.5, (4, 5, 6)),
        (0.6, (1, 5, 9)),
        (5.0, (5, 5, 5)),
        (np.nan, (4, 5, 6)),
    ):
        stack = patches.cut_stacks(hu, [candidate], slice_mm)[0]
        assert tuple(stack[:, 48, 48].tolist()) == planes
    top = Candidate(voxels + np.array([6, 0, 0]), 0.5, 1.0, 1.0, 1.0, 11, 0.0)
    assert patches.cut_stacks(hu, [top], 2.5)[0][:, 48, 48].tolist() == [10, 11, 11]


def test_the_patients_probability_counts_candidates_by_their_probability():
    """Two candidates that are surely none give no more than the chance that one of them is a nodule."""
    classifier = lungjax.load("patient-classifier")
    hu = np.clip(stacks(2)[:, 1, 12:83, 12:83], -1024, 3071).astype(np.int16)[None]
    sure = classifier.predict(hu, 0.7)
    np.testing.assert_array_equal(classifier.predict(hu, 0.7, np.ones((1, 2))).probability, sure.probability)
    unsure = classifier.predict(hu, 0.7, np.array([[0.1, 0.02]]))
    assert 0 < unsure.probability[0] <= 1 - 0.9 * 0.98
    assert unsure.attention.sum() == pytest.approx(1)
    alone, both = np.array([0.1 * 0.98, 0.9 * 0.02]), 0.1 * 0.02 * sure.attention[0]
    np.testing.assert_allclose(unsure.attention[0], (alone + both) / (1 - 0.9 * 0.98), rtol=1e-3)
    with pytest.raises(InputError, match="not from 0 to 1"):
        classifier.predict(hu, 0.7, np.array([[1.2, 0.5]]))
