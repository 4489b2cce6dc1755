"""The range of spacings and sizes of a data set's slices, which a trained network records."""

from __future__ import annotations

from typing import Any

import pandas as pd


def spacing_extent(index: pd.DataFrame, rows: Any) -> dict[str, Any]:
    """The range of spacings and the size of some slices, as JSON types.

    Args:
      index: of a data set.
      rows: (n,) row numbers of the slices, at least one.

    Returns:
      `slice_mm`, `pixel_mm`: [smallest, largest] spacing, None where any is unknown. `side_px`: the side of the slices,
      None where they are not square or differ in size.
    """
    selected = index.iloc[rows]
    sides = pd.unique(selected[["rows", "columns"]].to_numpy().ravel())
    return {
        "slice_mm": _range(selected[["slice_spacing_mm"]]),
        "pixel_mm": _range(selected[["row_spacing_mm", "column_spacing_mm"]]),
        "side_px": int(sides[0]) if len(sides) == 1 else None,
    }


def _range(spacing_mm: pd.DataFrame) -> list[float] | None:
    values = spacing_mm.to_numpy(float)
    return [float(values.min()), float(values.max())] if (values > 0).all() else None
