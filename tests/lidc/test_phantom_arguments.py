"""Wrong arguments to `phantom.write`, and runs that fail: one sentence, and nothing left on disk."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lungjax.lidc import phantom
from lungjax.lidc.phantom import header
from lungjax.lidc.scan import InputError


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
    with pytest.raises(InputError, match="is no unfinished phantom"):
        phantom.write(tmp_path / "out", scans=1, matrix=32, workers=1)
    assert (tmp_path / "out.partial" / name).exists()


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
