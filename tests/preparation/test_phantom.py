"""The phantom as written to disk: what pydicom, dciodvfy and lungjax's own LIDC path find in it."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
from scipy import ndimage

from lungjax.ct.scan import Nodule
from lungjax.lidc import annotations
from lungjax.lidc.annotations import ScanRow
from lungjax.preparation import phantom
from lungjax.preparation.formats import lidc
from lungjax.preparation.phantom import header, image, writer
from lungjax.preparation.phantom.selection import choose

SEED, SCANS, MATRIX = 28, 2, 128
"""Two short scans, one with a large nodule that all four readers rated solid."""


@dataclasses.dataclass(frozen=True)
class Written:
    """One series, read back with pydicom alone; `files` in the order of `row.z_mm`."""

    row: ScanRow
    paths: list[Path]
    files: list[pydicom.FileDataset]
    hu: np.ndarray  # (slices, rows, columns) float


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("phantom") / "dicom"
    phantom.write(out, scans=SCANS, seed=SEED, matrix=MATRIX, workers=1)
    return out


@pytest.fixture(scope="module")
def series(tree: Path) -> list[Written]:
    found = []
    for folder in sorted(tree.glob("LIDC-IDRI/*/*/*")):
        row = annotations.scan_row(folder.name)
        assert row is not None
        pairs = [(path, pydicom.dcmread(path)) for path in folder.iterdir()]
        pairs.sort(key=lambda pair: float(pair[1].ImagePositionPatient[2]))
        files = [data for _, data in pairs]
        hu = np.stack([data.pixel_array * data.RescaleSlope + data.RescaleIntercept for data in files])
        found.append(Written(row, [path for path, _ in pairs], files, hu.astype(float)))
    assert len(found) == SCANS
    return found


def test_folders_positions_spacing_and_uids_are_the_databases(series: list[Written]):
    for one in series:
        row = one.row
        expected = Path("LIDC-IDRI", row.patient_id, row.study_uid, row.series_uid)
        assert all(path.parent.as_posix().endswith(expected.as_posix()) for path in one.paths)
        assert {path.name for path in one.paths} == {f"{k + 1:06d}.dcm" for k in range(len(row.z_mm))}
        z_mm = [float(data.ImagePositionPatient[2]) for data in one.files]
        np.testing.assert_allclose(z_mm, row.z_mm, rtol=0, atol=1e-5)
        for data in one.files:
            assert (data.PatientID, data.StudyInstanceUID) == (row.patient_id, row.study_uid)
            assert data.SeriesInstanceUID == row.series_uid
            assert (data.Rows, data.Columns) == (MATRIX, MATRIX)
            # The same field of view: 512 pixels of the database's size, its centre at x = y = 0.
            spacing_mm = [float(value) for value in data.PixelSpacing]
            np.testing.assert_allclose(spacing_mm, row.pixel_spacing_mm * 512 / MATRIX, rtol=1e-5)
            corner_mm = -spacing_mm[0] * (MATRIX - 1) / 2
            np.testing.assert_allclose([float(v) for v in data.ImagePositionPatient[:2]], corner_mm, atol=1e-3)


def test_instances_are_distinct_and_file_names_tell_no_order(series: list[Written]):
    sop_uids = [data.SOPInstanceUID for one in series for data in one.files]
    assert len(set(sop_uids)) == len(sop_uids)
    for one in series:
        numbers = [int(data.InstanceNumber) for data in one.files]
        assert numbers == list(range(len(numbers), 0, -1))
        assert [path.name for path in one.paths] != sorted(path.name for path in one.paths)


def _marks(nodule: Nodule, shape: tuple[int, ...]) -> np.ndarray:
    """How many readers marked each voxel."""
    count = np.zeros(shape, np.uint8)
    for reading in nodule.readings:
        count[reading.box] += reading.mask
    return count


def _wider(mask: np.ndarray, pixels: int = 1) -> np.ndarray:
    """Every slice's mask, dilated by a square."""
    side = 2 * pixels + 1
    return np.asarray(ndimage.maximum_filter(mask, (1, side, side)))


