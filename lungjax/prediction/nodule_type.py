"""A nodule's type from its rating of texture, solid, part-solid or ground glass; and whether it is calcified as benign
nodules are, from its rating of calcification.

LIDC-IDRI's scale of texture runs from 1, ground glass, through 3, part-solid or mixed, to 5, solid.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

NoduleType = Literal["solid", "part-solid", "ground glass"]

READERS_CUTS = (7 / 3, 11 / 3)
"""Of a rating, or a median of ratings: they cut the scale into three equal parts, so that 1 and 2 are ground glass, 3
is part-solid, 4 and 5 are solid."""
EXPECTED_CUTS = (3.5, 4.1)
"""Of the rating that a nodule classifier expects. Where it is unsure it expects a rating nearer to the middle and, as
most nodules are solid, to 5; so these lie higher. With them the F1 scores of the three types, averaged, are highest on
the train patients of the bundled `nodule-classifier`, to one digit (docs/results/nodules.md)."""

BENIGN_CALCIFICATION = (1, 2, 3, 5)
"""LIDC-IDRI's ratings of calcification that Lung-RADS calls benign: popcorn, laminated (concentric rings), solid
(complete), central. 4 is non-central, 6 is none."""
_LIKELY = 0.5


def of_readers(texture: float) -> NoduleType:
    """The type of a nodule by readers' rating of its texture, from 1 to 5, or by the median of several."""
    return _cut(texture, READERS_CUTS)


def of_expected(texture: float) -> NoduleType:
    """The type of a nodule by the rating of its texture that a nodule classifier expects, from 1 to 5."""
    return _cut(texture, EXPECTED_CUTS)


def is_benign_calcification(probabilities: np.ndarray) -> np.ndarray:
    """bool (...): whether a reader would rather than not give one of `BENIGN_CALCIFICATION`.

    Args:
      probabilities: (..., 6) that a reader rates calcification 1, 2, ... 6; or the shares of the readers who did.
    """
    return np.asarray(probabilities)[..., [value - 1 for value in BENIGN_CALCIFICATION]].sum(axis=-1) > _LIKELY


def _cut(texture: float, cuts: tuple[float, float]) -> NoduleType:
    if texture < cuts[0]:
        return "ground glass"
    return "part-solid" if texture < cuts[1] else "solid"
