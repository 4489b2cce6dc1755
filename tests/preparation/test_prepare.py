"""Preparation: the same bytes whatever happens on the way, and every mistake one sentence."""

from __future__ import annotations

import io
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from preparing import break_one, contents, renames_before

from lungjax.data.shards import open_dataset
from lungjax.errors import InputError
from lungjax.preparation import merge, pool
from lungjax.preparation.formats import slices
from lungjax.preparation.run import prepare


def test_bytes_do_not_depend_on_the_number_of_workers(kaggle_tree, slices_dataset, tmp_path):
    prepare(kaggle_tree, tmp_path / "out", workers=2)
    assert contents(tmp_path / "out") == contents(slices_dataset)


def test_shards_are_closed_in_time(tree, tmp_path, monkeypatch):
    prepare(tree, tmp_path / "one", workers=1)
    monkeypatch.setattr(merge, "SHARD_BYTES", 1)
    prepare(tree, tmp_path / "many", workers=1)
    one, many = open_dataset(tmp_path / "one"), open_dataset(tmp_path / "many", verify=True)
    assert len(set(one.index["shard"])) == 1
    assert len(set(many.index["shard"])) == 4
    for left, right in zip(one.pixels(range(len(one)))[0], many.pixels(range(len(many)))[0], strict=True):
        assert (left == right).all()


def test_a_stop_before_any_rename_leads_to_the_same_bytes(tree, tmp_path, monkeypatch):
    break_one(tree)
    monkeypatch.setattr(merge, "SHARD_BYTES", 1)
    prepare(tree, tmp_path / "whole", workers=1)
    wanted = contents(tmp_path / "whole")
    out = tmp_path / "out"
    stops = 0
    for limit in itertools.count():
        stops = limit
        through = renames_before(limit, monkeypatch, lambda: prepare(tree, out, workers=1))
        assert out.exists() == through
        prepare(tree, out, workers=1)
        assert contents(out) == wanted
        shutil.rmtree(out)
        if through:
            break
    assert stops > 10


def test_finished_scans_are_not_read_again(tree, tmp_path, monkeypatch):
    read = slices.read
    seen: list[str] = []

    def reading(entry):
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(entry.key)
        return read(entry)

    monkeypatch.setattr(slices, "read", reading)
    with pytest.raises(KeyboardInterrupt):
        prepare(tree, tmp_path / "out", workers=1)
    monkeypatch.setattr(slices, "read", lambda entry: seen.append(entry.key) or read(entry))
    summary = prepare(tree, tmp_path / "out", workers=1)
    assert len(seen) == len(set(seen)) == summary.scans == 4
    assert (summary.slices, summary.new_slices) == (16, 8)


