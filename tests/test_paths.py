"""`~` is the home folder in every path, on the command line and in Python; an address is refused."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import pytest

import lungjax
from lungjax import arguments, cli, paths
from lungjax.errors import InputError


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    return tmp_path


def test_home(home: Path):
    assert paths.local("~/data") == paths.local(Path("~/data")) == home / "data"
    assert paths.local("~") == home
    for same in ("data", "/data", "a/~/b", "./~", "~nobody-of-this-name/x"):
        assert paths.local(same) == Path(same)


@pytest.mark.parametrize("address", ["gs://bucket/x", "s3://b", "https://host/x", Path("gs://bucket/x")])
def test_an_address_is_no_path(address: str | Path):
    with pytest.raises(InputError, match="is an address; mount the bucket"):
        paths.local(address)


def verbs() -> dict[str, argparse.ArgumentParser]:
    (found,) = [action for action in arguments.parser()._actions if isinstance(action, argparse._SubParsersAction)]
    return dict(found.choices)


@pytest.mark.parametrize("verb", verbs())
@pytest.mark.parametrize("given", ["~/here", "gs://bucket/here"])
def test_every_path_of_every_verb(home: Path, monkeypatch: pytest.MonkeyPatch, capsys, verb: str, given: str):
    actions = verbs()[verb]._actions
    options = [action for action in actions if action.type is Path]
    line, wanted = [verb], {}
    for action in options:
        line += [action.option_strings[0], given] if action.option_strings else [given]
        wanted[action.dest] = home / "here"
    needed = [action for action in actions if action.required and action not in options]
    for action in needed:
        line += [action.option_strings[0], "1"]
    taken: dict[str, object] = {}
    monkeypatch.setitem(cli._RUN, verb, lambda parsed: taken.update(vars(parsed)) or 0)
    code = cli.main(line)
    if given.startswith("gs"):
        assert code == 2
        assert capsys.readouterr().err.startswith("lungjax: error: gs:")
        return
    assert code == 0
    assert wanted
    for name, path in wanted.items():
        assert taken[name] in (path, [path])


def test_python_too(home: Path, slices_dataset: Path, kaggle_tree: Path):
    for folder in (slices_dataset, kaggle_tree):
        os.symlink(folder, home / folder.name)
    with pytest.raises(InputError, match="holds 18 scans"):
        lungjax.read_scan(f"~/{slices_dataset.name}")
    assert lungjax.prepare(f"~/{kaggle_tree.name}", f"~/{slices_dataset.name}").was_complete
    with pytest.raises(InputError, match=f"{home}/nothing: no such folder"):
        lungjax.evaluate("segmenter", data="~/nothing")
    with pytest.raises(InputError, match="is an address"):
        lungjax.load("gs://bucket/model")
