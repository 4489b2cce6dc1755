"""The dates of two scans: which of them is the first, and how many days lie between them, where that can be known."""

from __future__ import annotations

import dataclasses
import datetime

from lungjax.ct import dicom
from lungjax.ct.scan import Scan

FIRST_CT = datetime.date(1971, 10, 1)
"""The first CT of a patient was made on this day."""
LONGEST_YEARS = 40
"""Between two scans of a patient; more is an anonymiser's doing."""


@dataclasses.dataclass(frozen=True)
class Order:
    """Two scans in the order of time.

    Attributes:
      swapped: whether the second that was given is the earlier one.
      dates: of the earlier and the later scan, None where there is none.
      days: between them, above 0; None where that is not known, and then a `reason`.
      reason: one sentence.
      warning: one sentence where the scans were given in the other order.
    """

    swapped: bool
    dates: tuple[datetime.date | None, datetime.date | None]
    days: int | None
    reason: str | None
    warning: str | None = None


def date_of(scan: Scan) -> datetime.date | None:
    """When a scan was made, by the headers of its DICOM files; None where it was read from no DICOM or has no date.

    Raises:
      Fault: `unreadable_file` where its files are gone.
    """
    return dicom.read_study_date(scan.dicom_files[0]) if scan.dicom_files else None


def order(first: datetime.date | None, second: datetime.date | None, *, today: datetime.date) -> Order:
    """Orders two scans by their dates, and as they were given where these say nothing.

    Args:
      first, second: dates of the scans in the order they were given.
      today: no scan is of a later day, but for time zones.
    """
    missing = [name for name, date in (("first", first), ("second", second)) if date is None]
    if first is None or second is None:
        whose = "neither scan has a date" if len(missing) == 2 else f"the {missing[0]} scan has no date"
        return Order(False, (first, second), None, f"No days are known between the scans: {whose}.")
    for name, date in (("first", first), ("second", second)):
        if not FIRST_CT <= date <= today + datetime.timedelta(days=1):
            reason = f"No days are known between the scans: the {name} one is dated {date}, which cannot be."
            return Order(False, (first, second), None, reason)
    if first == second:
        reason = f"No days lie between the scans: both are dated {first}, as scans of one day are, or anonymised ones."
        return Order(False, (first, second), None, reason)
    earlier, later = min(first, second), max(first, second)
    days = (later - earlier).days
    warning = None
    if second < first:
        warning = (
            f"The later scan, of {first}, was given before the earlier one, of {second}: the first is the earlier."
        )
    if days > LONGEST_YEARS * 365.25:
        reason = f"No days are known between the scans: they are dated {earlier} and {later}, which cannot be."
        return Order(second < first, (earlier, later), None, reason, warning)
    return Order(second < first, (earlier, later), days, None, warning)
