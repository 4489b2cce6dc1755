"""The Probabilistic U-Net's crops, as pickle and as HDF5: pixels, readers, patients or their lack."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from lungjax import cli
from lungjax.data import manifest, shards, splits
from lungjax.errors import InputError
from lungjax.lidc import annotations
from lungjax.preparation.formats import prob_unet_hdf5, prob_unet_pickle
from lungjax.preparation.run import prepare

SIDE_PX = 16
SERIES = {
    "LIDC-IDRI-0003": "1.3.6.1.4.1.14519.5.2.1.6279.6001.170706757615202213033480003264",
    "LIDC-IDRI-0001": "1.3.6.1.4.1.14519.5.2.1.6279.6001.179049373636438705059720603192",
}


def records(slices: int = 11) -> dict[str, dict[str, Any]]:
    """Both series, slices in no order; reader 2 never marks anything."""
    rng = np.random.default_rng(0)
    made = {}
    for number, uid in enumerate(SERIES.values()):
        for index in rng.permutation(slices).tolist():
            masks = [(rng.random((SIDE_PX, SIDE_PX)) < 0.2 * (reader != 2)).astype(np.uint8) for reader in range(4)]
            image = rng.random((SIDE_PX, SIDE_PX))
            made[f"{number}_slice{index}"] = {"image": image, "masks": masks, "series_uid": uid}
    return made


def write_pickle(path: Path, content: Any, protocol: int | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol))
    return path


def write_hdf5(path: Path, *, labels_last: bool = True, change: Callable[[h5py.File], None] | None = None) -> Path:
    """Three series in train, two in val and in test, of three slices each, mixed."""
    rng = np.random.default_rng(1)
    with h5py.File(path, "w") as file:
        for split, uids in (("train", (-5, 7, 9)), ("val", (11, -12)), ("test", (21, 22))):
            count = 3 * len(uids)
            labels = (rng.random((count, SIDE_PX, SIDE_PX, 4)) < 0.2).astype(np.uint8)
            group = file.create_group(split)
            group["images"] = rng.random((count, SIDE_PX, SIDE_PX)) - 0.5
            group["labels"] = labels if labels_last else np.moveaxis(labels, -1, 1)
            group["uids"] = np.tile(uids, 3)
        if change is not None:
            change(file)
    return path


def bits(masks: np.ndarray) -> np.ndarray:
    """(4, rows, columns) -> uint8, bit r of reader r."""
    return sum((np.asarray(mask, np.uint8) << slot for slot, mask in enumerate(masks)), np.uint8(0))  # pyright: ignore


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("name", ["data_lidc.pickle", "LIDC/data_lidc.PKL"])
def test_a_pickle_becomes_series_of_patients(tmp_path, protocol, name):
    made = records()
    file = write_pickle(tmp_path / name, made, protocol)
    source = file if "/" not in name else file.parent
    summary = prepare(source, tmp_path / "out", workers=2)
    dataset = shards.open_dataset(tmp_path / "out", verify=True)
    assert (summary.scans, summary.slices) == (2, 22)
    assert dataset.manifest["source"]["format"] == "prob-unet-pickle"
    assert dataset.intensity == "fraction"
    assert dataset.manifest["split"]["patients"] == dict.fromkeys(sorted(SERIES), "test")
    for record in dataset.read(range(22)):
        number = list(SERIES).index(record.patient_id)
        source_record = made[f"{number}_slice{record.slice_index}"]  # 10 after 9, not after 1.
        np.testing.assert_array_equal(record.image, source_record["image"].astype(np.float32))
        np.testing.assert_array_equal(record.readers, bits(source_record["masks"]))
        row = annotations.scan_row(record.series_uid)
        assert row is not None
        assert row.patient_id == record.patient_id
        assert not record.readers.max() & 4


def test_masks_in_one_array_are_masks(tmp_path):
    made = records(2)
    file = write_pickle(
        tmp_path / "x.pickle", {name: {**one, "masks": np.stack(one["masks"])} for name, one in made.items()}
    )
    prepare(file, tmp_path / "out", workers=1)
    record = shards.open_dataset(tmp_path / "out").read([0])[0]
    number = list(SERIES).index(record.patient_id)
    np.testing.assert_array_equal(record.readers, bits(made[f"{number}_slice0"]["masks"]))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"image": None}, "missing_image"),
        ({"image": np.zeros((4, 4, 4))}, "missing_image"),
        ({"image": np.full((SIDE_PX, SIDE_PX), np.nan)}, "not_finite"),
        ({"image": np.full((SIDE_PX, SIDE_PX), np.inf)}, "not_finite"),
        ({"image": np.full((SIDE_PX, SIDE_PX), 1.5)}, "fraction_out_of_range"),
        ({"image": np.full((SIDE_PX, SIDE_PX), -400.0)}, "fraction_out_of_range"),
        ({"image": np.zeros((8, 8)), "masks": [np.zeros((8, 8), np.uint8)] * 4}, "mixed_geometry"),
        ({"masks": [np.zeros((SIDE_PX, SIDE_PX), np.uint8)] * 3}, "missing_mask"),
        ({"masks": [np.zeros((SIDE_PX, SIDE_PX), np.uint8)] * 5}, "missing_mask"),
        ({"masks": [[[0]], [[0]], [[0]], [[0]]]}, "missing_mask"),
        ({"masks": "none"}, "missing_mask"),
        ({"masks": [np.zeros((8, 8), np.uint8)] * 4}, "mask_shape"),
        ({"series_uid": "1.2.3"}, "not_in_database"),
        ({"series_uid": None}, "missing_tag"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_faulty_record_is_quarantined_with_its_series(tmp_path, change, fault):
    made = records(3)
    made["0_slice1"] = {**made["0_slice1"], **change}
    summary = prepare(write_pickle(tmp_path / "x.pickle", made), tmp_path / "out", workers=1)
    assert summary.quarantined == {fault: 1}
    # A record of no series, or a strange one, takes none of its neighbours along.
    assert summary.slices == 3 + 2 * (fault in ("not_in_database", "missing_tag"))
    assert str(tmp_path / "x.pickle") in (tmp_path / "out" / manifest.QUARANTINE).read_text()


class Owned:
    def __reduce__(self):
        return os.system, ("touch OWNED",)


def test_a_pickle_that_calls_is_one_sentence_and_calls_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    file = write_pickle(tmp_path / "x.pickle", {**records(1), "more": {"image": Owned()}})
    assert cli.main(["prepare", "--source", str(file), "--out", "out"]) == 2
    assert "system, which is neither a NumPy array nor a plain container; refused" in capsys.readouterr().err
    assert not (tmp_path / "OWNED").exists()
    assert not (tmp_path / "out").exists()


def test_a_pickle_is_not_for_a_cluster(tmp_path):
    with pytest.raises(InputError, match="read by one process, which holds all of it; leave --dask away"):
        prepare(write_pickle(tmp_path / "x.pickle", records(1)), tmp_path / "out", dask="tcp://127.0.0.1:1")


def test_a_pickle_of_something_else_is_one_sentence(tmp_path):
    strange = write_pickle(tmp_path / "x.pickle", ["image", "masks", "series_uid"])
    with pytest.raises(InputError, match="pickle of a list, not of a dict of records"):
        prepare(strange, tmp_path / "out")
    other = write_pickle(tmp_path / "y.pickle", {"a": 1})
    assert not prob_unet_pickle.matches(other)
    with pytest.raises(InputError, match="is no pickle of images, masks and series_uid"):
        prepare(other, tmp_path / "out2", format="prob-unet-pickle")


@pytest.mark.parametrize("labels_last", [True, False])
def test_hdf5_keeps_its_own_split_and_claims_no_patients(tmp_path, labels_last):
    file = write_hdf5(tmp_path / "data_lidc.hdf5", labels_last=labels_last)
    with pytest.raises(InputError, match=r"does not tell its patients.*--without-patients"):
        prepare(file, tmp_path / "out")
    summary = prepare(file, tmp_path / "out", workers=1, without_patients=True)
    assert summary.patients == {"train": 3, "val": 2, "test": 2}
    dataset = shards.open_dataset(tmp_path / "out", verify=True)
    assert dataset.manifest["source"]["format"] == "prob-unet-hdf5"
    with h5py.File(file) as opened:
        source: Any = opened
        for record in dataset.read(range(21)):
            _, split, uid = record.patient_id.split("/")
            row = np.flatnonzero(source[f"{split}/uids"][()] == int(uid))[record.slice_index]
            np.testing.assert_allclose(record.image, source[f"{split}/images"][row] + 0.5, atol=1e-7)
            labels = source[f"{split}/labels"][row]
            np.testing.assert_array_equal(record.readers, bits(np.moveaxis(labels, -1, 0) if labels_last else labels))
            assert dataset.manifest["split"]["patients"][record.patient_id] == split


def test_data_without_patients_meet_no_others():
    unknown = splits.assign([splits.unknown("train", "1"), splits.unknown("test", "2")])
    known = splits.assign(["LIDC-IDRI-0003"])
    splits.lock(unknown, dict(unknown), where="here")
    for trained_with, data in ((unknown, known), (known, unknown), (unknown, dict([*unknown.items()][:1]))):
        with pytest.raises(InputError, match=r"here: does not tell its patients, or the checkpoint's data did not"):
            splits.lock(trained_with, data, where="here")


def replaced(name: str, value: Any) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[name]
        file[name] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (replaced("train/images", np.zeros((9, 16))), "train/images is float64"),
        (replaced("train/images", np.zeros((9, 16, 16), np.int16)), "train/images is int16"),
        (replaced("train/labels", np.zeros((9, 16, 16, 3))), "train/labels is float64"),
        (replaced("train/uids", np.zeros(8, int)), r"train/uids is int64 \(8,\)"),
        (replaced("train/uids", np.array(["a"] * 9, "S3")), "train/uids is"),
        (replaced("train/uids", h5py.ExternalLink("/etc/passwd", "uids")), "it has no train/uids, or only a link"),
        (replaced("val", h5py.SoftLink("/train")), "it has no val/images, or only a link"),
        (lambda file: file["test"].__delitem__("labels"), "it has no test/labels"),
    ],
)
def test_hdf5_of_another_layout_is_one_sentence(tmp_path, change, message):
    file = write_hdf5(tmp_path / "x.h5", change=change)
    with pytest.raises(InputError, match=rf"x\.h5 is laid out otherwise than data_lidc\.hdf5: {message}"):
        prepare(file, tmp_path / "out", without_patients=True)


def test_hdf5_faults_are_quarantined(tmp_path):
    def change(file: Any) -> None:
        file["train/images"][0] = np.nan
        file["val/images"][0] = 0.7
        file["val/uids"][4] = 22

    file = write_hdf5(tmp_path / "x.h5", change=change)
    summary = prepare(file, tmp_path / "out", workers=1, without_patients=True)
    assert summary.quarantined == {"not_finite": 1, "fraction_out_of_range": 1, "duplicate_series": 2}


@pytest.mark.parametrize("keep", [8, 2000])
def test_hdf5_cut_short_is_one_sentence(tmp_path, keep):
    file = write_hdf5(tmp_path / "x.h5")
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(InputError, match="cannot be read as HDF5"):
        prepare(file, tmp_path / "out", without_patients=True)


def test_other_hdf5_is_not_taken(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["a"] = 1
    assert not prob_unet_hdf5.matches(tmp_path / "x.h5")
    with pytest.raises(InputError, match="holds neither DICOM files nor another known layout"):
        prepare(tmp_path / "x.h5", tmp_path / "out")
    with pytest.raises(InputError, match="has no images, labels and uids"):
        prepare(tmp_path / "x.h5", tmp_path / "out", format="prob-unet-hdf5", without_patients=True)


def test_without_h5py_the_extra_is_named(tmp_path, monkeypatch):
    file = write_hdf5(tmp_path / "x.h5")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"run `pip install 'lungjax\[hdf5\]'`"):
        prepare(file, tmp_path / "out", without_patients=True)
