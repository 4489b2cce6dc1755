"""Patches with ratings in one `.npz`: nothing is lost of it, and ratings without outlines count in the index."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from lungjax.ct.scan import RATING_NAMES, Scan
from lungjax.data import index_columns, manifest, splits
from lungjax.data.loader import Slices
from lungjax.data.shards import open_dataset
from lungjax.errors import Fault, InputError
from lungjax.lidc import annotations as database
from lungjax.preparation.formats import nodule_patches
from lungjax.preparation.run import prepare
from lungjax.preparation.sources import FORMATS

SIDE_PX = 15
PATIENTS = ("LIDC-IDRI-0001", "LIDC-IDRI-0003", "MADE-UP-1")
SERIES_ENDS = ("179049373636438705059720603192", "170706757615202213033480003264")
SERIES_OF_ROW = (0, 1, 1, 2, 1, 2)

Columns = dict[str, np.ndarray]


@pytest.fixture
def columns() -> Columns:
    """Two series of LIDC-IDRI with one and three nodules, and one that its database does not know with two.

    Positions fall from row to row, and the ratings stand in another order than that of `RATING_NAMES`.
    """
    rng = np.random.default_rng(0)
    rows = len(SERIES_OF_ROW)
    series = [f"1.3.6.1.4.1.14519.5.2.1.6279.6001.{end}" for end in SERIES_ENDS] + ["1.2.3.4"]
    ratings = rng.integers(1, 6, (rows, 4, 9), np.int8)
    ratings[1, 1] = ratings[2, :3] = ratings[5] = 0  # One reader silent, three, all.
    ratings[0, 0, 3] = 0  # One rating of a reader who gave the others.
    return {
        "hu": rng.integers(-1024, 1500, (rows, SIDE_PX, SIDE_PX), np.int16),
        "nodule_id": np.array([str(row) for row in range(rows)]),
        "patient_id": np.array([PATIENTS[number] for number in SERIES_OF_ROW]),
        "series_uid": np.array([series[number] for number in SERIES_OF_ROW]),
        "sop_uid": np.array([f"1.2.{row}" for row in range(rows)]),
        "z_mm": np.array([10.5, -3.0, -4.5, -5.0, -6.0, -7.5]),
        "pixel_spacing_mm": np.array([0.5, 0.75, 0.625])[[*SERIES_OF_ROW]],
        "drawn_by_ratings": ratings[:, 0],
        "reader_ratings": ratings,
        "rating_names": np.array(RATING_NAMES[::-1]),
    }


@pytest.fixture
def file(columns: Columns, tmp_path: Path) -> Path:
    return save(tmp_path / "patches.npz", columns)


def save(path: Path, columns: Columns) -> Path:
    np.savez_compressed(path, allow_pickle=True, **columns)
    return path


def read_all(source: Path) -> dict[str, Scan]:
    entries, quarantined = nodule_patches.find(source)
    assert not quarantined
    return {entry.key: nodule_patches.read(pickle.loads(pickle.dumps(entry))) for entry in entries}


def test_a_series_is_read_as_the_file_says(file, columns):
    scans = read_all(file)
    assert list(scans) == sorted(set(columns["series_uid"].tolist()))
    scan = scans[str(columns["series_uid"][1])]
    known = database.scan_row(scan.series_uid)
    assert known is not None
    assert (scan.patient_id, scan.study_uid) == ("LIDC-IDRI-0003", known.study_uid)
    assert (scan.intensity, scan.voxels.dtype, scan.padding_hu) == ("hu", np.int16, None)
    np.testing.assert_array_equal(scan.voxels, columns["hu"][[4, 2, 1]])  # From the lowest to the highest.
    np.testing.assert_array_equal(scan.z_mm, [-6.0, -4.5, -3.0])
    np.testing.assert_array_equal(scan.spacing_mm, [np.nan, 0.75, 0.75])
    assert scan.sop_uids == ("1.2.4", "1.2.2", "1.2.1")
    assert not scan.reader_bits().any()
    assert scans["1.2.3.4"].study_uid == "1.2.3.4"  # Of no study that anyone knows.


def test_readers_who_rated_have_a_reading_each(file, columns):
    scans = read_all(file)
    scan = scans[str(columns["series_uid"][1])]
    by_name = [columns["rating_names"].tolist().index(name) for name in RATING_NAMES]
    for nodule, row, readers in zip(scan.nodules, (4, 2, 1), ([0, 1, 2, 3], [3], [0, 2, 3]), strict=True):
        assert [reading.slot for reading in nodule.readings] == list(range(len(readers)))
        wanted = columns["reader_ratings"][row][readers][:, by_name]
        np.testing.assert_array_equal([reading.ratings for reading in nodule.readings], wanted)
        assert all(reading.origin[0] == nodule.index and not reading.mask.any() for reading in nodule.readings)
    partly = scans[str(columns["series_uid"][0])].nodules[0].readings[0].ratings
    assert [rating == 0 for rating in partly] == [name == RATING_NAMES[::-1][3] for name in RATING_NAMES]


def test_nodules_of_one_slice_keep_the_order_of_the_file(file, columns):
    many = {name: values if name == "rating_names" else np.tile(values.T, 20).T for name, values in columns.items()}
    many["z_mm"] = np.random.default_rng(0).integers(0, 3, 120).astype(np.float64)
    many["hu"] += np.arange(120, dtype=np.int16)[:, None, None]
    series_uid = str(columns["series_uid"][1])
    scan = read_all(save(file, many))[series_uid]
    rows = sorted(np.flatnonzero(many["series_uid"] == series_uid), key=lambda row: (many["z_mm"][row], row))
    np.testing.assert_array_equal(scan.voxels, many["hu"][rows])


def test_it_is_known_by_content_and_told_from_the_others(file, columns, kaggle_tree, tmp_path):
    for name in ("patches.npz", "patches.zip", "patches"):
        path = tmp_path / "named" / name
        path.parent.mkdir(exist_ok=True)
        shutil.copy(file, path)
        assert [name for name, module in FORMATS.items() if module.matches(path)] == ["nodule-patches"]
    packed = shutil.make_archive(str(tmp_path / "kaggle"), "zip", kaggle_tree)
    assert [name for name, module in FORMATS.items() if module.matches(Path(packed))] == ["slices"]
    assert not nodule_patches.matches(kaggle_tree)
    assert not nodule_patches.matches(file.parent)
    assert not nodule_patches.matches(file.with_name("nothing"))
    file.write_bytes(file.read_bytes()[:-30])
    assert not nodule_patches.matches(file)
    del columns["hu"]
    assert not nodule_patches.matches(save(file, columns))


def test_a_file_that_was_replaced_is_read_again(file, columns):
    assert len(read_all(file)) == 3
    columns["series_uid"][:] = "1.2.3.4"
    columns["patient_id"][:] = PATIENTS[2]
    columns["pixel_spacing_mm"][:] = 1
    save(file, columns)
    os.utime(file, ns=(1, 1))
    (scan,) = read_all(file).values()
    np.testing.assert_array_equal(scan.voxels, columns["hu"][::-1])


class Bomb:
    """Unpickled, it would leave a file behind."""

    def __reduce__(self):
        return Path("unpickled").touch, ()


DAMAGE = {
    "objects": ("hu", np.array([Bomb()], object), "hu.npy holds Python objects, which are never loaded"),
    "hu float": ("hu", np.zeros((6, 5, 5)), r"hu is float64 \(6, 5, 5\), not patches of int16 HU"),
    "hu flat": ("hu", np.zeros((6, 5), np.int16), r"hu is int16 \(6, 5\), not patches"),
    "no nodule": ("hu", np.zeros((0, 5, 5), np.int16), r"hu is int16 \(0, 5, 5\), not patches"),
    "a row short": ("z_mm", np.zeros(5), r"z_mm is float64 \(5,\) beside 6 patches"),
    "names as numbers": ("patient_id", np.arange(6), r"patient_id is int64 \(6,\) beside"),
    "three readers": ("reader_ratings", np.ones((6, 3, 9), np.int8), r"reader_ratings is int8 \(6, 3, 9\) beside"),
    "ratings float": ("reader_ratings", np.ones((6, 4, 9)), "reader_ratings is float64"),
    "a name twice": ("rating_names", np.array(["texture"] * 9), "rating_names are .*, not .*subtlety"),
    "a name missing": ("rating_names", np.array(["texture"] * 8), r"rating_names is <U7 \(8,\) beside"),
}


@pytest.mark.parametrize(("name", "values", "says"), DAMAGE.values(), ids=DAMAGE)
def test_a_file_of_other_arrays_is_one_sentence(file, columns, tmp_path, monkeypatch, name, values, says):
    monkeypatch.chdir(tmp_path)
    save(file, {**columns, name: values})
    with pytest.raises(InputError, match=says):
        prepare(file, tmp_path / "out", workers=1)
    assert not Path("unpickled").exists()


def test_a_broken_file_is_one_sentence(file, columns):
    whole = file.read_bytes()
    start = zipfile.ZipFile(file).getinfo("z_mm.npy").header_offset
    content = start + 30 + len("z_mm.npy") + int.from_bytes(whole[start + 28 : start + 30], "little")
    for place in (start, content, content + 20):  # What the directory points at, the packed bytes, their checksum.
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        file.write_bytes(damaged)
        with pytest.raises(InputError, match=r"cannot be read as \.npz"):
            nodule_patches.find(file)
    file.write_bytes(b"no zip")
    with pytest.raises(InputError, match=r"cannot be read as \.npz \(File is not a zip file\); fetch it again"):
        nodule_patches.find(file)
    save(file, {name: values for name, values in columns.items() if name != "z_mm"})
    with pytest.raises(InputError, match=r"is no file of nodule patches \(There is no item named 'z_mm.npy'"):
        nodule_patches.find(file)


def test_a_header_alone_asks_for_no_memory(file, columns):
    """10^9 patches of 10^9 pixels, by a header; the zip itself is whole."""
    save(file, {name: values for name, values in columns.items() if name != "hu"})
    with zipfile.ZipFile(file, "a") as archive, archive.open("hu.npy", "w") as member:
        header = {"descr": "<i2", "fortran_order": False, "shape": (10**9, 10**5, 10**4)}
        np.lib.format.write_array_header_1_0(member, header)
    with pytest.raises(InputError, match="it has 128 of 2000000000000000128 bytes"):
        nodule_patches.find(file)


@pytest.mark.parametrize(
    ("column", "row", "value", "name", "says"),
    [
        ("patient_id", 2, PATIENTS[0], "several_patients", "of LIDC-IDRI-0001 and of LIDC-IDRI-0003"),
        ("patient_id", [1, 2, 4], "MADE-UP-1", "several_patients", "of LIDC-IDRI-0003 and of MADE-UP-1"),
        ("z_mm", 2, np.nan, "not_finite", "z_mm holds NaN"),
        ("pixel_spacing_mm", 2, np.inf, "not_finite", "pixel_spacing_mm holds NaN or infinite"),
        ("pixel_spacing_mm", 2, 0.5, "mixed_geometry", r"pixel spacings \[0.5, 0.75\], not one above 0"),
        ("pixel_spacing_mm", [1, 2, 4], 0, "mixed_geometry", r"pixel spacings \[0.0\], not one"),
        ("reader_ratings", 2, 7, "rating_out_of_range", "ratings from 1 to 7, not from 0 to 6"),
        ("reader_ratings", 2, -1, "rating_out_of_range", "ratings from -1 to"),
    ],
)
def test_faults_have_names_and_stop_no_other(file, columns, tmp_path, column, row, value, name, says):
    columns["reader_ratings"][1] = 1  # Else silent readers, of 0, are the lowest.
    columns[column][row] = value
    save(file, columns)
    summary = prepare(file, tmp_path / "out", workers=1)
    assert (summary.scans, summary.slices, summary.quarantined) == (2, 3, {name: 1})
    (line,) = (tmp_path / "out" / manifest.QUARANTINE).read_text().splitlines()
    assert str(columns["series_uid"][1]) == json.loads(line)["key"]
    with pytest.raises(Fault, match=says):
        raise Fault(json.loads(line)["name"], json.loads(line)["message"])


def test_prepared_by_patient(file, columns, tmp_path):
    """`auto` finds the format, what it made opens, and the loader reads it."""
    prepare(file, tmp_path / "out", workers=1)
    dataset = open_dataset(tmp_path / "out", verify=True)
    described = json.loads((tmp_path / "out" / manifest.MANIFEST).read_text())
    assert (described["source"]["format"], dataset.intensity) == ("nodule-patches", "hu")
    assert described["split"]["patients"] == {patient: splits.split_of(patient) for patient in PATIENTS}
    assert (described["counts"]["nodules"], described["counts"]["annotations"]) == (6, 4 + 3 + 1 + 4 + 4)
    index = dataset.index
    assert index["slice_index"].tolist() == [0, 0, 1, 2, 0, 1]
    assert index["nodules"].tolist() == [1, 1, 1, 1, 0, 1]  # A nodule that nobody rated is none of the index.
    assert not index[["readers_marked", "majority_px"]].to_numpy().any()
    assert index[["slice_spacing_mm", "lung_area_mm2"]].isna().to_numpy().all()  # A patch is no chest.
    assert index["row_spacing_mm"].tolist() == [0.5, 0.75, 0.75, 0.75, 0.625, 0.625]
    batch = Slices(dataset, crop_px=8, crop_at="nodule").batch(np.arange(6))
    np.testing.assert_array_equal(batch["scan"], [0, 1, 1, 1, 2, 2])
    np.testing.assert_array_equal(batch["image"][0], columns["hu"][0, 4:12, 4:12])


def test_the_real_file_is_kept_to_the_last_bit(real_data, tmp_path):
    source = real_data / "lidc-nodules.npz"
    summary = prepare(source, tmp_path / "out", workers=1)
    assert (summary.slices, sum(summary.patients.values()), summary.quarantined) == (2171, 690, {})
    dataset = open_dataset(tmp_path / "out", verify=True)
    with np.load(source, allow_pickle=False) as stored:
        columns = {name: stored[name] for name in stored.files}
    names = columns["rating_names"].tolist()
    assert names == list(RATING_NAMES)
    malignancy = columns["reader_ratings"][:, :, names.index("malignancy")]
    medians = np.nanmedian(np.where(malignancy, malignancy, np.nan), axis=1)
    order = np.lexsort((columns["z_mm"], columns["series_uid"], columns["patient_id"]))  # That of an index.
    np.testing.assert_array_equal(dataset.index["malignancy_median"], medians[order])
    for row, record in zip(order, dataset.read(range(len(dataset))), strict=True):
        np.testing.assert_array_equal(record.image, columns["hu"][row])
        for name in ("patient_id", "series_uid", "sop_uid", "z_mm"):
            assert getattr(record, name) == columns[name][row]
        assert record.spacing_mm[1:] == (columns["pixel_spacing_mm"][row],) * 2
        (nodule,) = record.nodules
        rated = columns["reader_ratings"][row]
        ratings = [reading["ratings"] for reading in nodule["readings"]]
        np.testing.assert_array_equal(ratings, rated[rated.any(axis=1)])
    assert (dataset.index["nodules"] == 1).to_numpy().all()
    assert dataset.index["lung_area_mm2"].isna().to_numpy().all()
    assert set(dataset.index.columns) >= set(index_columns.ROW_COLUMNS)


def test_outlines_of_the_file_are_kept(file, columns, tmp_path):
    """Of readers who rated, and of one who only marked; where the file has outlines the database is not asked."""
    bits = np.zeros(columns["hu"].shape, np.uint8)
    bits[0, 2:5, 3:6], bits[0, 4, 4] = 0b0101, 0b1101
    bits[5, 1, 1] = 0b0010
    save(file, {**columns, "reader_outlines": bits})
    scans = read_all(file)
    (nodule,) = scans[str(columns["series_uid"][0])].nodules
    assert [int(reading.mask.sum()) for reading in nodule.readings] == [9, 0, 9, 1]
    silent = next(one for one in scans["1.2.3.4"].nodules if any(reading.mask.any() for reading in one.readings))
    assert [(reading.slot, reading.ratings) for reading in silent.readings] == [(0, (0,) * 9)]
    for wrong in (bits.astype(np.int16), bits[:, :3], np.full_like(bits, 16)):
        save(file, {**columns, "reader_outlines": wrong})
        with pytest.raises(InputError, match=r"reader_outlines is .*, not uint8 .*leave it out or mend it"):
            prepare(file, tmp_path / "out", workers=1)
