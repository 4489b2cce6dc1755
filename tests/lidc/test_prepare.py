"""Preparation: the same bytes whatever happens on the way, and every mistake one sentence."""

from __future__ import annotations

import fcntl
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

from lungjax.data.shards import open_dataset
from lungjax.lidc import parts, workers
from lungjax.lidc.formats import slices
from lungjax.lidc.prepare import prepare
from lungjax.lidc.scan import InputError


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def tree(kaggle_tree: Path, tmp_path: Path) -> Path:
    """Three patients, four nodules."""
    root = tmp_path / "source"
    for number in (9000, 9001, 9002):
        shutil.copytree(kaggle_tree / "LIDC-IDRI-slices" / f"LIDC-IDRI-{number}", root / f"LIDC-IDRI-{number}")
    return root


def break_one(tree: Path) -> None:
    (tree / "LIDC-IDRI-9001/nodule-0/mask-0/slice-0.png").write_bytes(b"no png")


def test_bytes_do_not_depend_on_the_number_of_workers(kaggle_tree, slices_dataset, tmp_path):
    prepare(kaggle_tree, tmp_path / "out", workers=2)
    assert contents(tmp_path / "out") == contents(slices_dataset)


def test_shards_are_closed_in_time(tree, tmp_path, monkeypatch):
    prepare(tree, tmp_path / "one", workers=1)
    monkeypatch.setattr(parts, "SHARD_BYTES", 1)
    prepare(tree, tmp_path / "many", workers=1)
    one, many = open_dataset(tmp_path / "one"), open_dataset(tmp_path / "many", verify=True)
    assert len(set(one.index["shard"])) == 1
    assert len(set(many.index["shard"])) == 4
    for left, right in zip(one.pixels(range(len(one)))[0], many.pixels(range(len(many)))[0], strict=True):
        assert (left == right).all()


def renames_before(limit: int, monkeypatch: pytest.MonkeyPatch, run) -> bool:
    """Runs until rename number `limit`, which fails as if the process had been killed there; True if it ran through.

    Renames are the only moments at which something comes to count as done.
    """
    count = itertools.count()
    replace = Path.replace

    def failing(self, target):
        if next(count) == limit:
            raise KeyboardInterrupt
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", failing)
        try:
            run()
        except KeyboardInterrupt:
            return False
        return True


