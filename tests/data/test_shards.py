"""The dataset folder: opens whole, travels to other processes, and says in one sentence what is broken."""

from __future__ import annotations

import json
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lungjax.data import manifest, shards, splits
from lungjax.data.records import SCHEMA_VERSION
from lungjax.data.shards import open_dataset
from lungjax.errors import InputError
from lungjax.preparation.formats import slices

SHARD = "shards/00000.array_record"


@pytest.fixture
def copy(slices_dataset: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(slices_dataset, tmp_path / "copy"))


def test_rows_come_as_asked_and_equal_the_source(slices_dataset, kaggle_tree):
    dataset = open_dataset(slices_dataset, verify=True)
    scans = {entry.key: slices.read(entry) for entry in slices.find(kaggle_tree)[0]}
    rows = [5, 0, len(dataset) - 1, 5]
    images, readers = dataset.pixels(rows)
    for row, image, marks, record in zip(rows, images, readers, dataset.read(rows), strict=True):
        line = dataset.index.iloc[row]
        scan = scans[line["series_uid"]]
        np.testing.assert_array_equal(image, scan.voxels[line["slice_index"]])
        np.testing.assert_array_equal(marks, scan.reader_bits()[line["slice_index"]])
        np.testing.assert_array_equal(record.image, image)
        np.testing.assert_array_equal(record.readers, marks)
        assert record.series_uid == line["series_uid"]
    assert dataset.nodules(rows) == [record.nodules for record in dataset.read(rows)]
    assert len(dataset.nodules(rows)[0][0]["readings"]) > 1
    assert dataset.intensity == "unit"
    assert dataset.pixels([]) == ([], [])


def test_index_is_sorted_and_manifest_counts_it(slices_dataset):
    dataset = open_dataset(slices_dataset)
    index, counts = dataset.index, dataset.manifest["counts"]
    pd.testing.assert_frame_equal(index, index.sort_values(["patient_id", "series_uid", "slice_index"]))
    assert index["row"].tolist() == list(range(len(index)))
    assert (
        counts["slices"]
        == len(index)
        == sum(file["records"] for name, file in dataset.manifest["files"].items() if name.startswith("shards/"))
    )
    assert counts["patients"] == len(set(index["patient_id"]))
    assert counts["scans"] == len(set(index["series_uid"]))
    assert counts["slices_with_nodules"] == np.count_nonzero(index["readers_marked"])


def test_no_patient_lies_in_two_splits(slices_dataset):
    dataset = open_dataset(slices_dataset)
    split = dataset.manifest["split"]
    pairs = set(dataset.index[["patient_id", "split"]].itertuples(index=False, name=None))
    assert len(pairs) == len(split["patients"])
    for patient_id, name in pairs:
        assert split["patients"][patient_id] == name == splits.split_of(patient_id)
    assert split["digest"] == splits.digest(split["patients"])


def test_a_pickled_dataset_reads_the_same(slices_dataset):
    dataset = open_dataset(slices_dataset)
    dataset.pixels([0])
    data = pickle.dumps(dataset)
    other = pickle.loads(data)
    np.testing.assert_array_equal(other.pixels([3])[0][0], dataset.pixels([3])[0][0])
    pd.testing.assert_frame_equal(other.index, dataset.index)


def test_threads_may_share_a_dataset(slices_dataset):
    dataset = open_dataset(slices_dataset)
    wanted = open_dataset(slices_dataset).pixels(range(len(dataset)))[0]
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda row: dataset.pixels([row])[0][0], range(len(dataset))))
    assert all((left == right).all() for left, right in zip(got, wanted, strict=True))


