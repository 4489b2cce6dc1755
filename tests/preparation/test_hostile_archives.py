"""Archives, pictures and arrays that nobody should have sent: a scan, a fault with a name, or one sentence."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hostile import FEW, MANY, changed, peak_mib
from hypothesis import given
from hypothesis import strategies as st
from packed import ARRAY, FOLDER, PICTURE, array, columns, files, pack, picture, read_all

from lungjax.ct import size_limits
from lungjax.preparation.formats import jaeho_npy, nodule_patches, patch_table, slices
from lungjax.preparation.run import prepare


def fuzz_zip(folder: Path, data: st.DataObject) -> None:
    source = pack(folder / "x.zip", files())
    source.write_bytes(changed(source.read_bytes(), data))
    read_all(source)


def fuzz_tar(folder: Path, data: st.DataObject) -> None:
    source = pack(folder / "x.tar", files())
    source.write_bytes(changed(source.read_bytes(), data))
    read_all(source)


def fuzz_picture(folder: Path, data: st.DataObject) -> None:
    read_all(pack(folder / "x.zip", files() | {PICTURE: changed(picture(), data, first=8)}))


def fuzz_array(folder: Path, data: st.DataObject) -> None:
    read_all(pack(folder / "x.zip", files() | {ARRAY: changed(files()[ARRAY], data, first=6)}))


def fuzz_patches(folder: Path, data: st.DataObject) -> None:
    """Any array of the file damaged, in a zip that is whole."""
    spoiled = data.draw(st.sampled_from(sorted(columns())))
    held = {f"{name}.npy": array(values) for name, values in columns().items()}
    name = f"{spoiled}.npy"
    source = pack(folder / "x.zip", held | {name: changed(held[name], data, first=6)})
    os.utime(source, ns=(0, data.draw(st.integers(0, 2**40))))  # Tables are remembered by time and size.
    patch_table._cached_table.cache_clear()
    nodule_patches.matches(source)
    read_all(source, nodule_patches)


FUZZERS = [fuzz_zip, fuzz_tar, fuzz_picture, fuzz_array, fuzz_patches]


@pytest.mark.parametrize("fuzz", FUZZERS)
@FEW
@given(data=st.data())
def test_damage_is_a_fault_or_a_sentence(tmp_path, fuzz, data):
    fuzz(tmp_path, data)


@pytest.mark.exhaustive
@pytest.mark.parametrize("fuzz", FUZZERS)
@MANY
@given(data=st.data())
def test_damage_is_a_fault_or_a_sentence_many_times(tmp_path, fuzz, data):
    fuzz(tmp_path, data)


def test_sound_sources_are_read(tmp_path):
    for suffix in (".zip", ".tar"):
        assert read_all(pack(tmp_path / f"x{suffix}", files())) == []
    held = {f"{name}.npy": array(values) for name, values in columns().items()}
    assert read_all(pack(tmp_path / "patches.zip", held), nodule_patches) == []


@pytest.mark.parametrize("number", [0xD800, 0xDFFF, 0x110000, 0xFFFFFFFF])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("name", ["patient_id", "series_uid", "sop_uid", "rating_names"])
def test_numbers_that_are_no_characters_are_one_sentence(tmp_path, name, order, number):
    held = columns()
    held[name] = held[name].astype(held[name].dtype.newbyteorder(order))
    assert read_all(pack(tmp_path / "x.zip", {f"{one}.npy": array(held[one]) for one in held}), nodule_patches) == []
    spoiled = bytearray(array(held[name]))
    spoiled[-4:] = number.to_bytes(4, "little" if order == "<" else "big")
    source = pack(
        tmp_path / "y.zip", {f"{one}.npy": array(held[one]) for one in held} | {f"{name}.npy": bytes(spoiled)}
    )
    (said,) = read_all(source, nodule_patches)
    assert said == f"{source}: {name} is not text; store it as the format nodule-patches says."


BOMB_MIB = 160
"""More than a slice's file may take."""


