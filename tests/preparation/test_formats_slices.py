"""The Kaggle layout: folder, zip and tar read alike, faults have names, and no path may leave."""

from __future__ import annotations

import io
import os
import pickle
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lungjax.errors import Fault, InputError
from lungjax.preparation.formats import slices

NODULE = Path("LIDC-IDRI-slices/LIDC-IDRI-9001/nodule-1")


@pytest.fixture
def tree(kaggle_tree: Path, tmp_path: Path) -> Path:
    """One patient's two nodules, to be spoiled."""
    shutil.copytree(kaggle_tree / NODULE.parent, tmp_path / "source" / NODULE.parent)
    return tmp_path / "source"


def pack(tree: Path, suffix: str) -> Path:
    return Path(shutil.make_archive(str(tree), suffix, tree))


def read_all(source: Path) -> dict:
    return {entry.key: slices.read(pickle.loads(pickle.dumps(entry))) for entry in slices.find(source)[0]}


def test_a_nodule_is_read_as_its_files_say(tree):
    scans = read_all(tree)
    assert list(scans) == ["LIDC-IDRI-9001/nodule-0", "LIDC-IDRI-9001/nodule-1"]
    scan = scans["LIDC-IDRI-9001/nodule-1"]
    assert (scan.patient_id, scan.study_uid, scan.series_uid) == (
        "LIDC-IDRI-9001",
        "LIDC-IDRI-9001",
        NODULE.parent.name + "/nodule-1",
    )
    assert (scan.intensity, scan.padding_hu, scan.sop_uids) == ("unit", None, ("",) * 4)
    assert np.isnan(scan.z_mm).all()
    assert np.isnan(scan.spacing_mm).all()
    # Reader 3 never marks a second nodule, so has no reading of it.
    assert [reading.slot for reading in scan.nodules[0].readings] == [0, 1, 2]
    for number in range(4):
        image = np.asarray(Image.open(tree / NODULE / f"images/slice-{number}.png"))
        np.testing.assert_array_equal(scan.voxels[number], image)
        bits = sum(
            (np.asarray(Image.open(tree / NODULE / f"mask-{slot}/slice-{number}.png")) > 0).astype(np.uint8) << slot
            for slot in range(4)
        )
        np.testing.assert_array_equal(scan.reader_bits()[number], bits)


@pytest.mark.parametrize("suffix", ["zip", "tar", "ZIP", "Tar"])
def test_archives_equal_the_folder(tree, suffix):
    archive = pack(tree, suffix.lower())
    archive = archive.rename(archive.with_suffix(f".{suffix}"))
    assert slices.matches(archive)
    wanted, got = read_all(tree), read_all(archive)
    assert list(got) == list(wanted)
    for key, scan in wanted.items():
        np.testing.assert_array_equal(got[key].voxels, scan.voxels)
        np.testing.assert_array_equal(got[key].reader_bits(), scan.reader_bits())


def test_slices_are_ordered_by_number_not_by_name(tree):
    for folder in (tree / NODULE).iterdir():
        (folder / "slice-1.png").rename(folder / "slice-10.png")
    scan = read_all(tree)["LIDC-IDRI-9001/nodule-1"]
    for place, number in enumerate((0, 2, 3, 10)):
        image = np.asarray(Image.open(tree / NODULE / f"images/slice-{number}.png"))
        np.testing.assert_array_equal(scan.voxels[place], image)


def test_other_files_do_not_matter(tree):
    (tree / "README.txt").write_text("hello")
    (tree / NODULE / "images" / "._slice-0.png").write_bytes(b"macOS")
    (tree / NODULE / "images" / "slice-0.png.bak").write_bytes(b"mine")
    assert len(read_all(tree)) == 2


def test_matches_only_its_own_layout(tree, tmp_path):
    assert slices.matches(tree)
    (tmp_path / "empty").mkdir()
    (tmp_path / "note.txt").write_text("no archive")
    assert not slices.matches(tmp_path / "empty")
    assert not slices.matches(tmp_path / "note.txt")


def test_four_empty_masks_are_a_scan_without_nodules(tree):
    for path in (tree / NODULE).glob("mask-*/*.png"):
        Image.new("L", (64, 64)).save(path)
    assert read_all(tree)["LIDC-IDRI-9001/nodule-1"].nodules == ()


def spoil_missing_mask(nodule: Path) -> None:
    (nodule / "mask-2" / "slice-3.png").unlink()


def spoil_all_masks_of_a_reader(nodule: Path) -> None:
    shutil.rmtree(nodule / "mask-3")


def spoil_missing_image(nodule: Path) -> None:
    (nodule / "images" / "slice-0.png").unlink()


