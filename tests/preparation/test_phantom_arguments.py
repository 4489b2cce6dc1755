"""Wrong arguments to `phantom.write`, and runs that fail: one sentence, and nothing left on disk."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from preparing import contents

from lungjax.errors import InputError
from lungjax.preparation import phantom
from lungjax.preparation.phantom import header


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"scans": 0}, "1 to 1018 scans, not 0"),
        ({"scans": 1019}, "1 to 1018 scans, not 1019"),
        ({"scans": 1, "matrix": 100}, "not 100"),
        ({"scans": 1, "workers": 0}, "not 0"),
    ],
)
def test_wrong_arguments_are_named(tmp_path: Path, arguments: dict[str, int], says: str):
    with pytest.raises(InputError, match=says):
        phantom.write(tmp_path / "out", **arguments)  # pyright: ignore[reportArgumentType]
    assert not list(tmp_path.iterdir())


def test_an_existing_folder_is_left_alone(tmp_path: Path):
    with pytest.raises(InputError, match="already exists"):
        phantom.write(tmp_path, scans=1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["LIDC-IDRI", "notes.txt"])
def test_a_strangers_folder_is_left_alone(tmp_path: Path, name: str):
    (tmp_path / "out.partial" / name).mkdir(parents=True)
    with pytest.raises(InputError, match="is not an unfinished phantom"):
        phantom.write(tmp_path / "out", scans=1, matrix=32, workers=1)
    assert (tmp_path / "out.partial" / name).exists()


KILLED = """
import os, sys
from pathlib import Path
from lungjax.preparation import phantom
rename = Path.rename
def killed(self, target):
    if sys.argv[2] == "after":
        rename(self, target)
    os._exit(9)
Path.rename = killed
phantom.write(sys.argv[1], scans=1, matrix=32, workers=1)
"""


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_run_killed_at_its_last_step_is_in_nobodys_way(tmp_path: Path, when: str):
    """The phantom takes its name in one step: until then another run begins anew, from then on it is whole."""
    out = tmp_path / "out"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(out), when], check=False)
    assert (killed.returncode, (tmp_path / "out.partial").exists()) == (9, True)
    if when == "after":
        with pytest.raises(InputError, match="already exists"):
            phantom.write(out, scans=1, matrix=32, workers=1)
    else:
        (tmp_path / "out.partial/phantom/of-another-seed.dcm").touch()
        phantom.write(out, scans=1, matrix=32, workers=1)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    phantom.write(tmp_path / "again", scans=1, matrix=32, workers=1)
    assert contents(out) == contents(tmp_path / "again") != {}


def test_a_run_at_work_is_left_alone(tmp_path: Path):
    (tmp_path / "out.partial/phantom").mkdir(parents=True)
    (tmp_path / "out.partial/unfinished-phantom").touch()
    with (tmp_path / "out.partial.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another run is writing this phantom"):
            phantom.write(tmp_path / "out", scans=1, matrix=32, workers=1)
    assert (tmp_path / "out.partial/phantom").exists()


def test_what_lies_beside_an_unfinished_phantom_is_not_deleted(tmp_path: Path):
    (tmp_path / "out.partial").mkdir()
    for name in ("unfinished-phantom", "important.txt"):
        (tmp_path / "out.partial" / name).touch()
    phantom.write(tmp_path / "out", scans=1, matrix=32, workers=1)
    assert (tmp_path / "out.partial/important.txt").exists()


def test_what_a_killed_run_left_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)  # As if killed before it could.
        patch.setattr(header, "place", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            phantom.write(tmp_path / "out", scans=1, matrix=32, workers=1)
    assert (tmp_path / "out.partial").exists()
    phantom.write(tmp_path / "out", scans=1, matrix=32, workers=1)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["LIDC-IDRI"]


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*_, **__):
        raise OSError("no space left on device")

    monkeypatch.setattr(header, "place", fail)
    with pytest.raises(OSError, match="no space"):
        phantom.write(tmp_path / "out", scans=1, matrix=32, workers=1)
    assert not list(tmp_path.iterdir())


def test_a_link_to_nothing_is_refused_before_anything_is_made(tmp_path: Path):
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="link is a link to what is not there"):
        phantom.write(tmp_path / "link", scans=1, matrix=32, workers=1)
    assert [path.name for path in tmp_path.iterdir()] == ["link"]
