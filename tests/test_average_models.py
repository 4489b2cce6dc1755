"""`scripts/average_models.py`: weights between those of two networks, calibrated by themselves."""

from __future__ import annotations

from pathlib import Path

import jax
import networks
import numpy as np
import pytest
import runs

from lungjax.errors import InputError
from lungjax.train import trained

average_models = runs.load(runs.ROOT / "scripts" / "average_models.py")


def _twice(folder: Path, times: float) -> Path:
    """The small network, with all weights `times` as large."""
    made = trained.open_trained(networks.made("segment", folder / "made"))
    (folder / "other").mkdir()
    variables = jax.tree.map(lambda weight: times * weight, made.variables)
    patients = {"LIDC-IDRI-0001": "train", "LIDC-IDRI-0002": "test"}
    other = trained.Trained(**{**vars(made), "variables": variables, "patients": patients})
    trained.write_exported(other, folder / "other", dtype="float32")
    return folder / "other"


def test_weights_lie_between_and_are_calibrated(slices_dataset: Path, tmp_path: Path, capsys):
    first, second = networks.made("segment", tmp_path / "first"), _twice(tmp_path, 3.0)
    average_models.average(first, second, tmp_path / "out", share=0.25, data=slices_dataset)
    assert "calibrated on" in capsys.readouterr().out
    made, found = trained.open_trained(first), trained.open_trained(tmp_path / "out")
    for weight, between in zip(jax.tree.leaves(made.variables), jax.tree.leaves(found.variables), strict=True):
        np.testing.assert_allclose(between, 1.5 * weight, rtol=1e-6)
    assert found.patients == {"LIDC-IDRI-0001": "train", "LIDC-IDRI-0002": "train"}, "one of the two has seen each"
    assert found.calibration["fitted_on"] > 0
    assert found.calibration["step"] == found.step


@pytest.mark.parametrize(
    ("share", "width", "says"), [(1.5, 8, "from 0 to 1"), (0.5, 24, "different networks"), (-0.1, 8, "from 0 to 1")]
)
def test_what_cannot_be_averaged_is_refused(slices_dataset: Path, tmp_path: Path, share: float, width: int, says: str):
    first, second = networks.made("segment", tmp_path / "first"), networks.made("segment", tmp_path / "b", width=width)
    with pytest.raises(InputError, match=says):
        average_models.average(first, second, tmp_path / "out", share=share, data=slices_dataset)
    assert not (tmp_path / "out").exists()
