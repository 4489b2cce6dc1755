"""HDF5 and pickles that nobody should have sent: a scan, a fault with a name, or one sentence; no other file."""

from __future__ import annotations

import os
import pickle
import signal
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hostile import FEW, MANY, changed, peak_mib
from hypothesis import given
from hypothesis import strategies as st

from lungjax import cli
from lungjax.errors import Fault, InputError
from lungjax.preparation.formats import prob_unet_hdf5, prob_unet_pickle, unpickle

UID = "1.3.6.1.4.1.14519.5.2.1.6279.6001.170706757615202213033480003264"
COUNT, SIDE_PX = 6, 4
LAYOUTS: list[dict[str, Any]] = [
    {},
    {"chunks": (2, 4, 4), "compression": "gzip"},
    {"chunks": (2, 4, 4), "fletcher32": True},
]


def write_hdf5(path: Path, split: str = "train", **layout: Any) -> bytes:
    """Three series of two slices each."""
    with h5py.File(path, "w") as file:
        group = file.create_group(split)
        images = np.random.default_rng(0).random((COUNT, SIDE_PX, SIDE_PX)) - 0.5
        group.create_dataset("images", data=images, **layout)
        group["labels"] = np.zeros((COUNT, SIDE_PX, SIDE_PX, 4), np.uint8)
        group["uids"] = np.arange(COUNT) // 2
    return path.read_bytes()


def read_hdf5(source: Path) -> list[str]:
    """Names of faults, or the one sentence."""
    try:
        if not prob_unet_hdf5.matches(source):
            return ["no HDF5 of crops"]
        entries, _ = prob_unet_hdf5.find(source)
    except InputError as error:
        return [str(error)]
    names = []
    for entry in entries[:3]:
        try:
            prob_unet_hdf5.read(entry)
        except Fault as fault:
            names.append(fault.name)
    return names


def fuzz_hdf5(folder: Path, data: st.DataObject) -> None:
    content = write_hdf5(folder / "x.h5", **data.draw(st.sampled_from(LAYOUTS)))
    (folder / "x.h5").write_bytes(changed(content, data))
    read_hdf5(folder / "x.h5")


def records() -> dict[str, Any]:
    masks = [np.zeros((2, 2), np.uint8)] * 4
    return {f"0_slice{n}": {"image": np.full((2, 2), 0.5), "masks": masks, "series_uid": UID} for n in range(2)}


def fuzz_records(folder: Path, data: st.DataObject) -> None:
    """Whole pickles of other things than records."""
    arrays = st.sampled_from(
        [np.array(0.5), np.zeros(4), np.zeros((2, 0)), np.zeros((4, 2, 2), bool), np.ones((2, 2, 2))]
    )
    some = st.sampled_from([np.array(np.nan), np.full((2, 2), np.inf), -np.zeros((2, 2)), np.full((4, 2, 2), np.nan)])
    plain = st.sampled_from(
        [None, 0, -1, True, "", UID, "9" * 5000, b"x", (), {}, set(), float("nan"), 2 + 1j, 10**400]
    )
    anything = st.recursive(arrays | some | plain, lambda inner: st.lists(inner, max_size=4), max_leaves=6)
    made = records()
    for _ in range(data.draw(st.integers(1, 3))):
        name = data.draw(st.sampled_from(sorted(made)))
        key = data.draw(st.sampled_from(["image", "masks", "series_uid", "", "the record", "its name"]))
        if key == "the record":
            made[name] = data.draw(anything)
        elif key == "its name":
            made["9" * 5000] = made[name]
        elif isinstance(made[name], dict):
            made[name] = {**made[name], key: data.draw(anything)}
    path = folder / "x.pickle"
    path.write_bytes(pickle.dumps(made))
    prob_unet_pickle._load_records.cache_clear()
    try:
        entries, _ = prob_unet_pickle.find(path)
    except InputError:
        return
    for entry in entries:
        try:
            scan = prob_unet_pickle.read(entry)
        except Fault:
            continue
        assert np.isfinite(scan.voxels).all()


FUZZERS = [fuzz_hdf5, fuzz_records]


@pytest.mark.parametrize("fuzz", FUZZERS)
@FEW
@given(data=st.data())
def test_crops_are_a_scan_a_fault_or_a_sentence(tmp_path, fuzz, data):
    fuzz(tmp_path, data)


@pytest.mark.exhaustive
@pytest.mark.parametrize("fuzz", FUZZERS)
@MANY
@given(data=st.data())
def test_crops_are_a_scan_a_fault_or_a_sentence_many_times(tmp_path, fuzz, data):
    fuzz(tmp_path, data)


def test_sound_crops_are_read(tmp_path):
    for number, layout in enumerate(LAYOUTS):
        write_hdf5(tmp_path / f"{number}.h5", **layout)
        assert read_hdf5(tmp_path / f"{number}.h5") == []