def test_a_fault_is_looked_at_again_by_the_next_run(tree, tmp_path, monkeypatch):
    break_one(tree)
    with monkeypatch.context() as patch:
        patch.setattr(merge, "plan_merge", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            prepare(tree, tmp_path / "out", workers=1)
    Image.new("L", (64, 64)).save(tree / "LIDC-IDRI-9001/nodule-0/mask-0/slice-0.png")
    assert prepare(tree, tmp_path / "out", workers=1).quarantined == {}


def test_a_faulty_scan_is_listed_and_stops_no_other(tree, tmp_path):
    break_one(tree)
    summary = prepare(tree, tmp_path / "out", workers=1)
    assert (summary.scans, summary.slices, summary.quarantined) == (3, 12, {"unreadable_file": 1})
    (line,) = (tmp_path / "out/quarantine.jsonl").read_text().splitlines()
    fault = json.loads(line)
    assert (fault["key"], fault["name"]) == ("LIDC-IDRI-9001/nodule-0", "unreadable_file")
    assert fault["where"].endswith("source/LIDC-IDRI-9001/nodule-0")
    assert "slice-0.png cannot be read" in fault["message"]
    assert "1 unreadable_file" in summary.text()


def test_mistakes_are_one_sentence(tree, tmp_path):
    with pytest.raises(InputError, match="nowhere: no such file or folder"):
        prepare(tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(InputError, match="unknown format 'nrrd'; use one of: auto, lidc, slices"):
        prepare(tree, tmp_path / "out", format="nrrd")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty holds neither DICOM files nor"):
        prepare(tmp_path / "empty", tmp_path / "out")
    with pytest.raises(InputError, match="holds no scans of this format; check the path and --format"):
        prepare(tmp_path / "empty", tmp_path / "out", format="slices")
    with pytest.raises(InputError, match="--workers 0"):
        prepare(tree, tmp_path / "out2", workers=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot be made .*; --out must name a place to write"):
        prepare(tree, tmp_path / "file/out")


def test_a_data_set_of_faults_alone_says_why(tree, tmp_path):
    for folder in tree.glob("*/nodule-*"):
        shutil.rmtree(folder / "mask-2")
    with pytest.raises(
        InputError, match=r"nothing could be prepared, 4 quarantined, the first because .*mask-2"
    ) as caught:
        prepare(tree, tmp_path / "out", workers=1)
    listed = tmp_path / "out.partial/quarantine.jsonl"
    assert str(listed) in str(caught.value)
    assert len(listed.read_text().splitlines()) == 4
    assert not (tmp_path / "out").exists()


def test_a_scan_that_kills_its_worker_twice_is_named(tree, tmp_path, monkeypatch):
    def run(function, tasks, count):
        raise pool.WorkerDied(tasks[1])

    monkeypatch.setattr(pool, "run", run)
    with pytest.raises(InputError, match=r"died twice on .*9001/nodule-0, .*fewer --workers"):
        prepare(tree, tmp_path / "out", workers=2)


def command(source: Path, out: Path) -> list[str]:
    arguments = ["prepare", "--source", str(source), "--out", str(out), "--workers", "2"]
    return [sys.executable, "-m", "lungjax.cli", *arguments]


@pytest.mark.slow
def test_the_same_bytes_after_sigkill(kaggle_tree, slices_dataset, tmp_path):
    """The whole process group is killed at four random moments of its work, then it is left to finish."""
    out = tmp_path / "out"
    chance = random.Random(0)
    killed = 0
    for _ in range(4):
        process = subprocess.Popen(command(kaggle_tree, out), start_new_session=True)
        done = len(list(tmp_path.glob("out.partial/parts/*.json")))
        while len(list(tmp_path.glob("out.partial/parts/*.json"))) == done and process.poll() is None:
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.02))
        killed += process.poll() is None
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert killed >= 3
    subprocess.run(command(kaggle_tree, out), check=True)
    assert contents(out) == contents(slices_dataset)


def test_real_dicom(real_data, tmp_path):
    summary = prepare(real_data / "lidc-dicom", tmp_path / "out")
    assert (summary.scans, summary.slices, summary.quarantined) == (1, 140, {"incomplete_series": 1})
    dataset = open_dataset(tmp_path / "out", verify=True)
    assert dataset.manifest["counts"] == {
        "patients": 1,
        "scans": 1,
        "slices": 140,
        "slices_with_nodules": int(np.count_nonzero(dataset.index["readers_marked"])),
        "nodules": 4,
        "annotations": 13,
    }
    assert set(dataset.index["split"]) == {"test"}
    slots: dict[int, set[int]] = {}
    for record in dataset.read(range(140)):
        for nodule in record.nodules:
            slots.setdefault(nodule["index"], set()).update(one["slot"] for one in nodule["readings"])
    assert sorted(len(readers) for readers in slots.values()) == [1, 4, 4, 4]
    raw_bytes = 140 * 512 * 512 * 2
    assert sum(path.stat().st_size for path in (tmp_path / "out/shards").iterdir()) < 0.6 * raw_bytes


@pytest.mark.slow
def test_real_slices_bit_for_bit(real_data, tmp_path):
    """Every image and mask of the archive, decoded by Pillow here, against what the data set gives back."""
    summary = prepare(real_data / "lidc-slices.zip", tmp_path / "out")
    assert (summary.slices, sum(summary.patients.values()), summary.quarantined) == (12471, 698, {})
    assert (summary.scans, summary.rated) == (2134, 2008)  # Of the others it is not certain which nodule they show.
    dataset = open_dataset(tmp_path / "out")
    with zipfile.ZipFile(real_data / "lidc-slices.zip") as archive:

        def pixels(folder: str, kind: str, number: int) -> np.ndarray:
            data = archive.read(f"LIDC-IDRI-slices/{folder}/{kind}/slice-{number}.png")
            return np.asarray(Image.open(io.BytesIO(data)))

        for begin in range(0, len(dataset), 512):
            lines = dataset.index.iloc[begin : begin + 512]
            images, readers = dataset.pixels(lines["row"].to_numpy())
            places = lines[["series_uid", "slice_index"]].itertuples(index=False)
            for (folder, number), image, bits in zip(places, images, readers, strict=True):
                np.testing.assert_array_equal(image, pixels(folder, "images", number))
                for slot in range(4):
                    np.testing.assert_array_equal(bits >> slot & 1, pixels(folder, f"mask-{slot}", number) > 0)
