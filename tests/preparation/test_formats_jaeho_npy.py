"""`.npy` slices of LIDC-IDRI-Preprocessing: a slice of two nodules is read once, and no file is trusted."""

from __future__ import annotations

import io
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from lungjax.ct.scan import Scan
from lungjax.data import manifest, splits
from lungjax.data.shards import open_dataset
from lungjax.errors import Fault
from lungjax.preparation.formats import jaeho_npy
from lungjax.preparation.run import prepare
from lungjax.preparation.sources import FORMATS

SIDE_PX = 48
FIRST = {0: 3, 1: 5, 2: 20}
"""Slice of the scan in which each nodule begins; a file's number counts from there."""
SLICES = {0: 4, 1: 3, 2: 2}
JOINED = [3, 4, 5, 6, 7, 20, 21]
"""Slices of the scan in the order in which they are read; 5 and 6 are of two nodules."""


def slice_of(patient: int, number: int) -> np.ndarray:
    """float64 as the project stores it, computed in float32, and 0 where there is no lung."""
    rng = np.random.default_rng((patient, number))
    image = rng.normal(size=(SIDE_PX, SIDE_PX)).astype(np.float32).astype(np.float64)
    image[:8] = image[-8:] = 0
    return image


def mask_of(nodule: int, number: int) -> np.ndarray:
    """bool; nodules lie side by side, and each slice's mark lies elsewhere."""
    mask = np.zeros((SIDE_PX, SIDE_PX), bool)
    mask[12 + number : 18 + number, 12 * nodule + 2 : 12 * nodule + 8] = True
    return mask


def save(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, values)


def write_tree(root: Path, *, folders: bool = True) -> Path:
    """Patients 0001 and 0002 with three nodules each, and 0003 without; no meta_info.csv is ever looked at."""

    def folder(kind: str, patient: int) -> Path:
        return root / kind / (f"LIDC-IDRI-{patient:04}" if folders else "")

    for patient in (1, 2):
        for nodule, first in FIRST.items():
            for number in range(SLICES[nodule]):
                name = f"{nodule:03}_slice{number:03}.npy"
                save(folder("Image", patient) / f"{patient:04}_NI{name}", slice_of(patient, first + number))
                save(folder("Mask", patient) / f"{patient:04}_MA{name}", mask_of(nodule, number))
    for number in range(3):
        image = slice_of(3, number)
        save(folder("Clean/Image", 3) / f"0003_CN001_slice{number:03}.npy", image)
        save(folder("Clean/Mask", 3) / f"0003_CM001_slice{number:03}.npy", np.zeros_like(image))
    (root / "Meta").mkdir()
    (root / "Meta" / "meta_info.csv").write_text("patient_id,nodule_no\n0001,0\n")
    return root


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "set")


def read_all(source: Path) -> dict[str, Scan]:
    entries, quarantined = jaeho_npy.find(source)
    assert not quarantined
    return {entry.key: jaeho_npy.read(pickle.loads(pickle.dumps(entry))) for entry in entries}


def assert_equal(got: dict[str, Scan], wanted: dict[str, Scan]) -> None:
    assert list(got) == list(wanted)
    for key, scan in wanted.items():
        np.testing.assert_array_equal(got[key].voxels, scan.voxels)
        np.testing.assert_array_equal(got[key].reader_bits(), scan.reader_bits())
        assert len(got[key].nodules) == len(scan.nodules)


def test_patients_are_read_as_their_files_say(tree):
    scans = read_all(tree)
    assert list(scans) == ["LIDC-IDRI-0001", "LIDC-IDRI-0002", "LIDC-IDRI-0003"]
    scan = scans["LIDC-IDRI-0002"]
    assert (scan.patient_id, scan.study_uid, scan.series_uid) == ("LIDC-IDRI-0002",) * 3
    assert (scan.intensity, scan.voxels.dtype, scan.padding_hu) == ("zscore", np.float32, None)
    assert scan.sop_uids == ("",) * len(JOINED)
    assert np.isnan([*scan.z_mm, *scan.spacing_mm]).all()
    wanted = np.stack([slice_of(2, number) for number in JOINED])
    np.testing.assert_array_equal(scan.voxels.astype(np.float64), wanted)  # Not a bit is lost in float32.