def test_a_stop_before_any_rename_leads_to_the_same_bytes(tree, tmp_path, monkeypatch):
    break_one(tree)
    monkeypatch.setattr(parts, "SHARD_BYTES", 1)
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
        patch.setattr(parts, "plan_merge", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
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


def test_a_finished_data_set_is_left_alone_unless_told(tree, tmp_path):
    out = tmp_path / "out"
    first = prepare(tree, out, workers=1)
    (out / "note").write_text("still here")
    again = prepare(tree, out, workers=1)
    assert (again.was_complete, again.new_slices, again.slices) == (True, 0, first.slices)
    assert "complete already" in again.text()
    assert (out / "note").exists()
    with pytest.raises(InputError, match=r"out also holds 'note', which --overwrite would delete"):
        prepare(tree, out, workers=1, overwrite=True)
    (out / "note").unlink()
    break_one(tree)
    anew = prepare(tree, out, workers=1, overwrite=True)
    assert (anew.was_complete, anew.scans) == (False, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "source"]


def test_a_finished_data_set_of_another_source_is_not_taken_for_this_one(tree, tmp_path):
    out = tmp_path / "out"
    prepare(tree, out, workers=1)
    tree.rename(tmp_path / "other")
    with pytest.raises(InputError, match="was made from 'source' as slices, not from 'other'"):
        prepare(tmp_path / "other", out, workers=1)
    (tmp_path / "other").rename(tree)
    next((out / "shards").iterdir()).unlink()
    with pytest.raises(InputError, match="is missing; prepare or copy the data again"):
        prepare(tree, out, workers=1)


@pytest.mark.parametrize("folder", ["out", "out.partial", "out.old"])
def test_nobody_elses_folder_is_deleted(tree, tmp_path, folder):
    if folder == "out.old":
        prepare(tree, tmp_path / "out", workers=1)
    (tmp_path / folder).mkdir()
    for name in ("manifest.json", "important.txt") if folder != "out.partial" else ("important.txt",):
        (tmp_path / folder / name).write_text('{"name": "a web app"}')
    with pytest.raises(InputError):
        prepare(tree, tmp_path / "out", workers=1, overwrite=True)
    assert (tmp_path / folder / "important.txt").exists()


def test_an_overwrite_that_fails_keeps_the_old(tree, tmp_path, monkeypatch):
    out = tmp_path / "out"
    prepare(tree, out, workers=1)
    before = contents(out)
    assert not renames_before(3, monkeypatch, lambda: prepare(tree, out, workers=1, overwrite=True))
    assert contents(out) == before


def begin(tree: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not renames_before(5, monkeypatch, lambda: prepare(tree, out, workers=1))


def test_another_source_does_not_resume(tree, tmp_path, monkeypatch):
    begin(tree, tmp_path / "out", monkeypatch)
    shutil.copytree(tree, tmp_path / "other")
    with pytest.raises(InputError, match=r"was begun with source .*source', not .*other'; name another --out"):
        prepare(tmp_path / "other", tmp_path / "out", workers=1)
    with pytest.raises(InputError, match="was begun with format 'slices', not 'lidc'"):
        prepare(tree, tmp_path / "out", workers=1, format="lidc")
    assert prepare(tmp_path / "other", tmp_path / "out", workers=1, overwrite=True).scans == 4


def test_two_runs_at_once_do_not_mix(tree, tmp_path, monkeypatch):
    begin(tree, tmp_path / "out", monkeypatch)
    with (tmp_path / "out.partial/lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="is in use by another `lungjax prepare`"):
            prepare(tree, tmp_path / "out", workers=1)


def test_what_is_no_data_set_is_never_touched(tree, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter-1.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(InputError, match="thesis exists and is no lungjax data set"):
            prepare(tree, tmp_path / "thesis", workers=1, overwrite=overwrite)
    with pytest.raises(InputError, match="exists and is no lungjax data set"):
        prepare(tree, tmp_path / "thesis/chapter-1.tex", workers=1, overwrite=True)
    assert (tmp_path / "thesis/chapter-1.tex").read_text() == "years of work"
    (tmp_path / "empty").mkdir()
    assert prepare(tree, tmp_path / "empty", workers=1).scans == 4


def test_mistakes_are_one_sentence(tree, tmp_path):
    with pytest.raises(InputError, match="nowhere: no such file or folder"):
        prepare(tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(InputError, match="unknown format 'nrrd'; use one of: auto, lidc, slices"):
        prepare(tree, tmp_path / "out", format="nrrd")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty holds neither DICOM files nor"):
        prepare(tmp_path / "empty", tmp_path / "out")
    with pytest.raises(InputError, match="holds no scans of this format; check --source and --format"):
        prepare(tmp_path / "empty", tmp_path / "out", format="slices")
    with pytest.raises(InputError, match="--workers 0"):
        prepare(tree, tmp_path / "out2", workers=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot be made .*; name an --out"):
        prepare(tree, tmp_path / "file/out")


def test_a_data_set_of_faults_alone_says_why(tree, tmp_path):
    for folder in tree.glob("*/nodule-*"):
        shutil.rmtree(folder / "mask-2")
    with pytest.raises(
        InputError, match=r"none of its 4 series could be prepared, the first because .*mask-2"
    ) as caught:
        prepare(tree, tmp_path / "out", workers=1)
    listed = tmp_path / "out.partial/quarantine.jsonl"
    assert str(listed) in str(caught.value)
    assert len(listed.read_text().splitlines()) == 4
    assert not (tmp_path / "out").exists()


def test_a_scan_that_kills_its_worker_twice_is_named(tree, tmp_path, monkeypatch):
    def run(function, tasks, count):
        raise workers.WorkerDied(tasks[1])

    monkeypatch.setattr(workers, "run", run)
    with pytest.raises(InputError, match=r"died twice over .*9001/nodule-0 .*fewer --workers"):
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
