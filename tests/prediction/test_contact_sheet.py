"""Pictures with names of patients: any text is that text."""

from __future__ import annotations

import warnings
from pathlib import Path

import chests
import numpy as np
import pytest
from PIL import Image

from lungjax.evaluation.plots import embedding, gallery
from lungjax.prediction.candidates import Candidate
from lungjax.prediction.outputs import contact_sheet

FORMULAS = [r"A$\foo$B", "P$1$2", "$$"]


@pytest.mark.parametrize("name", [*FORMULAS, "Müller-山田", "<b>&"])
def test_a_contact_sheet_names_any_patient(tmp_path: Path, name: str):
    """A formula to Matplotlib, or letters that its font lacks: neither an error nor a warning."""
    scan = chests.scan(patient_id=name)
    mask = chests.ball(*chests.BALLS[0]).astype(np.uint8)
    nodule = Candidate(np.argwhere(mask == 1), 0.9, 100.0, 7.5, 4.0, 15, -50.0)
    report = chests.report(scan, [nodule], name="m", step=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        contact_sheet.draw(tmp_path / "sheet.png", hu=scan.voxels, mask=mask, report=report)
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.width > 300


@pytest.mark.parametrize("name", FORMULAS)
def test_pictures_of_an_evaluation_name_any_patient(tmp_path: Path, name: str):
    patches = np.zeros((1, 3, 16, 16), np.int16)
    gallery.draw_stacks(patches, np.array([0.5]), np.array([True]), [name], tmp_path / "stacks.png")
    embedding.draw_neighbours(patches[:, :2], [[name, name]], tmp_path / "near.png")
    for path in tmp_path.iterdir():
        with Image.open(path) as image:
            assert image.width > 100
