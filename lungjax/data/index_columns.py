"""The columns of `index.csv`, which has a row for each slice."""

from __future__ import annotations

ROW_COLUMNS = (
    "patient_id",
    "study_uid",
    "series_uid",
    "sop_uid",
    "slice_index",
    "z_mm",
    "rows",
    "columns",
    "slice_spacing_mm",
    "row_spacing_mm",
    "column_spacing_mm",
    "nodules",
    "readers_marked",
    "majority_px",
    "malignancy_median",
    "row_min",
    "row_max",
    "column_min",
    "column_max",
    "lung_area_mm2",
    "lung_row_min",
    "lung_row_max",
    "lung_column_min",
    "lung_column_max",
)
"""The columns that describe a slice, apart from its place in the shards and its split.

`nodules`: number of nodules in this slice. `readers_marked`: number of reader slots with any pixel in it.
`majority_px`: number of pixels that at least two readers marked, or the only reader where there is one.
`malignancy_median`: the highest of the slice's nodules, each the median of its readers' ratings; NaN where no reader
rated. `row_min` .. `column_max`: box of all readers' marks, inclusive, -1 where there are none. `lung_area_mm2` and the
lungs' box: from `lungjax.ct.lungs`; NaN and -1 where the source has lost HU or spacing.
"""

NUMBERS = ROW_COLUMNS[4:]
"""All but IDs."""

SELECTIONS = ("all", "lung", "nodule", "rated")
"""Which slices of a split there are to choose; see `lungjax.data.loader.select_rows`."""

LUNG_MM2 = 1000.0
"""A slice with at least this area of lung, as of two apices 2.5 cm wide, counts as a slice of the lungs."""
