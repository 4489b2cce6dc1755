"""What a scan is refused for, and what is told of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import chests
import numpy as np
import pytest

from lungjax.ct import lungs
from lungjax.lidc import annotations
from lungjax.prediction import input_checks
from lungjax.prediction.input_checks import TrainedRange

SEEN = TrainedRange(slice_mm=(1.0, 5.0), pixel_mm=(0.5, 2.5))


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"spacing_mm": (7.0, 2.5, 2.5)}, "slices are 7 mm apart; the network was trained on 1 to 5 mm"),
        ({"spacing_mm": (5.0, 0.3, 0.3)}, "pixels are 0.3 mm apart"),
        ({"spacing_mm": (5.0, 2.5, 2.0)}, "square ones alone"),
        ({"spacing_mm": (np.nan, 2.5, 2.5)}, "lost the spacing"),
        ({"intensity": "unit"}, "no Hounsfield units"),
        ({"hu": np.full(chests.SHAPE, -1000, np.int16)}, "-1000 to -1000 HU"),
        ({"hu": chests.chest() + 1024}, "24 to 1064 HU"),
    ],
)
def test_refused_by_its_numbers(other: dict[str, Any], says: str):
    refused = input_checks.refusal(chests.scan(other.pop("hu", None), **other), SEEN)
    assert refused is not None
    assert says in refused


def test_a_chest_is_not_refused():
    scan = chests.scan()
    assert input_checks.refusal(scan, SEEN) is None
    assert input_checks.no_chest(lungs.find_lungs(scan.voxels, scan.spacing_mm)) is None


def test_anatomy_without_lungs():
    hu = chests.chest(balls=())
    hu[(hu < -500) & (hu > -900)] = chests.TISSUE_HU
    refused = input_checks.no_chest(lungs.find_lungs(hu, chests.SPACING_MM))
    assert refused is not None
    assert "0 ml of lung were found" in refused


def test_lidcs_own_spacing_where_a_run_does_not_tell():
    """The constants are the database's."""
    rows = annotations.all_scans()
    slice_mm = [float(np.median(np.diff(row.z_mm))) for row in rows]
    pixel_mm = [row.pixel_spacing_mm for row in rows]
    assert pytest.approx((min(slice_mm), max(slice_mm)), abs=1e-4) == input_checks.LIDC_SLICE_MM
    assert (min(pixel_mm), max(pixel_mm)) == input_checks.LIDC_PIXEL_MM
    trained = chests.untrained(Path("none"))
    assert TrainedRange.by(trained) == TrainedRange([1.0, 5.0], [0.5, 2.5])  # pyright: ignore[reportArgumentType]
    older = dataclasses.replace(trained, seen={})
    assert TrainedRange.by(older) == TrainedRange(input_checks.LIDC_SLICE_MM, input_checks.LIDC_PIXEL_MM)


def test_what_is_told():
    trained = chests.untrained(Path("none"))

    def told(**other: Any) -> str:
        scan = chests.scan(**other)
        return " ".join(input_checks.warnings(scan, lungs.find_lungs(scan.voxels, scan.spacing_mm), trained))

    assert told() == ""
    assert told(patient_id="TEST-3") == ""  # A test patient.
    assert "TEST-2 is one of the patients that the network was trained on" in told(patient_id="TEST-2")
    assert "counted from its first voxel" in told(affine_lps=None)
    uneven = 5.0 * np.arange(chests.SHAPE[0])
    uneven[10:] += 2
    assert "not evenly spaced" in told(z_mm=uneven)
    assert "Lung reaches the highest slice" in told(hu=chests.chest()[:25], z_mm=5.0 * np.arange(25))
