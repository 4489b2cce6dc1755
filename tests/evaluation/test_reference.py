"""What the readers outlined, by hand, and against LUNA16's own places and diameters."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import chests
import numpy as np
import pytest

from lungjax.ct.scan import Nodule, Reading
from lungjax.evaluation.detection import reference
from lungjax.prediction.outputs import report_json
from lungjax.preparation.formats import lidc


def reading(slot: int, centre: tuple[int, int, int], radius_mm: float) -> Reading:
    mask = chests.ball(centre, radius_mm)
    where = np.argwhere(mask)
    low, high = where.min(axis=0), where.max(axis=0) + 1
    part = mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    return Reading(slot, -1, (0,) * 9, part, (int(low[0]), int(low[1]), int(low[2])))


def test_a_nodule_of_three_readers():
    readings = [reading(0, (20, 60, 40), 12), reading(1, (20, 60, 42), 12), reading(2, (22, 60, 40), 9)]
    empty = Reading(3, -1, (0,) * 9, np.zeros((1, 1, 1), bool), (0, 0, 0))
    scan = chests.scan(nodules=(Nodule(5, (*readings, empty)), Nodule(6, (empty,))))
    (one,) = reference.reference_nodules(scan)
    assert (one.index, one.readers) == (5, 3)
    np.testing.assert_allclose(one.centre_voxel, [62 / 3, 60, 122 / 3])
    sizes = [chests.ball((20, 60, 40), 12).sum() * 5 * 2.5 * 2.5] * 2 + [chests.ball((22, 60, 40), 9).sum() * 31.25]
    assert one.diameter_mm == pytest.approx(np.mean([(6 * size / math.pi) ** (1 / 3) for size in sizes]))
    assert one.diameter_mm == pytest.approx(22, abs=1)
    votes = np.zeros(chests.SHAPE, int)
    for each in readings:
        votes[each.box] += each.mask
    np.testing.assert_array_equal(one.votes, votes[one.box])
    assert one.votes.sum() == votes.sum()
    np.testing.assert_array_equal(one.in_slices(40), votes.any(axis=(1, 2)))
    assert one.middle == votes.sum(axis=(1, 2)).argmax()
    assert [one.wanted(least) for least in (1, 3, 4)] == [True, True, False]
    (small,) = reference.reference_nodules(chests.scan(nodules=(Nodule(0, (reading(0, (9, 9, 9), 1.0),)),)))
    assert small.diameter_mm > 3  # One voxel of 5 mm is.
    assert not reference.ReferenceNodule(0, 4, np.zeros(3), 2.9, None, np.ones((1, 1, 1), np.uint8), (0, 0, 0)).wanted(
        1
    )


def test_luna16_has_the_nodules_in_the_same_places(real_data: Path):
    (entry,), _ = lidc.find(real_data / "lidc-dicom" / "LIDC-IDRI" / "LIDC-IDRI-0003")
    scan = lidc.read(entry)
    affine = report_json.affine_of(scan)
    ours = sorted(
        (*(affine @ (*one.centre_voxel[::-1], 1))[:3], one.diameter_mm)
        for one in reference.reference_nodules(scan)
        if one.wanted()
    )
    with (real_data / "luna16" / "annotations.csv").open() as file:
        theirs = sorted([*map(float, row[1:])] for row in csv.reader(file) if row[0] == entry.key)
    assert len(ours) == len(theirs) == 3
    np.testing.assert_allclose(np.array(ours)[:, :3], np.array(theirs)[:, :3], atol=0.3)
    np.testing.assert_allclose(np.array(ours)[:, 3], np.array(theirs)[:, 3], atol=1)