def crash(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def test_a_crash_of_the_library_is_one_sentence_or_a_fault(tmp_path, monkeypatch, capsys):
    """Some files do that to HDF5 2.0; here the process that reads kills itself."""
    write_hdf5(tmp_path / "x.h5")
    with monkeypatch.context() as patch:
        patch.setattr(prob_unet_hdf5, "_read_uids", crash)
        assert cli.main(["doctor", str(tmp_path / "x.h5")]) == 2
        assert "x.h5 cannot be read as HDF5 (its library crashes on it); fetch it again" in capsys.readouterr().err
    entries, _ = prob_unet_hdf5.find(tmp_path / "x.h5")
    with monkeypatch.context() as patch:
        patch.setattr(prob_unet_hdf5, "_read_pixels", crash)
        with pytest.raises(Fault, match=r"unreadable_file: .*x\.h5 cannot be read as HDF5 \(its library crashes on it"):
            prob_unet_hdf5.read(entries[0])
    assert len(prob_unet_hdf5.read(entries[0]).voxels) == 2, "the next series is not read"


EXAMINE = """
import sys
from pathlib import Path
from lungjax.preparation.formats import prob_unet_hdf5
from lungjax.errors import InputError
if __name__ == "__main__":
    for path in sys.argv[1:]:
        try:
            print("read", len(prob_unet_hdf5.find(Path(path))[0]))
        except InputError as error:
            print(error)
"""


def write_pointers(folder: Path, target: Path) -> list[Path]:
    """Files whose train, or a part of it, lies in `target`."""

    def link(name: str, link: object) -> Path:
        path = folder / f"{len(list(folder.iterdir()))}.h5"
        write_hdf5(path)
        with h5py.File(path, "a") as file:
            del file[name]
            file[name] = link
        return path

    paths = [link("train", h5py.ExternalLink(str(target), "/train"))]
    for name in ("images", "labels", "uids"):
        paths.append(link(f"train/{name}", h5py.ExternalLink(str(target), f"/train/{name}")))
        layout = h5py.VirtualLayout((COUNT, *((SIDE_PX, SIDE_PX) if name == "images" else ())), np.float64)
        layout[...] = h5py.VirtualSource(str(target), f"/train/{name}", layout.shape)
        path = link(f"train/{name}", np.zeros(1))
        with h5py.File(path, "a") as file:
            del file[f"train/{name}"]
            file.create_virtual_dataset(f"train/{name}", layout)
        paths.append(path)
    path = link("train/images", np.zeros(1))
    with h5py.File(path, "a") as file:
        del file["train/images"]
        external = [(str(target), 0, COUNT * SIDE_PX**2 * 8)]
        file["train"].create_dataset("images", (COUNT, SIDE_PX, SIDE_PX), np.float64, external=external)  # pyright: ignore
    return [*paths, path]


def test_what_points_at_other_files_opens_none(tmp_path):
    """The other file is a pipe: who opens it waits for ever."""
    (tmp_path / "sources").mkdir()
    os.mkfifo(tmp_path / "pipe")
    paths = write_pointers(tmp_path / "sources", tmp_path / "pipe")
    script = tmp_path / "examine.py"
    script.write_text(EXAMINE)
    run = subprocess.run([sys.executable, script, *paths], capture_output=True, text=True, check=True, timeout=60)
    said = run.stdout.splitlines()
    assert len(said) == len(paths) == 8
    assert all("does not have the layout of data_lidc.hdf5: " in line for line in said), said


def test_rows_that_nobody_wrote_take_no_memory(tmp_path):
    """A terabyte of fill values, of which the file holds none; and a series that takes more than any scan."""
    with h5py.File(tmp_path / "x.h5", "w") as file:
        group = file.create_group("train")
        group.create_dataset("images", (2**20, 512, 512), np.float32, chunks=(1, 512, 512))
        group.create_dataset("labels", (2**20, 512, 512, 4), np.uint8, chunks=(1, 512, 512, 4))
        group.create_dataset("uids", (2**20,), np.int32, chunks=(2**10,))
    names: list[str] = []
    assert peak_mib(lambda: names.extend(read_hdf5(tmp_path / "x.h5"))) < 512
    assert names == ["too_large"]
    with h5py.File(tmp_path / "y.h5", "w") as file:
        group = file.create_group("train")
        group.create_dataset("images", (2**40, 4, 4), np.float32, chunks=(1, 4, 4))
        group.create_dataset("labels", (2**40, 4, 4, 4), np.uint8, chunks=(1, 4, 4, 4))
        group.create_dataset("uids", (2**40,), np.int32, chunks=(2**10,))
    (said,) = read_hdf5(tmp_path / "y.h5")
    assert "train/uids is int32 (1099511627776,)" in said


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_labels_that_are_no_numbers(tmp_path, bad):
    write_hdf5(tmp_path / "x.h5")
    with h5py.File(tmp_path / "x.h5", "a") as file:
        labels = np.zeros((COUNT, SIDE_PX, SIDE_PX, 4), np.float32)
        labels[0, 1, 1, 2] = bad
        del file["train/labels"]
        file["train/labels"] = labels
    assert read_hdf5(tmp_path / "x.h5") == ["not_finite"]
    held = records()
    held["0_slice1"]["masks"] = [*[np.zeros((2, 2))] * 3, np.full((2, 2), bad)]
    (tmp_path / "x.pickle").write_bytes(pickle.dumps(held))
    prob_unet_pickle._load_records.cache_clear()
    ((entry,), _) = prob_unet_pickle.find(tmp_path / "x.pickle")
    with pytest.raises(Fault, match="not_finite"):
        prob_unet_pickle.read(entry)


def test_a_pickle_of_nine_bytes_takes_no_memory(tmp_path):
    """It remembers one value under a large number: in C's unpickler that is a table of as many places."""
    path = tmp_path / "x.pickle"
    path.write_bytes(b"\x80\x02Nr" + struct.pack("<I", 2**27) + b".")
    assert peak_mib(lambda: unpickle.load(path)) < 16
