"""Lung-RADS v2022 category of a baseline scan, by rule, from type and size.

The table is that of the American College of Radiology: Lung-RADS v2022, November 2022; Christensen et al., "ACR
Lung-RADS v2022: Assessment Categories and Management Recommendations", J Am Coll Radiol 21 (2024), 473-488. Of it, the
rows of a baseline scan that follow from type, size, place and calcification of nodules are computed. Not computed, as
nothing measures what they ask for: category 0; airway nodules; atypical cysts; nodules that contain fat; nodules at a
fissure, which is not looked for; what is new, growing, stable or proven benign; 4X; the modifier S.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from decimal import ROUND_HALF_UP, Decimal
from typing import Literal

from lungjax.prediction.nodule_type import NoduleType

LungRads = Literal["1", "2", "3", "4A", "4B"]

CATEGORIES: tuple[LungRads, ...] = ("1", "2", "3", "4A", "4B")
"""By rising suspicion."""
NOTE = (
    "The Lung-RADS v2022 category is a rule on predicted types and measurements, as of a baseline screening scan, and "
    "not a reading by a radiologist. Category 0, airway nodules, atypical cysts, fat, nodules at a fissure, growth, 4X "
    "and the modifier S are not computed."
)

_SOLID_MM = (6.0, 8.0, 15.0)
"""Mean diameter from which a solid nodule is 3, 4A and 4B."""
_PART_SOLID_MM = 6.0
"""Mean diameter of the whole from which a part-solid nodule is 3 or higher ..."""
_SOLID_PART_MM = (6.0, 8.0)
"""... and mean diameter of its solid part from which it is 4A and 4B."""
_GROUND_GLASS_MM = 30.0
"""Mean diameter from which a ground-glass nodule is 3."""
_JUXTAPLEURAL_MM = 10.0
"""Mean diameter below which a smooth solid nodule at the pleura is 2."""


@dataclasses.dataclass(frozen=True)
class Assessment:
    """A category, or why there is none.

    Attributes:
      category: None where it cannot be told.
      reason: what it follows from, or why there is none; no full sentence.
    """

    category: LungRads | None
    reason: str


def mean_diameter_mm(long_axis_mm: float, short_axis_mm: float) -> float:
    """The mean diameter to one decimal, of both axes to one decimal, as v2022 asks for; halves are rounded up."""
    return float(_rounded((_rounded(long_axis_mm) + _rounded(short_axis_mm)) / 2))


def _rounded(mm: float | Decimal) -> Decimal:
    exact = mm if isinstance(mm, Decimal) else Decimal(repr(round(mm, 6)))  # Not 6.049999... where 6.05 is meant.
    return exact.quantize(Decimal("0.1"), ROUND_HALF_UP)


def nodule_category(
    nodule_type: NoduleType,
    mean_mm: float,
    *,
    solid_mean_mm: float | None = None,
    smooth_juxtapleural: bool = False,
    benign_calcification: bool = False,
) -> Assessment:
    """The category of one nodule at baseline.

    Args:
      nodule_type: as predicted.
      mean_mm: mean diameter by `mean_diameter_mm`.
      solid_mean_mm: that of the solid part; only of a part-solid nodule, and needed there.
      smooth_juxtapleural: it lies at the pleura, has smooth margins, and is oval, lentiform or triangular.
      benign_calcification: complete, central, popcorn, or in concentric rings.

    Raises:
      ValueError: a part-solid nodule without the diameter of its solid part.
    """
    size = f"{nodule_type}, mean diameter {mean_mm:.1f} mm"
    if benign_calcification:
        return Assessment("1", f"calcified as benign nodules are, mean diameter {mean_mm:.1f} mm")
    if nodule_type == "ground glass":
        return Assessment("3" if mean_mm >= _GROUND_GLASS_MM else "2", size)
    if nodule_type == "part-solid":
        if solid_mean_mm is None:
            raise ValueError("a part-solid nodule needs the mean diameter of its solid part")
        size += f", its solid part {solid_mean_mm:.1f} mm"
        if mean_mm < _PART_SOLID_MM:
            return Assessment("2", size)
        return Assessment(CATEGORIES[2 + sum(solid_mean_mm >= limit for limit in _SOLID_PART_MM)], size)
    if smooth_juxtapleural and mean_mm < _JUXTAPLEURAL_MM:
        return Assessment("2", f"{size}, smooth and at the pleura")
    return Assessment(CATEGORIES[1 + sum(mean_mm >= limit for limit in _SOLID_MM)], size)


def scan_category(nodules: Iterable[tuple[int, Assessment]]) -> Assessment:
    """The category of a baseline scan, the highest of its nodules'; 1 without any.

    Args:
      nodules: number and assessment of each nodule.
    """
    assessed = list(nodules)
    unknown = next((assessment for _, assessment in assessed if assessment.category is None), None)
    if unknown is not None:
        return unknown
    if not assessed:
        return Assessment("1", "no nodule was found")
    number, highest = max(assessed, key=lambda pair: CATEGORIES.index(pair[1].category or "1"))
    return Assessment(highest.category, f"nodule {number}: {highest.reason}")
