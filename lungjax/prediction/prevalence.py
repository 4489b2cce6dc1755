"""The patient's probability for a stated prevalence: Bayes' rule on the odds of a calibrated classifier.

A classifier's probability holds for the share of positive patients among whom it was trained and calibrated. Where
another share is positive, but positive patients look like positive ones and negative like negative, its odds change by
the ratio of the odds of both shares (Elkan, IJCAI 2001, theorem 2; Saerens, Latinne and Decaestecker, Neural
Computation 14:21-41, 2002):

    odds = fitted odds * [prevalence / (1 - prevalence)] / [fitted / (1 - fitted)]
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from lungjax.errors import InputError

LIDC, SCREENING = "lidc", "screening"
SCREENED, SCREENED_WITH_CANCER = 26_309, 292
"""People whom the National Lung Screening Trial screened by low-dose CT at baseline, and those of them in whom lung
cancer was then diagnosed, 1.1 % (Church et al., N Engl J Med 368:1980-1991, 2013)."""
_CHOICES = f"{LIDC}, {SCREENING}, or a share of patients between 0 and 1, such as 0.05"


@dataclasses.dataclass(frozen=True)
class Prevalence:
    """What share of patients is positive where a probability holds.

    Attributes:
      name: `lidc`, `screening`, or `stated` for a number.
      share: of positive patients that the probability is for; None where the model does not tell its own.
      fitted: of positive patients among those the model was trained and calibrated on; None where it does not tell.
    """

    name: str
    share: float | None
    fitted: float | None

    def shifted(self, probability: float) -> float:
        """A probability among patients of the share `fitted` -> among those of the share `share`."""
        if self.name == LIDC or self.share is None or self.fitted is None:
            return probability  # To the bit.
        positive = probability * self.share / self.fitted
        negative = (1 - probability) * (1 - self.share) / (1 - self.fitted)
        return positive / (positive + negative)

    def sentence(self) -> str:
        """What the probability is for."""
        if self.share is None:
            return "It holds where as large a share of patients is positive as among those the model was trained on."
        share = f"{100 * self.share:.3g} % of patients are positive"
        if self.name == LIDC or self.fitted is None:
            return f"It holds where {share}, as among those of LIDC-IDRI that the model was trained and calibrated on."
        where = (
            "lung cancer at the baseline of the National Lung Screening Trial" if self.name == SCREENING else "stated"
        )
        return (
            f"It holds where {share} ({where}): Bayes' rule moved it from the {100 * self.fitted:.3g} % among whom the "
            "model was trained and calibrated, as if positive patients looked alike in both, and negative ones, too."
        )


def share_of(asked: str | float) -> float | None:
    """The share of positive patients that a user asks for; None for `lidc`, the model's own.

    Raises:
      InputError: neither a name nor a number between 0 and 1.
    """
    if asked == LIDC:
        return None
    if asked == SCREENING:
        return SCREENED_WITH_CANCER / SCREENED
    try:
        share = float(asked)
    except (TypeError, ValueError):
        share = math.nan
    if not 0 < share < 1:
        raise InputError(f"the prevalence is {asked!r}; it must be {_CHOICES}.")
    return share


def resolve(asked: str | float, calibration: Mapping[str, Any] | None, *, model: str) -> Prevalence:
    """What a user asks for, of a patient classifier.

    Args:
      asked: `lidc`, `screening`, or a share of patients.
      calibration: the classifier's; its `prevalence` is the share of positive patients that it was fitted on.
      model: its name, for errors.

    Raises:
      InputError: no such prevalence, or the classifier does not tell its own, from which others could be reached.
    """
    share, fitted = share_of(asked), (calibration or {}).get("prevalence")
    if share is None:
        return Prevalence(LIDC, fitted, fitted)
    if fitted is None or not 0 < fitted < 1:
        raise InputError(
            f"{model}: does not tell the share of positive patients that it was fitted on, so its probability is only "
            "for lidc; leave the prevalence out, or train the model again, which stores it."
        )
    return Prevalence(SCREENING if asked == SCREENING else "stated", share, fitted)
