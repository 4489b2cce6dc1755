"""The patient's probability for another prevalence: Bayes' rule, held against its properties and a simulation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lungjax import cli
from lungjax.errors import InputError
from lungjax.prediction import prevalence
from lungjax.prediction.prevalence import Prevalence
from lungjax.train import calibrate, trained

PROBABILITIES = (0.0, 1e-9, 0.02, 0.3, 0.7, 0.999, 1.0)


def moved(probability: float, *, fitted: float, share: float) -> float:
    return Prevalence("stated", share, fitted).shifted(probability)


@pytest.mark.parametrize("fitted", [0.05, 0.7])
def test_bayes_rule(fitted: float):
    """Nothing changes at the fitted share; it is monotone in both; there and back is where it began; odds scale."""
    np.testing.assert_allclose([moved(p, fitted=fitted, share=fitted) for p in PROBABILITIES], PROBABILITIES)
    shares = (0.001, 0.011, 0.2, 0.6, 0.99)
    table = np.array([[moved(p, fitted=fitted, share=share) for p in PROBABILITIES] for share in shares])
    assert (np.diff(table, axis=1) > 0).all()
    assert (np.diff(table[:, 1:-1], axis=0) > 0).all()
    assert (table[:, 0] == 0).all()
    assert (table[:, -1] == 1).all()
    for row, share in zip(table, shares, strict=True):
        np.testing.assert_allclose([moved(p, fitted=share, share=fitted) for p in row], PROBABILITIES)
        ratio = share / (1 - share) / (fitted / (1 - fitted))
        inner = np.array(PROBABILITIES[1:-1])
        np.testing.assert_allclose(row[1:-1] / (1 - row[1:-1]), inner / (1 - inner) * ratio, rtol=1e-6)


def test_it_is_what_a_population_of_that_prevalence_shows():
    """Scores of two Gaussians: a classifier that is right among 70 % positives is, moved, right among 5 %."""
    rng, fitted, share = np.random.default_rng(0), 0.7, 0.05
    positive = rng.random(400_000) < share
    score = rng.normal(np.where(positive, 1.0, -1.0), 1.5)
    logit = 2 * score / 1.5**2 + np.log(fitted / (1 - fitted))
    fitted_probability = 1 / (1 + np.exp(-logit))
    probability = np.array([moved(p, fitted=fitted, share=share) for p in fitted_probability])
    for low, high in ((0.0, 0.02), (0.02, 0.05), (0.05, 0.1), (0.1, 0.2), (0.2, 0.5)):
        within = (probability >= low) & (probability < high)
        error = np.sqrt(positive[within].mean() / within.sum())
        assert abs(positive[within].mean() - probability[within].mean()) < 4 * error
    assert abs(fitted_probability.mean() - share) > 0.2  # Unmoved, it is far too high.


def test_lidc_is_the_model_as_it_is_and_others_need_its_share():
    kept = prevalence.resolve("lidc", {"prevalence": 0.7}, model="m")
    assert kept == Prevalence("lidc", 0.7, 0.7)
    assert [kept.shifted(p) for p in PROBABILITIES] == list(PROBABILITIES)
    untold = prevalence.resolve("lidc", {}, model="m")
    assert untold == Prevalence("lidc", None, None)
    assert untold.shifted(0.3) == 0.3
    assert prevalence.resolve("screening", {"prevalence": 0.7}, model="m").share == 292 / 26_309
    assert prevalence.resolve("0.05", {"prevalence": 0.7}, model="m") == Prevalence("stated", 0.05, 0.7)
    with pytest.raises(InputError, match=r"^m: does not tell the share of positive patients"):
        prevalence.resolve("screening", {"slope": 1.0}, model="m")
    for wrong in ("0", "1", "-0.1", "5 %", "nan", 7.0):
        with pytest.raises(InputError, match=r"^the prevalence is .*; it must be lidc, screening, or a share"):
            prevalence.resolve(wrong, {"prevalence": 0.7}, model="m")


def test_a_wrong_one_is_one_sentence_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture):
    assert cli.main(["predict", str(tmp_path), "--out", str(tmp_path / "out"), "--prevalence", "5 %"]) == 2
    assert capsys.readouterr().err == (
        "lungjax: error: the prevalence is '5 %'; it must be lidc, screening, or a share of patients between 0 and 1, "
        "such as 0.05.\n"
    )


def test_sentences():
    calibration = {"prevalence": 240 / 341}
    lidc, screening, stated = (prevalence.resolve(name, calibration, model="m") for name in ("lidc", "screening", 0.05))
    assert lidc.sentence().startswith("It holds where 70.4 % of patients are positive, as among those of LIDC-IDRI")
    assert "1.11 % of patients are positive (lung cancer at the baseline of the National" in screening.sentence()
    assert "5 % of patients are positive (stated): Bayes' rule moved it from the 70.4 %" in stated.sentence()


def test_the_share_of_positives_is_kept_with_a_calibration():
    assert calibrate.prevalence(np.array([1.0, 0.0, np.nan, 1.0])) == {"prevalence": 2 / 3, "prevalence_of": 3}


@pytest.mark.parametrize(
    ("model", "positive", "labelled"), [("patient-classifier", 240, 341), ("nodule-classifier", 392, 1125)]
)
def test_bundled_classifiers_tell_theirs(model: str, positive: int, labelled: int):
    known: dict[str, Any] = trained.open_trained(Path(model)).calibration
    assert known["prevalence"] == positive / labelled
    assert known["prevalence_of"] == labelled
