"""The order of two scans and the days between them; dates of DICOM, missing, equal, shifted into nonsense."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pydicom
import pytest
from pydicom.config import disable_value_validation

from lungjax.ct import dicom
from lungjax.prediction.follow_up import dates

TODAY = date(2026, 1, 2)


def test_in_order_and_in_the_other():
    order = dates.order(date(2020, 1, 1), date(2020, 3, 1), today=TODAY)
    assert (order.swapped, order.days, order.reason, order.warning) == (False, 60, None, None)
    order = dates.order(date(2020, 3, 1), date(2020, 1, 1), today=TODAY)
    assert (order.swapped, order.days, order.dates) == (True, 60, (date(2020, 1, 1), date(2020, 3, 1)))
    assert order.warning == (
        "The later scan, of 2020-03-01, was given before the earlier one, of 2020-01-01: the first is the earlier."
    )


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        (None, None, "neither scan has a date"),
        (date(2020, 1, 1), None, "the second scan has no date"),
        (None, date(2020, 1, 1), "the first scan has no date"),
        (date(2000, 1, 1), date(2000, 1, 1), "both are dated 2000-01-01"),
        (date(1900, 1, 1), date(2020, 1, 1), "the first one is dated 1900-01-01, which cannot be"),
        (date(2020, 1, 1), date(2085, 7, 1), "the second one is dated 2085-07-01, which cannot be"),
        (date(1975, 1, 1), date(2025, 1, 1), "dated 1975-01-01 and 2025-01-01, which cannot be"),
    ],
)
def test_no_days(first: date | None, second: date | None, reason: str):
    """Nor another order than that in which they were given."""
    order = dates.order(first, second, today=TODAY)
    assert (order.swapped, order.days, order.dates) == (False, None, (first, second))
    assert order.reason is not None
    assert reason in order.reason


@pytest.mark.parametrize(
    ("study", "acquired", "expected"),
    [
        ("20200131", "", date(2020, 1, 31)),
        ("2020.01.31", "", date(2020, 1, 31)),  # As ACR-NEMA wrote dates, which DICOM allows to be read.
        ("", "20200201", date(2020, 2, 1)),
        ("", "", None),
    ],
)
def test_dates_of_dicom(dicom_file: Path, study: str, acquired: str, expected: date | None):
    dataset = pydicom.dcmread(dicom_file)
    with disable_value_validation():
        dataset.StudyDate, dataset.AcquisitionDate = study, acquired
        dataset.save_as(dicom_file)
    assert dicom.read_study_date(dicom_file) == expected


def test_a_date_of_no_day_is_none(dicom_file: Path):
    content = dicom_file.read_bytes().replace(b"20000101", b"20001399")
    dicom_file.write_bytes(content)
    assert dicom.read_study_date(dicom_file) is None


@pytest.fixture
def dicom_file(dicom: Path, tmp_path: Path) -> Path:
    """A copy of an image of a phantom."""
    path = tmp_path / "image.dcm"
    path.write_bytes(next(dicom.rglob("*.dcm")).read_bytes())
    return path
