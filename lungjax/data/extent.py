"""What the slices of a data set are like, for a network remembers what it has seen."""

from __future__ import annotations

from typing import Any

import pandas as pd


def of(index: pd.DataFrame, rows: Any) -> dict[str, Any]:
    """Least and greatest of some rows of an index, as JSON has them.

    Args:
      index: of a data set.
      rows: (n,) their numbers, at least one.

    Returns:
      `slice_mm`, `pixel_mm`: [least, greatest] spacing, None where any is unknown; `side_px`: the side of the slices,
      None where they are not square or differ.
    """
    some = index.iloc[rows]
    sides = pd.unique(some[["rows", "columns"]].to_numpy().ravel())
    return {
        "slice_mm": _ends(some[["slice_spacing_mm"]]),
        "pixel_mm": _ends(some[["row_spacing_mm", "column_spacing_mm"]]),
        "side_px": int(sides[0]) if len(sides) == 1 else None,
    }


def _ends(spacing_mm: pd.DataFrame) -> list[float] | None:
    values = spacing_mm.to_numpy(float)
    return [float(values.min()), float(values.max())] if (values > 0).all() else None