def test_nodules_stay_apart_where_they_share_slices(tree):
    scan = read_all(tree)["LIDC-IDRI-0001"]
    assert [nodule.index for nodule in scan.nodules] == [0, 1, 2]
    united = np.zeros((len(JOINED), SIDE_PX, SIDE_PX), bool)
    for nodule in scan.nodules:
        (reading,) = nodule.readings
        assert (reading.slot, reading.annotation_id, reading.ratings) == (0, -1, (0,) * 9)
        wanted = np.zeros_like(united)
        for number in range(SLICES[nodule.index]):
            wanted[JOINED.index(FIRST[nodule.index] + number)] = mask_of(nodule.index, number)
        got = np.zeros_like(united)
        got[reading.box] = reading.mask
        np.testing.assert_array_equal(got, wanted)
        united |= wanted
    np.testing.assert_array_equal(scan.reader_bits(), united.astype(np.uint8))


def test_clean_patients_have_no_nodule(tree):
    scan = read_all(tree)["LIDC-IDRI-0003"]
    np.testing.assert_array_equal(scan.voxels, np.stack([slice_of(3, number) for number in range(3)]))
    assert scan.nodules == ()


def test_a_number_without_any_mark_is_no_nodule(tree):
    for path in (tree / "Mask/LIDC-IDRI-0001").glob("0001_MA001_*"):
        np.save(path, np.zeros((SIDE_PX, SIDE_PX), bool))
    scan = read_all(tree)["LIDC-IDRI-0001"]
    assert [(nodule.index, nodule.readings[0].origin[0]) for nodule in scan.nodules] == [(0, 0), (1, 5)]


def test_marks_of_a_nodule_that_has_one_image_twice_are_united(tree):
    folder = tree / "Image/LIDC-IDRI-0001"
    shutil.copy(folder / "0001_NI002_slice000.npy", folder / "0001_NI002_slice001.npy")
    scan = read_all(tree)["LIDC-IDRI-0001"]
    assert len(scan.voxels) == len(JOINED) - 1
    np.testing.assert_array_equal(scan.reader_bits()[-1] > 0, mask_of(2, 0) | mask_of(2, 1))


def test_one_slice_is_known_although_its_lungs_differ_at_the_rim(tree):
    """What the project takes for lung depends on chance; what both files kept still agrees."""
    image = slice_of(1, 5)
    image[8, :20] = image[30:34, 7] = 0
    np.save(tree / "Image/LIDC-IDRI-0001/0001_NI001_slice000.npy", image)
    scan = read_all(tree)["LIDC-IDRI-0001"]
    np.testing.assert_array_equal(scan.voxels, np.stack([slice_of(1, number) for number in JOINED]))


def test_other_slices_are_not_joined(tree):
    """Not for a difference of one pixel in one bit, nor for kept parts that hardly meet, nor for being black."""
    one_bit, apart, black = slice_of(1, 5), slice_of(1, 6), np.zeros((SIDE_PX, SIDE_PX))
    one_bit[9, 9] = np.nextafter(np.float32(one_bit[9, 9]), np.float32(9))
    apart[:24] = 0
    folder = tree / "Image/LIDC-IDRI-0001"
    for name, image in [("1_slice000", one_bit), ("1_slice001", apart), ("2_slice000", black), ("2_slice001", black)]:
        np.save(folder / f"0001_NI00{name}.npy", image)
    wanted = [*(slice_of(1, number) for number in (3, 4, 5, 6)), one_bit, apart, slice_of(1, 7), black, black]
    np.testing.assert_array_equal(read_all(tree)["LIDC-IDRI-0001"].voxels, np.stack(wanted).astype(np.float32))


@pytest.mark.parametrize("suffix", ["zip", "tar"])
def test_archives_equal_the_folder(tree, suffix):
    packed = Path(shutil.make_archive(str(tree), suffix, tree))
    assert jaeho_npy.matches(packed)
    assert_equal(read_all(packed), read_all(tree))


def test_folders_of_patients_may_be_missing_or_doubled(tree, tmp_path):
    wanted = read_all(tree)
    assert_equal(read_all(write_tree(tmp_path / "flat", folders=False)), wanted)
    for kind in ("Image", "Mask"):
        folder = tree / kind / "LIDC-IDRI-0001"
        folder.rename(tmp_path / kind)
        folder.mkdir()
        (tmp_path / kind).rename(folder / folder.name)
    assert_equal(read_all(tree), wanted)


