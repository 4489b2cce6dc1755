"""Sensitivity of a detector by what nodules are like: their texture, their size, and how many readers outlined them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

TEXTURES = (("ground glass", 1.0, 2.5), ("part-solid", 2.5, 4.5), ("solid", 4.5, 6.0))
"""Median rating of texture, 1 (ground glass) to 5 (solid), from and below."""
SIZES_MM = ((3.0, 6.0), (6.0, 10.0), (10.0, 20.0), (20.0, float("inf")))
"""Diameter, from and below."""


def sensitivity_by_stratum(nodules: Sequence[Mapping[str, Any]], threshold: float) -> dict[str, list[dict[str, Any]]]:
    """How many nodules have a candidate whose score reaches the threshold.

    Args:
      nodules: reference nodules: `texture` (median rating, or None), `diameter_mm`, `readers`, and `score` of the best
        candidate that hits it, or None.
      threshold: the score.

    Returns:
      By `texture`, `diameter_mm` and `readers`, for each stratum its `name`, the number of `nodules`, and how many were
      `found`; nodules without a rating of texture are in no stratum of it.
    """

    def stratum(name: str, belongs: Callable[[Mapping[str, Any]], bool]) -> dict[str, Any]:
        own = [nodule for nodule in nodules if belongs(nodule)]
        found = sum(nodule["score"] is not None and nodule["score"] >= threshold for nodule in own)
        return {"name": name, "nodules": len(own), "found": found}

    def between(key: str, low: float, high: float) -> Callable[[Mapping[str, Any]], bool]:
        return lambda nodule: nodule[key] is not None and low <= nodule[key] < high

    counts = sorted({nodule["readers"] for nodule in nodules})
    return {
        "texture": [stratum(name, between("texture", low, high)) for name, low, high in TEXTURES],
        "diameter_mm": [
            stratum(
                f"{low:g} to {high:g} mm" if high < float("inf") else f"{low:g} mm and more",
                between("diameter_mm", low, high),
            )
            for low, high in SIZES_MM
        ],
        "readers": [stratum(f"{count} readers", between("readers", count, count + 1)) for count in counts],
    }


def lines(strata: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """The strata as lines of a table."""
    rows = [row for group in strata.values() for row in group if row["nodules"]]
    return [
        f"  {row['name']:<18}{row['found']:>5} of {row['nodules']:<5}{row['found'] / row['nodules']:.2f}"
        for row in rows
    ]
