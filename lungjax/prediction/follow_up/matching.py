"""Which nodule of one scan is which of another: one to one, by distance after registration."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

GATE_MM = 10.0
"""Nodules whose centres lie further apart after registration are two; of a nodule of larger radius, its radius."""


def match(
    first_mm: np.ndarray, second_mm: np.ndarray, first_diameters_mm: np.ndarray, second_diameters_mm: np.ndarray
) -> list[tuple[int, int, float]]:
    """Pairs of nodules: as many as the gate allows, and of those the pairs of the least sum of distances.

    Args:
      first_mm: (n, 3) centres of the first scan's nodules, where they lie in the second scan.
      second_mm: (m, 3) centres of the second scan's nodules.
      first_diameters_mm, second_diameters_mm: (n,) and (m,).

    Returns:
      Index in the first scan, index in the second, distance in mm; by the first index.
    """
    if not len(first_mm) or not len(second_mm):
        return []
    distance_mm = cdist(first_mm, second_mm)
    gate_mm = np.maximum(GATE_MM, np.maximum.outer(first_diameters_mm, second_diameters_mm) / 2)
    apart = distance_mm > gate_mm
    # A pair beyond its gate costs more than all others together could, so that as few of them as possible are taken.
    beyond = 1 + gate_mm.max() * min(distance_mm.shape)
    rows, columns = linear_sum_assignment(np.where(apart, beyond, distance_mm))
    pairs = zip(rows.tolist(), columns.tolist(), strict=True)
    return [(row, column, float(distance_mm[row, column])) for row, column in pairs if not apart[row, column]]
