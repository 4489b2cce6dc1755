"""The models that come along: small, with cards, from no machine's folders, and as good as their cards say."""

from __future__ import annotations

import functools
import json
import operator
import re
from pathlib import Path

import pytest

from lungjax.data import splits
from lungjax.evaluation import run_evaluate
from lungjax.train import trained


@pytest.fixture(params=trained.bundled_models())
def shipped(request: pytest.FixtureRequest) -> trained.Trained:
    return trained.open_trained(Path(request.param))


def test_all_are_small():
    names = ["candidate-classifier", "detector", "encoder", "nodule-classifier", "patient-classifier", "segmenter"]
    assert trained.bundled_models() == names
    assert sum(file.stat().st_size for file in trained.SHIPPED.rglob("*")) < 20e6


def test_patients_of_the_public_dicom_were_not_trained_on(shipped: trained.Trained):
    assert {shipped.patients[patient] for patient in splits.ALWAYS_TEST} == {"test"}
    assert shipped.patients == splits.assign(shipped.patients)


def test_a_card_tells_where_it_is_from_and_no_folder_of_its_machine(shipped: trained.Trained):
    card = (shipped.path / "README.md").read_text()
    assert splits.digest(shipped.patients) in card
    assert re.search(r"`python -m lungjax\.main .*--config=configs/", card)
    assert "not a medical device" in card
    for file in ("README.md", "config.json"):
        text = (shipped.path / file).read_text()
        assert not [word for word in ("/tmp", "/home", "/root", "/work/") if word in text]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "source", "figures"),
    [
        ("segmenter", "lidc-slices.zip", [("pooled", "dice"), ("ged", "16")]),
        pytest.param("detector", "lidc-slices.zip", [("pooled", "dice")], marks=pytest.mark.exhaustive),
        ("nodule-classifier", "lidc-nodules.npz", [("roc_auc",)]),
        ("patient-classifier", "lidc-nodules.npz", [("roc_auc",)]),
    ],
)
def test_strangers_get_the_cards_figures(
    real_data: Path, tmp_path: Path, name: str, source: str, figures: list[tuple[str, ...]]
):
    report = run_evaluate.evaluate(Path(name), data=real_data / source, split="test", out=tmp_path / "found.json")
    card = json.loads((trained.SHIPPED / name / trained.MODEL_FILE).read_text())["figures"]["evaluation-test.json"]
    for figure in figures:
        found, said = (functools.reduce(operator.getitem, figure, known) for known in (report, card))
        assert found["value"] == pytest.approx(said["value"], abs=2e-3)  # float16.
        assert found["low"] == pytest.approx(said["low"], abs=5e-3)
