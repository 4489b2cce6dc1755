"""Crops of LIDC's nodules get back what the database knows of them, or nothing where that is not certain."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from source_files import write_png

from lungjax.ct import dicom
from lungjax.ct.scan import Nodule, Scan
from lungjax.lidc import annotations
from lungjax.preparation.formats import slices

PATIENT = "LIDC-IDRI-0003"
SIDE_PX = 128


def write_crops(root: Path, number: int, nodule: Nodule, *, change: int = 0) -> None:
    """One nodule as the crops have it; `change` more pixels are marked by the first reader in the first slice."""
    starts = np.array([reading.origin for reading in nodule.readings])
    ends = starts + [reading.mask.shape for reading in nodule.readings]
    corner = starts.min(axis=0) - (0, 20, 20)
    masks = np.zeros((4, ends.max(axis=0)[0] - corner[0], SIDE_PX, SIDE_PX), bool)
    for reading in nodule.readings:
        box = tuple(
            slice(low - c, low - c + n) for low, c, n in zip(reading.origin, corner, reading.mask.shape, strict=True)
        )
        masks[reading.slot][box] |= reading.mask
    masks[0, 0, -1, :change] = True
    folder = root / PATIENT / f"nodule-{number}"
    for place in range(masks.shape[1]):
        write_png(folder / "images" / f"slice-{place}.png", np.full((SIDE_PX, SIDE_PX), 40 + place))
        for slot in range(4):
            write_png(folder / f"mask-{slot}" / f"slice-{place}.png", 255 * masks[slot, place])


def read(root: Path) -> dict[str, Scan]:
    return {entry.key.split("/")[1]: slices.read(entry) for entry in slices.find(root)[0]}


def test_ratings_positions_and_spacing_come_back_in_any_order(tmp_path: Path):
    (row,) = annotations.scan_rows_of_patient(PATIENT)
    nodules = annotations.nodules(row)
    for number, nodule in enumerate(reversed(nodules)):
        write_crops(tmp_path, number, nodule)
    write_crops(tmp_path, 9, nodules[0], change=1)
    found = read(tmp_path)
    for number, nodule in enumerate(reversed(nodules)):
        scan = found[f"nodule-{number}"]
        (mine,) = scan.nodules
        for one, other in zip(mine.readings, nodule.readings, strict=True):
            assert (one.slot, one.ratings, one.annotation_id) == (other.slot, other.ratings, other.annotation_id)
            first = other.origin[0]
            np.testing.assert_array_equal(
                scan.z_mm[one.origin[0] : one.origin[0] + len(one.mask)], row.z_mm[first : first + len(other.mask)]
            )
        assert scan.spacing_mm == pytest.approx((2.5, 0.8203125, 0.8203125), rel=1e-5)
    other = found["nodule-9"]
    assert np.isnan([*other.z_mm, *other.spacing_mm]).all()
    assert {reading.ratings for reading in other.nodules[0].readings} == {(0,) * 9}


def test_real_crops_are_the_slices_at_their_positions(real_data: Path):
    """Each restored crop is, but for its own scale, the very pixels of the DICOM slice at its position."""
    (row,) = annotations.scan_rows_of_patient(PATIENT)
    of = {reading.annotation_id: reading for nodule in annotations.nodules(row) for reading in nodule.readings}
    series = dicom.read_series(sorted((real_data / "lidc-dicom" / "LIDC-IDRI" / PATIENT).rglob("*.dcm")))
    compared = 0
    for entry in slices.find(real_data / "lidc-slices.zip")[0]:
        if entry.patient_id != PATIENT:
            continue
        scan = slices.read(entry)
        for reading in scan.nodules[0].readings if np.isfinite(scan.z_mm).all() else ():
            theirs = of[reading.annotation_id]
            marked = np.argwhere(theirs.mask).min(axis=0)  # The database's boxes hold the outline, too.
            origin = marked + theirs.origin - reading.origin
            for number, crop in enumerate(scan.voxels):
                place = int(np.abs(series.z_mm - scan.z_mm[number]).argmin())
                assert series.z_mm[place] == pytest.approx(scan.z_mm[number], abs=1e-3)
                rows, columns = (slice(start, start + SIDE_PX) for start in origin[1:])
                hu = series.voxels[place, rows, columns]
                assert np.corrcoef(hu.ravel(), crop.ravel())[0, 1] > 0.999
                compared += 1
    assert compared > 20


def test_most_real_crops_are_certain(real_data: Path):
    entries = slices.find(real_data / "lidc-slices.zip")[0][::40]
    certain = [np.isfinite(slices.read(entry).z_mm).all() for entry in entries]
    assert len(certain) > 50
    assert 0.85 < np.mean(certain) < 1