def pack_bomb(path: Path, bomb: str, *, said_bytes: int | None = None) -> Path:
    """A zip of sound files, of which one inflates to a thousand times its size, and may say that it does not."""
    held = files() | {f"{name}.npy": array(values) for name, values in columns().items()}
    del held[bomb]
    with zipfile.ZipFile(pack(path, held), "a", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        with file.open(bomb, "w") as stream:
            for _ in range(BOMB_MIB):
                stream.write(bytes(2**20))
        file.getinfo(bomb).file_size = said_bytes or file.getinfo(bomb).file_size  # Written when the file is closed.
    return path


@pytest.mark.parametrize(("name", "module"), [(PICTURE, slices), (ARRAY, jaeho_npy), ("hu.npy", nodule_patches)])
@pytest.mark.parametrize("said_bytes", [None, 1000])
def test_a_member_that_inflates_takes_no_memory(tmp_path, monkeypatch, name, module, said_bytes):
    monkeypatch.setattr(size_limits, "SCAN_BYTES", 2**30)  # Of a whole file of patches, an eighth is an array's.
    source = pack_bomb(tmp_path / "x.zip", name, said_bytes=said_bytes)
    names: list[str] = []
    assert peak_mib(lambda: names.extend(read_all(source, module))) < 32
    (said,) = names
    if module is nodule_patches:
        assert ("more than any scan's" in said) == (said_bytes is None)
        assert ("use the original" if said_bytes is None else "fetch it again") in said
    else:
        assert said == ("too_large" if said_bytes is None else "unreadable_file")


def test_files_that_are_too_large_are_quarantined_and_stop_no_other(tmp_path, monkeypatch):
    """In a folder as in an archive, one by one and all of a scan together."""
    held = files() | {name.replace("P/", "Q/"): data for name, data in files().items() if name.startswith("P/")}
    most = max(map(len, files().values()))
    for limit, value in (("SLICE_BYTES", most), ("SCAN_BYTES", 5 * most)):
        source = tmp_path / limit / "source"
        for name, data in held.items():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes(data)
        (source / PICTURE).write_bytes(picture() + bytes(5 * most))
        archives = [
            pack(source.with_suffix(suffix), {**held, PICTURE: picture() + bytes(5 * most)})
            for suffix in (".zip", ".tar")
        ]
        for number, one in enumerate((source, *archives)):
            with monkeypatch.context() as patch:
                patch.setattr(size_limits, limit, value)
                summary = prepare(one, tmp_path / limit / f"out{number}", format="slices", workers=1)
            assert (summary.scans, summary.quarantined) == (1, {"too_large": 1})


@pytest.mark.parametrize(("side_px", "stack_bytes"), [(size_limits.SIDE_PX + 1, 2**30), (64, 64 * 64 - 1)])
def test_pictures_that_are_too_large(tmp_path, monkeypatch, side_px, stack_bytes):
    from lungjax.preparation.formats import png

    monkeypatch.setattr(png, "_STACK_BYTES", stack_bytes)
    source = pack(tmp_path / "x.zip", files() | {PICTURE: picture(side_px)})
    names: list[str] = []
    assert peak_mib(lambda: names.extend(read_all(source, slices))) < 8
    assert names == ["too_large"]


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_unpack_without_bounds_are_not_read(tmp_path, method):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", method) as file:
        for name, content in files().items():
            file.writestr(name, content)
    assert read_all(tmp_path / "x.zip") == ["unreadable_file"] * 2


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
@pytest.mark.filterwarnings("ignore:Duplicate name")  # That of the writer.
def test_a_name_that_is_there_twice_is_refused(tmp_path, suffix):
    source = tmp_path / f"x{suffix}"
    pack(source, files())
    if suffix == ".zip":
        with zipfile.ZipFile(source, "a") as file:
            file.writestr(PICTURE, picture(value=0))
    else:
        with tarfile.open(source, "a") as file:
            member = tarfile.TarInfo(PICTURE)
            member.size = len(picture(value=0))
            file.addfile(member, io.BytesIO(picture(value=0)))
    (first, second) = read_all(source)
    assert f"its member '{PICTURE}' is there twice, which is refused" in first
    assert first == second


def test_members_without_a_name_are_no_files(tmp_path):
    with zipfile.ZipFile(pack(tmp_path / "x.zip", files()), "a") as file:
        file.writestr("x", b"x")
        file.getinfo("x").filename = ""  # Written when the file is closed.
    assert "" in zipfile.ZipFile(tmp_path / "x.zip").namelist()
    assert read_all(tmp_path / "x.zip") == read_all(pack(tmp_path / "x.tar", files() | {"": b"x"})) == []


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices_in_a_tar_are_no_files(tmp_path, kind):
    with tarfile.open(tmp_path / "x.tar", "w") as file:
        member = tarfile.TarInfo(PICTURE)
        member.type, member.devmajor, member.devminor = kind, 1, 5
        file.addfile(member)
    assert read_all(tmp_path / "x.tar") == []


def test_a_tar_with_holes_is_refused(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as file:
        member = tarfile.TarInfo(PICTURE)
        member.type = tarfile.GNUTYPE_SPARSE
        file.addfile(member)
    assert "has holes, which is refused" in read_all(tmp_path / "x.tar")[0]


def test_a_pipe_in_a_folder_is_no_file(tmp_path):
    for name, content in files().items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    os.mkfifo(tmp_path / FOLDER / "images/slice-1.png")
    assert read_all(tmp_path, slices) == []


@pytest.mark.parametrize("number", ["9" * 5000, "²", "٣"])
def test_numbers_that_are_none_name_no_slice(tmp_path, number):
    source = pack(tmp_path / "x.zip", files() | {f"{FOLDER}/images/slice-{number}.png": picture()})
    assert read_all(source, slices) in ([], ["missing_mask"])


@pytest.mark.parametrize("dtype", ["O", "<U3", "V4", "M8[s]", "f8,f8", "c8"])
def test_arrays_of_no_floats(tmp_path, dtype):
    values = np.zeros((8, 8), dtype)
    held = io.BytesIO()
    np.save(held, values, allow_pickle=True)
    expected = "object_array" if dtype == "O" else "not_float"
    assert read_all(pack(tmp_path / "x.zip", files() | {ARRAY: held.getvalue()}), jaeho_npy) == [expected]
