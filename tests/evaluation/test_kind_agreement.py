"""Agreement of two namings, against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, confusion_matrix, recall_score

from lungjax.evaluation.classification import kind_agreement

KINDS = ("solid", "part-solid", "ground glass")


def test_figures_are_scikit_learns():
    rng = np.random.default_rng(0)
    true = rng.choice(KINDS, 300, p=(0.7, 0.1, 0.2)).tolist()
    said = [kind if rng.random() < 0.7 else rng.choice(KINDS) for kind in true]
    patients = [f"P{number // 3}" for number in range(300)]
    found = kind_agreement.agreement_figures(true, said, KINDS, patients)
    np.testing.assert_array_equal(
        [list(row.values()) for row in found["table"].values()], confusion_matrix(true, said, labels=KINDS)
    )
    assert found["agreement"]["value"] == pytest.approx(np.mean(np.array(true) == np.array(said)))
    assert found["kappa"]["value"] == pytest.approx(cohen_kappa_score(true, said))
    for kind, figure in found["sensitivity"].items():
        assert figure["value"] == pytest.approx(recall_score(true, said, labels=[kind], average="macro"))
    for figure in (found["agreement"], found["kappa"], *found["sensitivity"].values()):
        assert figure["low"] < figure["value"] < figure["high"]


def test_a_kind_that_nobody_names_has_no_sensitivity():
    found = kind_agreement.agreement_figures(["solid"] * 4, ["solid"] * 4, KINDS, ["A", "A", "B", "C"])
    assert found["agreement"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert found["kappa"]["value"] is None
    assert found["sensitivity"]["part-solid"] == {"value": None, "low": None, "high": None}