@pytest.mark.parametrize("dtype", [">f8", np.float32, np.float64])
def test_floats_of_any_kind_and_order_are_read_alike(tree, dtype):
    wanted = read_all(tree)
    for path in tree.rglob("*_NI*.npy"):
        np.save(path, np.asfortranarray(np.load(path).astype(dtype)))
    assert_equal(read_all(tree), wanted)


def test_this_layout_is_told_from_the_others(tree, kaggle_tree, tmp_path):
    (tmp_path / "other").mkdir()
    np.save(tmp_path / "other" / "0001_NI000_slice000.npy", np.zeros(3))  # Neither of Image nor of Mask.
    assert [name for name, module in FORMATS.items() if module.matches(tree)] == ["jaeho-npy"]
    assert not jaeho_npy.matches(kaggle_tree)
    assert not jaeho_npy.matches(tmp_path / "other")


def test_a_file_in_two_places_is_quarantined(tree):
    shutil.copytree(tree / "Image/LIDC-IDRI-0002", tree / "copy/Image/LIDC-IDRI-0002")
    entries, quarantined = jaeho_npy.find(tree)
    assert [entry.key for entry in entries] == ["LIDC-IDRI-0001", "LIDC-IDRI-0003"]
    assert [(one.key, one.name) for one in quarantined] == [("LIDC-IDRI-0002", "duplicate_positions")]


class Bomb:
    """Unpickled, it would leave a file behind."""

    def __reduce__(self):
        return Path("unpickled").touch, ()


def npy_bytes(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, values, allow_pickle=True)
    return file.getvalue()


