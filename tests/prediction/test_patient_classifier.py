"""A patient's probability from nodules: that of the task itself, whatever fills up the array."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from pathlib import Path
from typing import Any

import chests
import jax.numpy as jnp
import numpy as np
import pytest

from lungjax.errors import InputError
from lungjax.prediction import patient_classifier, prevalence
from lungjax.prediction.patient_classifier import PatientClassifier
from lungjax.tasks import diagnose
from lungjax.train import mesh
from lungjax.train.trained import Trained, open_trained


@pytest.fixture(scope="module")
def shipped() -> Trained:
    return open_trained(Path("patient-classifier"))


@pytest.fixture(scope="module")
def classifier(shipped: Trained) -> PatientClassifier:
    return PatientClassifier(shipped)


def nodules(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Disks of several sizes and densities in lung, and spacings."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:71, :71] - 35
    radius_px = np.linspace(3, 14, number)[:, None, None]
    hu = np.where(np.hypot(y, x) < radius_px, 40, -850) + rng.normal(0, 30, (number, 71, 71))
    return hu.astype(np.int16), np.linspace(0.55, 0.9, number)


def test_it_is_the_tasks_own_prediction(shipped: Trained, classifier: PatientClassifier):
    hu, pixel_mm = nodules(3)
    given = np.zeros((1, 8, 71, 71), np.int16)  # Filled up with nothing, where the classifier repeats nodules.
    given[0, :3] = hu
    batch = {
        "image": jnp.array(given),
        "spacing_mm": jnp.array([[*pixel_mm, *[0.7] * 5]], jnp.float32),
        "inside": jnp.array([[1.0] * 3 + [0.0] * 5], jnp.float32),
    }
    task = diagnose.make(shipped.config, intensity="hu", readers=4, mesh=mesh.make_mesh(8))
    outputs = task.predict(shipped.variables["params"], shipped.variables["model_state"], batch)
    logit, attention = float(outputs["logit"][0]), np.asarray(outputs["attention"])[0]
    line = shipped.calibration
    predicted = classifier.predict(hu[None], pixel_mm[None])
    wanted = 1 / (1 + np.exp(-line["slope"] * logit - line["offset"]))
    assert predicted.probability == pytest.approx([wanted], abs=1e-4)
    np.testing.assert_allclose(predicted.attention, [attention[:3]], atol=1e-4)
    assert predicted.attention.sum() == pytest.approx(1, abs=1e-5)
    assert np.ptp(predicted.attention) > 0.05
    turned = classifier.predict(hu[None, ::-1], pixel_mm[None, ::-1])
    assert turned.probability == pytest.approx(predicted.probability, abs=1e-4)
    np.testing.assert_allclose(turned.attention[:, ::-1], predicted.attention, atol=1e-4)


def test_a_batch_of_patients_is_each_of_them(classifier: PatientClassifier):
    """Whatever fills up the array, and wherever the nodules that are there lie in it."""
    hu, pixel_mm = nodules(5)
    present = np.array([[1, 1, 1, 1, 1], [0, 1, 0, 1, 0], [0, 0, 0, 0, 1]], bool)
    batch, batch_mm = np.repeat(hu[None], 3, axis=0), np.repeat(pixel_mm[None], 3, axis=0)
    batch[1, 0], batch[2, :4] = 3000, -1000
    predicted = classifier.predict(batch, batch_mm, present)
    for patient, there in enumerate(present):
        alone = classifier.predict(hu[None, there], pixel_mm[None, there])
        np.testing.assert_array_equal(predicted.probability[patient], alone.probability[0])
        np.testing.assert_array_equal(predicted.attention[patient, there], alone.attention[0])
        assert (predicted.attention[patient, ~there] == 0).all()
    nobody = classifier.predict(batch[:0], batch_mm[:0])
    assert (nobody.probability.shape, nobody.attention.shape) == ((0,), (0, 5))


def test_uncertain_nodules_are_summed_over(classifier: PatientClassifier):
    """By the law of total probability, over what may be there."""
    hu, pixel_mm = nodules(3)
    sure = np.array([1.0, 0.3, 0.9])

    def alone(*numbers: int) -> float:
        return classifier.predict(hu[None, numbers], pixel_mm[None, numbers]).probability[0]

    wanted = 0.7 * 0.1 * alone(0) + 0.3 * 0.1 * alone(0, 1) + 0.7 * 0.9 * alone(0, 2) + 0.3 * 0.9 * alone(0, 1, 2)
    predicted = classifier.predict(hu[None], pixel_mm[None], sure[None])
    assert predicted.probability == pytest.approx([wanted], abs=1e-6)
    assert predicted.attention.sum() == pytest.approx(1, abs=1e-6)
    doubtful = classifier.predict(hu[None, :2], pixel_mm[None, :2], np.array([[0.02, 0.01]]))
    either = 0.02 * 0.99 * alone(0) + 0.98 * 0.01 * alone(1) + 0.02 * 0.01 * alone(0, 1)
    assert doubtful.probability == pytest.approx([either], rel=0.01)
    np.testing.assert_array_equal(
        classifier.predict(hu[None], pixel_mm[None], np.ones((1, 3))).probability,
        classifier.predict(hu[None], pixel_mm[None]).probability,
    )


def test_any_set_is_predicted_from_each_nodule_alone(classifier: PatientClassifier, monkeypatch: pytest.MonkeyPatch):
    """As by asking the network for every set, which takes 255 calls for eight nodules."""
    hu, pixel_mm = nodules(8)
    certainty = np.array([0.9, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.02])
    forward = classifier._forward  # pyright: ignore[reportPrivateUsage]
    wanted, attended = 0.0, np.zeros(8)
    for there in np.array(list(itertools.product([False, True], repeat=8)))[1:]:
        probability, attention = forward(hu[None].astype(np.float32), pixel_mm[None], there[None].astype(np.float32))
        weight = np.where(there, certainty, 1 - certainty).prod()
        wanted, attended = wanted + weight * probability[0], attended + weight * attention[0]
    calls: list[int] = []
    monkeypatch.setattr(classifier, "_forward", lambda *given: calls.append(1) or forward(*given))
    predicted = classifier.predict(hu[None], pixel_mm[None], certainty[None])
    assert len(calls) == 9
    assert predicted.probability == pytest.approx([wanted], abs=1e-6)
    assert predicted.attention[0] == pytest.approx(attended / attended.sum(), abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_the_likeliest_sets_are_found_in_order(seed: int):
    """As by looking at every set."""
    sets_of = patient_classifier._likely_sets  # pyright: ignore[reportPrivateUsage]
    rng = np.random.default_rng(seed)
    certainty = rng.choice([1.0, 0.5, 0.9, 0.02, rng.random(), rng.random()], size=7)
    every = np.array(list(itertools.product([False, True], repeat=7)))[1:]
    weights = np.where(every, certainty, 1 - certainty).prod(axis=1)
    found = sets_of(certainty)
    assert {tuple(one) for _, one in found} == {tuple(one) for one in every[weights > 0]}
    likely = np.sort(weights[weights > 0])[::-1]
    assert [weight for weight, _ in found] == pytest.approx(likely / likely.sum())


def test_sets_of_very_many_nodules_are_bounded():
    found = patient_classifier._likely_sets(np.linspace(0.4, 0.6, 64))  # pyright: ignore[reportPrivateUsage]
    assert len(found) == 256
    weights = [weight for weight, _ in found]
    np.testing.assert_allclose(weights, sorted(weights, reverse=True), rtol=1e-12)
    assert sum(weights) == pytest.approx(1)


def test_of_too_many_the_first_are_looked_at(shipped: Trained, classifier: PatientClassifier):
    hu, pixel_mm = nodules(10)
    predicted = classifier.predict(hu[None], pixel_mm[None])
    assert classifier.most_nodules == 8
    np.testing.assert_array_equal(
        predicted.probability, classifier.predict(hu[None, :8], pixel_mm[None, :8]).probability
    )
    np.testing.assert_array_equal(predicted.attention[0, 8:], 0)
    given = predicted.probability[0], predicted.attention[0].tolist(), range(1, 11)
    lidc = prevalence.resolve("lidc", shipped.calibration, model="m")
    describe = functools.partial(patient_classifier.describe, *given, prevalence=lidc, kept=10)
    patient = describe(shipped, patient_id="LIDC-IDRI-0003")
    assert patient.probability == predicted.probability[0]
    assert lidc.sentence() in patient.limits
    assert list(patient.attention) == list(range(1, 9))
    assert patient.limits[0] == "Of 10 nodules and candidates it looked at the 8 with the highest score."
    assert not [limit for limit in patient.limits if "was trained on, or" in limit]
    own = next(one for one, split in shipped.patients.items() if split == "train")
    assert "was trained on, or" in describe(shipped, patient_id=own).limits[1]
    assert patient.calibration == shipped.calibration
    assert any("nodules that readers had marked. Here" in limit for limit in patient.limits)
    labelled = shipped.config.copy_and_resolve_references()
    labelled.data.labels = "predicted.csv"
    other = describe(dataclasses.replace(shipped, config=labelled), patient_id="A")
    assert "as the model's training data has labels" in str(other.meaning)
    assert any("lungjax gather" in limit for limit in other.limits)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"hu": np.zeros((2, 71, 71))}, r"it must be \(patients, nodules, rows, columns\)"),
        ({"hu": np.zeros((1, 0, 71, 71))}, r"hu has shape \(1, 0, 71, 71\)"),
        ({"hu": np.full((1, 2, 71, 71), np.nan)}, "NaN"),
        ({"pixel_mm": np.array([0.7])}, r"pixel_mm has shape \(1,\)"),
        ({"pixel_mm": 0.0}, "not above 0"),
        ({"present": np.array([True])}, r"present has shape \(1,\)"),
        ({"present": np.array([[False, False]])}, "patient 0 of hu has no nodule"),
    ],
)
def test_mistakes(classifier: PatientClassifier, changed: dict[str, Any], says: str):
    hu, pixel_mm = nodules(2)
    with pytest.raises(InputError, match=says):
        classifier.predict(**{"hu": hu[None], "pixel_mm": pixel_mm[None], **changed})


def test_a_network_of_another_task(tmp_path: Path):
    with pytest.raises(InputError, match="'segment', no patient classifier"):
        PatientClassifier(chests.untrained(tmp_path))