def test_index_survives_odd_names_and_every_float(tmp_path):
    index = pd.DataFrame(
        {
            "shard": ["s", "s"],
            "patient_id": ["NA", "007"],
            "study_uid": ["nan", ""],
            "series_uid": ["1.10", 'a"b,c'],
            "sop_uid": ["", "None"],
            "z_mm": [0.1 + 0.2, float("nan")],
            "slice_spacing_mm": [1 / 3, 2.5],
            "row_spacing_mm": [5e-324, 0.703125],
            "column_spacing_mm": [1.7976931348623157e308, -0.0],
            "malignancy_median": [float("nan"), 3.5],
            "split": ["train", "test"],
        }
    )
    manifest.write_index(tmp_path, index)
    pd.testing.assert_frame_equal(manifest.read_index(tmp_path), index, check_exact=True, check_dtype=False)


def edit_manifest(folder: Path, **changes) -> None:
    file = folder / manifest.MANIFEST
    manifest.save_manifest(folder, {**json.loads(file.read_text()), **changes})


def flip_a_byte(file: Path, at: int) -> None:
    data = bytearray(file.read_bytes())
    data[at] ^= 0xFF
    file.write_bytes(data)


def test_missing_folder(tmp_path):
    with pytest.raises(InputError, match=r"nowhere: no such folder; make it with `lungjax prepare"):
        open_dataset(tmp_path / "nowhere")


def test_unfinished_folder(copy):
    (copy / manifest.MANIFEST).unlink()
    with pytest.raises(InputError, match=r"copy has no manifest\.json, so it is not a finished data set"):
        open_dataset(copy)


def test_damaged_manifest(copy):
    (copy / manifest.MANIFEST).write_text('{"schema_version"')
    with pytest.raises(InputError, match=r"manifest\.json is damaged"):
        open_dataset(copy)


def test_another_schema_version(copy):
    edit_manifest(copy, schema_version=SCHEMA_VERSION + 1)
    with pytest.raises(
        InputError, match=rf"schema version {SCHEMA_VERSION + 1}, but this lungjax reads {SCHEMA_VERSION}"
    ):
        open_dataset(copy)


def test_missing_shard(copy):
    (copy / SHARD).unlink()
    with pytest.raises(InputError, match=r"00000\.array_record is missing; prepare or copy"):
        open_dataset(copy)


def test_short_shard(copy):
    size = (copy / SHARD).stat().st_size
    with (copy / SHARD).open("r+b") as file:
        file.truncate(size - 100)
    with pytest.raises(InputError, match=rf"has {size - 100} bytes instead of {size}"):
        open_dataset(copy)


def test_corrupt_shard_is_found_on_reading_and_by_verify(copy):
    flip_a_byte(copy / SHARD, at=5000)
    with pytest.raises(InputError, match=r"00000\.array_record is damaged \(its SHA-256"):
        open_dataset(copy, verify=True)
    dataset = open_dataset(copy)
    with pytest.raises(InputError, match=r"00000\.array_record is damaged"):
        dataset.pixels(range(len(dataset)))


def test_empty_data_set(copy):
    manifest.write_index(copy, manifest.read_index(copy).iloc[:0])
    files = json.loads((copy / manifest.MANIFEST).read_text())["files"]
    index = copy / manifest.INDEX
    files[manifest.INDEX] |= {"bytes": index.stat().st_size, "sha256": manifest.sha256(index)}
    edit_manifest(copy, files=files)
    with pytest.raises(InputError, match=r"holds no slices; see .*quarantine\.jsonl"):
        open_dataset(copy)


def test_a_shard_is_written_whole_or_not_at_all(tmp_path):
    def failing():
        yield b"one"
        raise KeyError("stop")

    with pytest.raises(KeyError):
        shards.write_shard(tmp_path / "a.array_record", failing())
    assert not (tmp_path / "a.array_record").exists()
    with pytest.raises(InputError, match="cannot be written"):
        shards.write_shard(tmp_path / "no" / "a.array_record", [b"one"])
    assert shards.write_shard(tmp_path / "a.array_record", [b"one", b"", b"three"]) == 3
    assert list(shards.read_shard(tmp_path / "a.array_record")) == [b"one", b"", b"three"]