def claim(shape: tuple[int, ...]) -> bytes:
    """A header that asks for that many float64, and few bytes behind it."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return file.getvalue() + bytes(800)


FLAT = np.zeros((SIDE_PX, SIDE_PX))
IMAGE, MASK = "Image/LIDC-IDRI-0001/0001_NI001_slice001.npy", "Mask/LIDC-IDRI-0001/0001_MA001_slice001.npy"
OBJECTS = np.array([[Bomb()]], object)
DAMAGE = {
    "no mask": (MASK, None, "missing_mask", "an image but no mask of nodule 001, slice 001"),
    "no image": (IMAGE, None, "missing_image", "a mask but no image of nodule 001, slice 001"),
    "mask shape": (
        MASK,
        npy_bytes(FLAT[1:] > 0),
        "mask_shape",
        r"has \(47, 48\) pixels, but the images have \(48, 48\)",
    ),
    "image shape": (IMAGE, npy_bytes(FLAT[1:]), "mixed_geometry", "several sizes"),
    "objects": (IMAGE, npy_bytes(OBJECTS), "object_array", "image of nodule 001, slice 001 holds Python objects"),
    "mask of objects": (MASK, npy_bytes(OBJECTS), "object_array", "mask of nodule 001, slice 001 holds Python"),
    "a pickle": (IMAGE, pickle.dumps(Bomb()), "unreadable_file", "cannot be read"),
    "no npy": (IMAGE, b"<html>404</html>", "unreadable_file", "cannot be read"),
    "empty": (MASK, b"", "unreadable_file", "cannot be read"),
    "truncated": (IMAGE, npy_bytes(FLAT)[:-1], "unreadable_file", "it has 18559 of 18560 bytes"),
    "too long": (IMAGE, npy_bytes(FLAT) + b"0", "unreadable_file", "it has 18561 of 18560 bytes"),
    "header cut": (IMAGE, npy_bytes(FLAT)[:60], "unreadable_file", "cannot be read"),
    "huge": (IMAGE, claim((10**9, 10**9)), "unreadable_file", "it has 928 of 8000000000000000128 bytes"),
    "negative": (IMAGE, claim((-10, -10)), "unreadable_file", "cannot be read"),
    "version 3": (IMAGE, b"\x93NUMPY\x03" + npy_bytes(FLAT)[7:], "unreadable_file", "version 3.0"),
    "volume": (IMAGE, npy_bytes(np.zeros((2, 3, 4))), "not_2d", r"its shape is \(2, 3, 4\)"),
    "no pixel": (IMAGE, npy_bytes(np.zeros((0, 4))), "not_2d", r"its shape is \(0, 4\)"),
    "integers": (IMAGE, npy_bytes(np.zeros((SIDE_PX, SIDE_PX), np.int16)), "not_float", "holds int16"),
    "NaN": (IMAGE, npy_bytes(np.where(np.eye(SIDE_PX), np.nan, 0)), "not_finite", "NaN or infinite"),
    "infinite": (IMAGE, npy_bytes(FLAT - np.inf), "not_finite", "NaN or infinite"),
    "mask NaN": (MASK, npy_bytes(FLAT * np.nan), "not_finite", "mask of nodule 001, slice 001 holds NaN"),
    "mask of text": (MASK, npy_bytes(np.array([["a"]])), "not_a_label", "holds <U1"),
    "HU": (IMAGE, npy_bytes(FLAT - 48.5), "not_zscore", "holds -48.5 to -48.5, which cannot be z-scores"),
}


@pytest.mark.parametrize(("file", "data", "name", "says"), DAMAGE.values(), ids=DAMAGE)
def test_faults_have_names_and_stop_no_other(tree, tmp_path, monkeypatch, file, data, name, says):
    monkeypatch.chdir(tmp_path)
    (tree / file).unlink()
    if data is not None:
        (tree / file).write_bytes(data)
    (bad,) = (entry for entry in jaeho_npy.find(tree)[0] if entry.key == "LIDC-IDRI-0001")
    with pytest.raises(Fault, match=says) as caught:
        jaeho_npy.read(bad)
    assert caught.value.name == name
    assert not Path("unpickled").exists()
    summary = prepare(tree, tmp_path / "out", workers=1)
    assert (summary.scans, summary.slices, summary.quarantined) == (2, len(JOINED) + 3, {name: 1})


def test_z_scores_at_the_limit_are_read(tree):
    """One pixel among zeros lies sqrt(n - 1) deviations from the mean: nothing lies further."""
    image = FLAT.copy()
    image[20, 20] = 1
    image = (image - image.mean()) / image.std()
    np.save(tree / IMAGE, image)
    assert read_all(tree)["LIDC-IDRI-0001"].voxels.max() == pytest.approx(np.sqrt(SIDE_PX**2 - 1), rel=1e-6)


def test_damage_within_an_archive_has_a_name(tree):
    packed = Path(shutil.make_archive(str(tree), "zip", tree))
    data = bytearray(packed.read_bytes())
    data[data.index(b"0001_NI000_slice000.npy") + 100] ^= 0xFF  # In the compressed bytes of the first image.
    packed.write_bytes(data)
    with pytest.raises(Fault, match="image of nodule 000, slice 000 cannot be read") as caught:
        jaeho_npy.read(jaeho_npy.find(packed)[0][0])
    assert caught.value.name == "unreadable_file"


def test_prepared_by_patient(tree, tmp_path):
    """`auto` finds the format, what it made opens, and the split is the one that these patients have anywhere."""
    prepare(tree, tmp_path / "out", workers=1)
    dataset = open_dataset(tmp_path / "out", verify=True)
    described = json.loads((tmp_path / "out" / manifest.MANIFEST).read_text())
    assert (described["source"]["format"], dataset.intensity) == ("jaeho-npy", "zscore")
    patients = [f"LIDC-IDRI-{number:04}" for number in (1, 2, 3)]
    assert described["split"]["patients"] == {patient: splits.split_of(patient) for patient in patients}
    assert described["counts"]["nodules"] == 6
    index = dataset.index.set_index(["patient_id", "slice_index"])
    assert index.loc["LIDC-IDRI-0001", "nodules"].tolist() == [1, 1, 2, 2, 1, 1, 1]
    assert index.loc["LIDC-IDRI-0003", "nodules"].tolist() == [0, 0, 0]
    assert dataset.readers == described["readers"] == 1
    assert index[["malignancy_median", "lung_area_mm2", "z_mm"]].isna().to_numpy().all()
    scans = read_all(tree)
    for record in dataset.read(range(len(dataset))):
        scan = scans[record.patient_id]
        np.testing.assert_array_equal(record.image, scan.voxels[record.slice_index])
        np.testing.assert_array_equal(record.readers, scan.reader_bits()[record.slice_index])
        assert index.loc[(record.patient_id, record.slice_index), "majority_px"] == np.count_nonzero(record.readers)