def test_solid_nodules_stand_out_of_lung_where_all_readers_agree(series: list[Written]):
    solid = 0
    for one in series:
        nodules = annotations.nodules(one.row, matrix=MATRIX)
        for nodule in nodules:
            count = _marks(nodule, one.hu.shape)
            core = ~_wider(count < 4)  # away from the edge's pixels
            textures = [reading.ratings[7] for reading in nodule.readings]
            if not core.any() or np.mean(textures) < 5:
                continue
            reach = _wider(count > 0)
            near = _wider(reach) & ~reach
            # Solid is +30 HU, lung about -860; noise of <= 32 HU vanishes in the medians.
            assert -40 < np.median(one.hu[core]) < 100
            assert np.median(one.hu[near]) < -650
            solid += 1
    assert solid >= 1


def test_every_nodule_is_denser_than_the_lung_around_it(series: list[Written]):
    for one in series:
        for nodule in annotations.nodules(one.row, matrix=MATRIX):
            count = _marks(nodule, one.hu.shape)
            if count.max() < 2:
                continue
            inside = one.hu[count >= 2]
            around = one.hu[_wider(count > 0, 3) & (count == 0)]
            assert np.median(inside) > np.percentile(around, 40) + 150


def test_air_and_lung_are_there(series: list[Written]):
    for one in series:
        middle = one.hu[len(one.hu) // 2]
        lung = np.mean((middle > -950) & (middle < -750))
        assert 0.1 < lung < 0.6
        assert np.mean((middle > -50) & (middle < 120)) > 0.08


def test_reads_back_through_the_lidc_path(tree: Path, series: list[Written]):
    entries, quarantined = lidc.find(tree)
    assert (len(entries), quarantined) == (SCANS, [])
    rows = {one.row.series_uid: one for one in series}
    for entry in entries:
        scan = lidc.read(entry)
        one = rows[entry.key]
        np.testing.assert_array_equal(scan.voxels, one.hu)
        expected = annotations.nodules(one.row, matrix=MATRIX)
        assert [len(n.readings) for n in scan.nodules] == [len(n.readings) for n in expected]
        for nodule, other in zip(scan.nodules, expected, strict=True):
            assert [r.ratings for r in nodule.readings] == [r.ratings for r in other.readings]
        assert scan.reader_bits().any()


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_same_bytes_on_any_number_of_workers(tree: Path, tmp_path: Path):
    phantom.write(tmp_path / "again", scans=SCANS, seed=SEED, matrix=MATRIX, workers=2)
    assert _digests(tmp_path / "again") == _digests(tree)
    assert [path.name for path in tmp_path.iterdir()] == ["again"]


def test_seed_decides_what_chance_draws():
    row = choose(1, seed=SEED)[0]
    first, again, other = (next(image.slices(row, matrix=32, rng=np.random.default_rng(seed))) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).mean() > 10


def _dciodvfy_errors(path: Path) -> list[str]:
    program = shutil.which("dciodvfy")
    if program is None:
        pytest.skip("dciodvfy (Debian: dicom3tools) is not on PATH: the headers are not validated")
    report = subprocess.run([program, str(path)], capture_output=True, text=True, check=False)
    lines = (report.stdout + report.stderr).splitlines()
    assert "CTImage" in lines, f"dciodvfy did not judge {path}: {lines}"
    return [line for line in lines if line.startswith("Error")]


def test_dciodvfy_finds_no_error_in_the_tree(series: list[Written]):
    for one in series:
        for path in one.paths[:: len(one.paths) // 4]:
            assert _dciodvfy_errors(path) == []


@pytest.mark.parametrize("machine", header.SCANNERS, ids=lambda machine: machine.model)
def test_each_scanner_stores_hu_and_padding_its_own_way(machine: header.Scanner, tmp_path: Path):
    row = annotations.all_scans()[0]
    inside = writer.reconstruction_circle(64)
    hu = np.random.default_rng(0).uniform(-1000, 3000, size=(64, 64)).astype(np.float32)
    data = header.series(row, machine, matrix=64)
    pixels = machine.stored(hu, inside)
    header.place(data, row, slice_index=3, sop_uid=header.uid("test"), pixels=pixels)
    data.save_as(tmp_path / "one.dcm", enforce_file_format=True)

    read = pydicom.dcmread(tmp_path / "one.dcm")
    back = read.pixel_array * float(read.RescaleSlope) + float(read.RescaleIntercept)
    np.testing.assert_array_equal(back[inside], np.rint(hu)[inside])
    outside_hu = {"LightSpeed Plus": -3024, "LightSpeed16": -2048, "Sensation 16": -1024}
    if machine.model in outside_hu:
        assert set(back[~inside]) == {outside_hu[machine.model]}
    assert _dciodvfy_errors(tmp_path / "one.dcm") == []