def spoil_mask_shape(nodule: Path) -> None:
    for path in (nodule / "mask-1").iterdir():
        Image.new("L", (64, 32)).save(path)


def spoil_mixed_sizes(nodule: Path) -> None:
    Image.new("L", (32, 32)).save(nodule / "images" / "slice-2.png")


def spoil_truncated(nodule: Path) -> None:
    file = nodule / "images" / "slice-1.png"
    file.write_bytes(file.read_bytes()[:200])


def spoil_no_png(nodule: Path) -> None:
    (nodule / "mask-0" / "slice-1.png").write_bytes(b"<html>404</html>")


def spoil_16_bit(nodule: Path) -> None:
    Image.fromarray(np.zeros((64, 64), np.uint16)).save(nodule / "images" / "slice-1.png")


def spoil_colour(nodule: Path) -> None:
    Image.new("RGB", (64, 64)).save(nodule / "images" / "slice-1.png")


def spoil_fifth_reader(nodule: Path) -> None:
    shutil.copytree(nodule / "mask-0", nodule / "mask-4")


@pytest.mark.parametrize(
    ("spoil", "name", "says"),
    [
        (spoil_missing_mask, "missing_mask", "mask-2 has no slice-3.png"),
        (spoil_all_masks_of_a_reader, "missing_mask", "mask-3 has no slice-0.png"),
        (spoil_missing_image, "missing_image", "images has no slice-0.png"),
        (spoil_mask_shape, "mask_shape", "mask-1 has"),
        (spoil_mixed_sizes, "mixed_geometry", "several sizes"),
        (spoil_truncated, "unreadable_file", "slice-1.png cannot be read"),
        (spoil_no_png, "unreadable_file", "mask-0/slice-1.png cannot be read"),
        (spoil_16_bit, "not_8_bit", "not 8-bit grey"),
        (spoil_colour, "not_8_bit", "RGB"),
        (spoil_fifth_reader, "too_many_readers", "mask-4"),
    ],
)
@pytest.mark.parametrize("packed", [None, "zip", "tar"])
def test_faults_have_names(tree, spoil, name, says, packed):
    spoil(tree / NODULE)
    good, bad = slices.find(pack(tree, packed) if packed else tree)[0]
    assert len(slices.read(good).voxels) == 4
    with pytest.raises(Fault, match=says) as caught:
        slices.read(bad)
    assert caught.value.name == name


def test_the_same_nodule_in_two_places_is_read_once(tree):
    shutil.copytree(tree / "LIDC-IDRI-slices", tree / "old copy")
    entries, quarantined = slices.find(tree)
    assert len(entries) == 2
    assert [one.name for one in quarantined] == ["duplicate_series"] * 2


@pytest.mark.parametrize("name", ["../slice-0.png", "/etc/passwd", "a/../../b", "a\\..\\b"])
@pytest.mark.parametrize("suffix", [".zip", ".tar"])
def test_names_that_lead_out_are_refused(tmp_path, name, suffix):
    file = tmp_path / f"evil{suffix}"
    if suffix == ".zip":
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr(name, b"x")
    else:
        with tarfile.open(file, "w") as archive:
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises(InputError, match=r"leads out of the archive, which is refused"):
        slices.find(file)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_links_in_a_tar_are_refused(tmp_path, kind):
    with tarfile.open(tmp_path / "evil.tar", "w") as archive:
        member = tarfile.TarInfo("P/nodule-0/images/slice-0.png")
        member.type, member.linkname = kind, "/etc/passwd"
        archive.addfile(member)
    with pytest.raises(InputError, match="is a link, which is refused"):
        slices.find(tmp_path / "evil.tar")


def test_links_in_a_zip_are_refused(tmp_path):
    member = zipfile.ZipInfo("P/nodule-0/images/slice-0.png")
    member.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr(member, "/etc/passwd")
    with pytest.raises(InputError, match="is a link, which is refused"):
        slices.find(tmp_path / "evil.zip")


def test_links_in_a_folder_are_refused(tree):
    os.symlink("/etc", tree / "LIDC-IDRI-slices" / "LIDC-IDRI-9002")
    with pytest.raises(InputError, match="is a link, which is refused"):
        slices.find(tree)


@pytest.mark.parametrize("name", ["broken.zip", "broken.tar", "broken.tar.gz"])
def test_a_broken_archive_is_one_sentence(tmp_path, name):
    (tmp_path / name).write_bytes(b"no archive at all" * 99)
    with pytest.raises(InputError, match=r"cannot be read as \.zip|is no uncompressed \.tar"):
        slices.find(tmp_path / name)


def test_a_compressed_tar_says_what_to_do(tree):
    with pytest.raises(InputError, match=r"is no uncompressed \.tar .*; unpack it"):
        slices.find(pack(tree, "gztar"))
