"""Index rows and nodule lists of a hand-made scan, against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lungjax.ct.scan import Nodule, Reading, Scan
from lungjax.data import index_columns
from lungjax.preparation import slice_records


def reading(slot: int, origin: tuple[int, int, int], mask: np.ndarray, malignancy: int = 0) -> Reading:
    return Reading(slot, 100 + slot, (0,) * 8 + (malignancy,), mask, origin)


@pytest.fixture
def scan() -> Scan:
    """Four slices of 6x8. Nodule 0: readers 0 and 2 in slices 1 and 2. Nodule 1: one reader, slice 2.

    Nodule 2: a reading without a pixel in slice 3, as when a phantom's pixels are too large for it.
    """
    block = np.ones((2, 2, 3), bool)
    holed = block.copy()
    holed[1] = False
    holed[1, 0, 0] = True
    nodules = (
        Nodule(0, (reading(0, (1, 1, 2), block, 2), reading(2, (1, 2, 3), holed, 5))),
        Nodule(1, (reading(1, (2, 5, 7), np.ones((1, 1, 1), bool), 4),)),
        Nodule(2, (reading(3, (3, 0, 0), np.zeros((1, 1, 1), bool), 1),)),
    )
    voxels = np.arange(4 * 6 * 8, dtype=np.int16).reshape(4, 6, 8)
    return Scan(
        "P", "S", "E", voxels, "hu", np.array([0.0, 1.5, 3.0, 4.5]), (1.5, 0.7, 0.7), tuple("abcd"), -2000, nodules
    )


def test_each_slice_has_its_own_voxels_and_place(scan):
    found = list(slice_records.slice_records(scan))
    assert [record.slice_index for record in found] == [0, 1, 2, 3]
    assert [record.z_mm for record in found] == [0.0, 1.5, 3.0, 4.5]
    assert [record.sop_uid for record in found] == list("abcd")
    for number, record in enumerate(found):
        np.testing.assert_array_equal(record.image, scan.voxels[number])
        np.testing.assert_array_equal(record.readers, scan.reader_bits()[number])


def test_nodules_are_listed_where_they_have_pixels(scan):
    nodules = [record.nodules for record in slice_records.slice_records(scan)]
    slots = [[(nodule["index"], [one["slot"] for one in nodule["readings"]]) for nodule in here] for here in nodules]
    assert slots == [[], [(0, [0, 2])], [(0, [0, 2]), (1, [1])], [(2, [3])]]
    assert [one["box"] for one in nodules[1][0]["readings"]] == [(1, 2, 2, 4), (2, 3, 3, 5)]
    assert [one["box"] for one in nodules[2][0]["readings"]] == [(1, 2, 2, 4), (2, 2, 3, 3)]
    assert nodules[3][0]["readings"][0]["box"] is None
    assert nodules[2][1]["readings"][0] == {
        "slot": 1,
        "annotation_id": 101,
        "ratings": (0,) * 8 + (4,),
        "box": (5, 5, 7, 7),
    }


def test_index_rows_by_hand(scan):
    rows = [
        dict(zip(index_columns.ROW_COLUMNS, slice_records.index_row(r, scan, (12.5, 0, 3, 1, 6)), strict=True))
        for r in slice_records.slice_records(scan)
    ]
    # Slice 1: two 2x3 blocks, one row and one column apart, share 1x2 pixels; slice 2: the one pixel (2, 3).
    assert [row["nodules"] for row in rows] == [0, 1, 2, 1]
    assert [row["readers_marked"] for row in rows] == [0, 2, 3, 0]
    assert [row["majority_px"] for row in rows] == [0, 2, 1, 0]
    of_one = [
        slice_records.index_row(r, scan, (12.5, 0, 3, 1, 6), readers=1) for r in slice_records.slice_records(scan)
    ]
    # Slice 1: 6 + 6 - 2 pixels; slice 2: the block of reader 0, whose pixel (2, 3) reader 2 has too, and (5, 7).
    assert [row[index_columns.ROW_COLUMNS.index("majority_px")] for row in of_one] == [0, 10, 7, 0]
    # The median of 2 and 5 is 3.5; in slice 2 nodule 1 with its 4 is the more malignant.
    medians = [row["malignancy_median"] for row in rows]
    assert math.isnan(medians[0])
    assert medians[1:] == [3.5, 4.0, 1.0]
    boxes = [[row[name] for name in ("row_min", "row_max", "column_min", "column_max")] for row in rows]
    assert boxes == [[-1] * 4, [1, 3, 2, 5], [1, 5, 2, 7], [-1] * 4]
    assert (rows[1]["rows"], rows[1]["columns"]) == (6, 8)
    assert (rows[1]["slice_spacing_mm"], rows[1]["row_spacing_mm"], rows[1]["column_spacing_mm"]) == (1.5, 0.7, 0.7)
    lung = ("lung_area_mm2", "lung_row_min", "lung_row_max", "lung_column_min", "lung_column_max")
    assert [rows[3][name] for name in lung] == [12.5, 0, 3, 1, 6]
