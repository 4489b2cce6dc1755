"""What `index.csv` says of each slice."""

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
"""What the index says of a slice, apart from where it is stored and its split.

`nodules`: nodules in this slice. `readers_marked`: reader slots with any pixel in it. `majority_px`: pixels
that two or more readers marked, or the one where only one looked. `malignancy_median`: a nodule's is the median of
its readers' ratings; the highest of the slice's nodules; NaN where no reader rated. `row_min` .. `column_max`: box of
all readers' marks, inclusive, -1 where there are none. `lung_area_mm2` and the lungs' box, as `lungjax.ct.lungs`
finds them; NaN and -1 where the source lost HU or spacing.
"""

LUNG_MM2 = 1000.0
"""A slice with at least this much lung, two apices 2.5 cm wide, is one of the lungs."""
