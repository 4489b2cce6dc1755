"""Growth of a nodule: the ratio of two volumes with an interval, and the volume doubling time.

Two scans of an unchanged nodule give two volumes. Solid nodules that were scanned twice within minutes differ by up to
about 25 % either way, as 95 % limits (Gietema et al., Radiology 2007;245:888, -21.2 % to 23.8 %; the guideline of the
British Thoracic Society, Callister et al., Thorax 2015;70 Suppl 2, counts growth from 25 % on). These are thin slices;
with thick ones and small nodules the error is greater (Nietert et al., Chest 2009;135:1580). So the model has two
parts, independent of one another and added as variances of the logarithm of the ratio:

    published     ln(1.25)
    outline       of each scan 3 ln(1 + s / d): the outline of a ball of diameter d and the nodule's volume, moved by
                  half a voxel in or out; s is the side of a cube of a voxel's volume

The second part is our own assumption. Neither has been measured for the outlines of lungjax's networks.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

PUBLISHED = 0.25
"""95 % limits of the relative difference of a solid nodule's volumes in two scans."""

Change = Literal["larger", "smaller", "within measurement error"]


@dataclasses.dataclass(frozen=True)
class Growth:
    """How a nodule's volume changed.

    Attributes:
      ratio: of the second volume to the first.
      ratio_interval: 95 % interval of it.
      change: whether the interval lies above 1, below 1, or holds 1.
    """

    ratio: float
    ratio_interval: tuple[float, float]
    change: Change


@dataclasses.dataclass(frozen=True)
class DoublingTime:
    """The volume doubling time, in days.

    Attributes:
      days: None where there is none, and then a `reason`.
      days_interval: 95 % interval; its end is None where the interval of growth reaches down to none, for then the
        doubling time has no upper limit; None where even its upper end is no growth, or there are no days.
      reason: one sentence.
    """

    days: float | None
    days_interval: tuple[float, float | None] | None
    reason: str | None


def grown(volumes_mm3: tuple[float, float], voxels_mm3: tuple[float, float]) -> Growth:
    """Growth from the first volume to the second, by the model above.

    Args:
      volumes_mm3: above 0.
      voxels_mm3: the volume of a voxel in the first scan and in the second.
    """
    first_mm3, second_mm3 = volumes_mm3
    outlines = [_outline(volume, voxel) for volume, voxel in zip(volumes_mm3, voxels_mm3, strict=True)]
    limit = math.sqrt(math.log(1 + PUBLISHED) ** 2 + sum(part**2 for part in outlines))
    ratio = second_mm3 / first_mm3
    low, high = ratio * math.exp(-limit), ratio * math.exp(limit)
    change = "larger" if low > 1 else "smaller" if high < 1 else "within measurement error"
    return Growth(ratio, (low, high), change)


def _outline(volume_mm3: float, voxel_mm3: float) -> float:
    diameter_mm = math.cbrt(6 / math.pi * volume_mm3)
    return 3 * math.log1p(math.cbrt(voxel_mm3) / diameter_mm)


def doubling_time(growth: Growth, days: int) -> DoublingTime:
    """Days in which a volume doubles that grows exponentially (Schwartz, Cancer 1961;14:1272).

    Args:
      growth: between the two scans.
      days: from the first scan to the second, above 0.
    """
    low, high = growth.ratio_interval
    interval = None
    if high > 1:
        interval = (_doubling_days(high, days), _doubling_days(low, days) if low > 1 else None)
    if growth.ratio <= 1:
        return DoublingTime(None, interval, "It did not grow, so it has no doubling time.")
    return DoublingTime(_doubling_days(growth.ratio, days), interval, None)


def _doubling_days(ratio: float, days: int) -> float:
    return days * math.log(2) / math.log(ratio)
