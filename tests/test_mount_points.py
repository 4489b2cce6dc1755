"""An output folder that is a mount point, as containers have them: it is written into, or refused by one sentence."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import verbs
from disks import Disk
from verbs import Verb

from lungjax import platforms


@pytest.fixture
def bound(tmp_path: Path) -> Iterator[Path]:
    """A folder of the same disk, mounted: the device number does not tell."""
    inner, outer = tmp_path / "inner", tmp_path / "a folder"
    inner.mkdir()
    outer.mkdir()
    if subprocess.run(["mount", "--bind", inner, outer], capture_output=True, check=False).returncode:
        pytest.skip("only root can mount")
    yield outer
    subprocess.run(["umount", outer], check=True)


def test_mount_points_are_known(disk: Disk, bound: Path, tmp_path: Path):
    assert platforms.is_fixed(disk.folder)
    assert platforms.is_fixed(bound)
    assert not os.path.ismount(bound), "or else Linux's list would not be needed"
    assert not platforms.is_fixed(tmp_path)
    assert not platforms.is_fixed(tmp_path / "nowhere")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_what_lies_in_a_folder_of_somebody_else_cannot_be_replaced(tmp_path: Path):
    (tmp_path / "theirs" / "ours").mkdir(parents=True)
    (tmp_path / "theirs").chmod(0o555)
    assert platforms.is_fixed(tmp_path / "theirs" / "ours")


@pytest.mark.parametrize("verb", ["prepare", "mine", "export"], indirect=True)
def test_verbs_that_replace_a_folder_refuse(verb: Verb, disk: Disk, bound: Path, capfd: pytest.CaptureFixture[str]):
    for folder in (disk.folder, bound):
        capfd.readouterr()
        command = [*verb.command(folder)[:-1], f"--out={folder}"]
        assert verbs.run(command) == 2
        said = capfd.readouterr().err
        assert said.splitlines()[-1].startswith(f"lungjax: error: {folder} cannot be replaced: it is a mount point")
        assert said.endswith(f"name a folder in it, as {folder / 'new'}.\n")
        assert "Traceback" not in said
        assert list(folder.iterdir()) == []


@pytest.mark.parametrize("verb", ["predict"], indirect=True)
def test_predict_writes_a_folder_for_each_scan(
    verb: Verb, disk: Disk, two_chests: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    """Also of a single one, whose files would lie in OUT itself; and a second call goes on."""
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "case-1.nii.gz").symlink_to(two_chests / "case-1.nii.gz")
    command = ["predict", str(tmp_path / "one"), *verb.command(disk.folder)[2:-1], f"--out={disk.folder}"]
    for there in ("", "there already: 1 scan"):
        assert verbs.run(command) == 0, capfd.readouterr().err
        assert there in capfd.readouterr().out
        assert [path.name for path in disk.folder.iterdir()] == ["case-1"]
        assert (disk.folder / "case-1" / "report.json").is_file()
