"""The patient's answer from nodules that were found: that of the task itself, whatever fills the bag up."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import chests
import jax.numpy as jnp
import numpy as np
import pytest

from lungjax.errors import InputError
from lungjax.prediction import patient_classifier
from lungjax.tasks import diagnose
from lungjax.train import mesh
from lungjax.train.trained import Trained, open_trained


@pytest.fixture(scope="module")
def shipped() -> Trained:
    return open_trained(Path("patient"))


@pytest.fixture(scope="module")
def diagnoser(shipped: Trained) -> patient_classifier.PatientClassifier:
    return patient_classifier.PatientClassifier(shipped)


def nodules(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Disks of several sizes and densities in lung, and spacings."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:71, :71] - 35
    radius_px = np.linspace(3, 14, number)[:, None, None]
    hu = np.where(np.hypot(y, x) < radius_px, 40, -850) + rng.normal(0, 30, (number, 71, 71))
    return hu.astype(np.int16), np.linspace(0.55, 0.9, number)


def test_it_is_the_tasks_own_answer(shipped: Trained, diagnoser: patient_classifier.PatientClassifier):
    hu, spacing_mm = nodules(3)
    given = np.zeros((1, 8, 71, 71), np.int16)  # Filled up with nothing, where the diagnoser repeats nodules.
    given[0, :3] = hu
    batch = {
        "image": jnp.array(given),
        "spacing_mm": jnp.array([[*spacing_mm, *[0.7] * 5]], jnp.float32),
        "inside": jnp.array([[1.0] * 3 + [0.0] * 5], jnp.float32),
    }
    task = diagnose.make(shipped.config, intensity="hu", readers=4, mesh=mesh.make_mesh(8))
    predicted = task.predict(shipped.variables["params"], shipped.variables["model_state"], batch)
    logit, attention = float(predicted["logit"][0]), np.asarray(predicted["attention"])[0]
    line = shipped.calibration
    answer = diagnoser(hu, spacing_mm)
    assert answer.probability == pytest.approx(1 / (1 + np.exp(-line["slope"] * logit - line["offset"])), abs=1e-4)
    np.testing.assert_allclose(answer.attention, attention[:3], atol=1e-4)
    assert answer.attention.sum() == pytest.approx(1, abs=1e-5)
    assert np.ptp(answer.attention) > 0.05
    turned = diagnoser(hu[::-1], spacing_mm[::-1])
    assert turned.probability == pytest.approx(answer.probability, abs=1e-4)
    np.testing.assert_allclose(turned.attention[::-1], answer.attention, atol=1e-4)


def test_of_too_many_the_first_are_looked_at(shipped: Trained, diagnoser: patient_classifier.PatientClassifier):
    hu, spacing_mm = nodules(10)
    answer = diagnoser(hu, spacing_mm)
    assert answer.probability == pytest.approx(diagnoser(hu[:8], spacing_mm[:8]).probability)
    told = patient_classifier.answered(answer, range(1, 11), shipped, patient_id="LIDC-IDRI-0003")
    assert [one["number"] for one in told["attention"]] == list(range(1, 9))
    assert told["limits"][0] == "Of 10 nodules it looked at the 8 with the highest score."
    assert not [said for said in told["limits"] if "trained with" in said]
    own = next(one for one, split in shipped.patients.items() if split == "train")
    assert "trained with" in patient_classifier.answered(answer, range(1, 11), shipped, patient_id=own)["limits"][1]
    assert told["calibration"] == pytest.approx(shipped.calibration, abs=1e-4)
    assert told.keys() == patient_classifier.unanswered("").keys()
    assert any("nodules that readers had marked. Here" in one for one in told["limits"])
    labelled = shipped.config.copy_and_resolve_references()
    labelled.data.labels = "findings.csv"
    told = patient_classifier.answered(
        answer, range(1, 11), dataclasses.replace(shipped, config=labelled), patient_id="A"
    )
    assert "as the model's training data has labels" in told["meaning"]
    assert any("lungjax gather" in one for one in told["limits"])


def test_mistakes(diagnoser: patient_classifier.PatientClassifier, tmp_path: Path):
    hu, spacing_mm = nodules(2)
    for wrong in ((hu[:0], spacing_mm[:0]), (hu[0], spacing_mm), (hu, spacing_mm[:1]), (hu, 0 * spacing_mm)):
        with pytest.raises(ValueError, match="one at least, and spacings"):
            diagnoser(*wrong)
    with pytest.raises(InputError, match="'segment', which gives no answer"):
        patient_classifier.PatientClassifier(chests.untrained(tmp_path))
