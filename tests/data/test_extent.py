"""What a run remembers of the slices it was trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from lungjax.data import extent
from lungjax.data.shards import open_dataset


def rows(**columns) -> pd.DataFrame:
    filled = {"slice_spacing_mm": 2.5, "row_spacing_mm": 0.7, "column_spacing_mm": 0.7, "rows": 512, "columns": 512}
    return pd.DataFrame({name: columns.get(name, [value] * 3) for name, value in filled.items()})


def test_least_and_greatest_of_the_rows_asked_for():
    index = rows(slice_spacing_mm=[1.0, 2.0, 9.0], column_spacing_mm=[0.6, 0.9, 0.1])
    found = extent.spacing_extent(index, np.array([0, 1]))
    assert found == {"slice_mm": [1.0, 2.0], "pixel_mm": [0.6, 0.9], "side_px": 512}


def test_what_is_unknown_or_differs_is_none():
    index = rows(slice_spacing_mm=[1.0, np.nan, 2.0], rows=[512, 512, 256])
    assert extent.spacing_extent(index, [0, 1, 2]) == {"slice_mm": None, "pixel_mm": [0.7, 0.7], "side_px": None}
    assert extent.spacing_extent(index, [0, 2])["slice_mm"] == [1.0, 2.0]


def test_of_crops_that_lost_their_spacing(slices_dataset: Path):
    index = open_dataset(slices_dataset).index
    assert extent.spacing_extent(index, np.arange(len(index))) == {"slice_mm": None, "pixel_mm": None, "side_px": 64}
