"""Sensitivity of a detector by what nodules are like: their type, their size, and how many readers outlined them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

TYPES = ("ground glass", "part-solid", "solid")
SIZES_MM = ((3.0, 6.0), (6.0, 10.0), (10.0, 20.0), (20.0, float("inf")))
"""Diameter, from and below."""


def sensitivity_by_stratum(nodules: Sequence[Mapping[str, Any]], threshold: float) -> dict[str, list[dict[str, Any]]]:
    """How many nodules have a candidate whose score reaches the threshold.

    Args:
      nodules: reference nodules: `type`, of `TYPES`, or None where nobody rated the texture; `diameter_mm`; `readers`;
        and `score` of the best candidate that hits it, or None.
      threshold: the score.

    Returns:
      By `type`, `diameter_mm` and `readers`, for each stratum its `name`, the number of `nodules`, and how many were
      `found`; nodules without a type are in no stratum of it.
    """

    def stratum(name: str, belongs: Callable[[Mapping[str, Any]], bool]) -> dict[str, Any]:
        own = [nodule for nodule in nodules if belongs(nodule)]
        found = sum(nodule["score"] is not None and nodule["score"] >= threshold for nodule in own)
        return {"name": name, "nodules": len(own), "found": found}

    def between(key: str, low: float, high: float) -> Callable[[Mapping[str, Any]], bool]:
        return lambda nodule: low <= nodule[key] < high

    counts = sorted({nodule["readers"] for nodule in nodules})
    return {
        "type": [stratum(name, lambda nodule, name=name: nodule["type"] == name) for name in TYPES],
        "diameter_mm": [
            stratum(
                f"{low:g} to {high:g} mm" if high < float("inf") else f"{low:g} mm and more",
                between("diameter_mm", low, high),
            )
            for low, high in SIZES_MM
        ],
        "readers": [stratum(f"{count} readers", between("readers", count, count + 1)) for count in counts],
    }


def stratum_lines(strata: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """The strata as lines of a table."""
    rows = [row for group in strata.values() for row in group if row["nodules"]]
    return [
        f"  {row['name']:<18}{row['found']:>5} of {row['nodules']:<5}{row['found'] / row['nodules']:.2f}"
        for row in rows
    ]
