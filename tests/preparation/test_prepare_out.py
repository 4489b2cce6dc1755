"""What lies at `--out` already: a data set, an unfinished one, another run's, or somebody's work."""

from __future__ import annotations

import fcntl
import itertools
import os
import shutil
from pathlib import Path

import pytest
from preparing import begin, break_one, contents, renames_before

from lungjax.errors import InputError
from lungjax.preparation.run import prepare


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


@pytest.mark.parametrize(("name", "content"), [("parts", "his"), ("plan.json", '{"a": 1}'), ("plan.json", "[")])
def test_a_strangers_file_of_our_name_does_not_make_it_ours(tree, tmp_path, name, content):
    (tmp_path / "out.partial").mkdir()
    for file, text in ((name, content), ("important.txt", "years")):
        (tmp_path / "out.partial" / file).write_text(text)
    with pytest.raises(InputError, match=r"out\.partial exists and was not made by `lungjax prepare`"):
        prepare(tree, tmp_path / "out", workers=1, overwrite=True)
    assert (tmp_path / "out.partial/important.txt").read_text() == "years"


@pytest.mark.parametrize("name", ["parts", "merge.json", "plan.json.tmp"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_strangers_only_file_is_his_whatever_its_name(tree, tmp_path, name, overwrite):
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / name).write_text('{"his": 1}')
    with pytest.raises(InputError, match=r"out\.partial exists and was not made by `lungjax prepare`"):
        prepare(tree, tmp_path / "out", workers=1, overwrite=overwrite)
    assert (tmp_path / "out.partial" / name).read_text() == '{"his": 1}'


@pytest.mark.parametrize("gone", [("plan.json",), ("plan.json", "merge.json")])
def test_a_run_killed_as_it_tidies_up_is_finished(tree, tmp_path, monkeypatch, gone):
    def killed(path: Path, missing_ok: bool = False):
        if path.name == "plan.json":
            raise KeyboardInterrupt
        os.unlink(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            prepare(tree, tmp_path / "out", workers=1)
    for name in gone:
        (tmp_path / "out.partial" / name).unlink()
    assert prepare(tree, tmp_path / "out", workers=1).scans == 4


@pytest.mark.parametrize("left", [(), ("out.partial",), ("out.partial", "out.partial/plan.json.tmp")])
def test_a_run_killed_at_once_is_in_nobodys_way(tree, tmp_path, left):
    (tmp_path / "out.partial.lock").touch()
    for name in left:
        path = tmp_path / name
        path.touch() if path.suffix == ".tmp" else path.mkdir()
    assert prepare(tree, tmp_path / "out", workers=1).scans == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "source"]


def test_a_strangers_file_with_the_name_of_our_lock_is_his(tree, tmp_path):
    (tmp_path / "out.partial.lock").write_text("his")
    with pytest.raises(InputError, match=r"out\.partial cannot be made .*out\.partial\.lock is in the way"):
        prepare(tree, tmp_path / "out", workers=1)
    assert (tmp_path / "out.partial.lock").read_text() == "his"


def test_a_run_that_prepared_nothing_is_in_nobodys_way(tree, tmp_path):
    wrong = tmp_path / "wrong" / "LIDC-IDRI-9001" / "nodule-0" / "images"
    wrong.mkdir(parents=True)
    (wrong / "slice-0.png").write_bytes(b"no png")
    with pytest.raises(InputError, match=r"all reasons are in .*quarantine\.jsonl"):
        prepare(tmp_path / "wrong", tmp_path / "out", workers=1)
    assert "missing_mask" in (tmp_path / "out.partial" / "quarantine.jsonl").read_text()
    assert prepare(tree, tmp_path / "out", workers=1).scans == 4
    assert not (tmp_path / "out.partial").exists()


def test_an_overwrite_that_fails_keeps_the_old(tree, tmp_path, monkeypatch):
    out = tmp_path / "out"
    prepare(tree, out, workers=1)
    before = contents(out)
    assert not renames_before(3, monkeypatch, lambda: prepare(tree, out, workers=1, overwrite=True))
    assert contents(out) == before


def test_another_source_does_not_resume(tree, tmp_path, monkeypatch):
    begin(tree, tmp_path / "out", monkeypatch)
    shutil.copytree(tree, tmp_path / "other")
    with pytest.raises(InputError, match=r"was begun with source .*source', not .*other'; name another --out"):
        prepare(tmp_path / "other", tmp_path / "out", workers=1)
    with pytest.raises(InputError, match="was begun with format 'slices', not 'lidc'"):
        prepare(tree, tmp_path / "out", workers=1, format="lidc")
    assert prepare(tmp_path / "other", tmp_path / "out", workers=1, overwrite=True).scans == 4


def test_another_source_does_not_inherit_what_lacks_only_its_name(tree, tmp_path, monkeypatch):
    shutil.copytree(tree, tmp_path / "other")

    def runs_through(renames: int) -> bool:
        return renames_before(renames, monkeypatch, lambda: prepare(tree, tmp_path / f"{renames}", workers=1))

    last = next(number for number in itertools.count() if runs_through(number)) - 1
    assert not renames_before(last, monkeypatch, lambda: prepare(tree, tmp_path / "out", workers=1))
    assert (tmp_path / "out.partial/manifest.json").exists()
    assert not (tmp_path / "out.partial/plan.json").exists()
    with pytest.raises(InputError, match=r"was begun with source .*source', not .*other'"):
        prepare(tmp_path / "other", tmp_path / "out", workers=1)
    assert prepare(tree, tmp_path / "out", workers=1).new_slices == 0


@pytest.mark.parametrize("removed", [True, False])
def test_a_run_that_another_overtook_tells(tree, tmp_path, monkeypatch, removed):
    """The other finishes once we have seen that there is no data set and have opened its lock, removed or not yet."""
    flock, out = fcntl.flock, tmp_path / "out"
    prepare(tree, tmp_path / "others", workers=1)

    def finished_meanwhile(lock, how):
        if not out.exists():
            (tmp_path / "others").rename(out)
            if removed:
                (tmp_path / "out.partial.lock").unlink()
        flock(lock, how)

    monkeypatch.setattr(fcntl, "flock", finished_meanwhile)
    with pytest.raises(InputError, match="was finished by another lungjax process just now"):
        prepare(tree, out, workers=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "source"]


def test_two_runs_at_once_do_not_mix(tree, tmp_path, monkeypatch):
    begin(tree, tmp_path / "out", monkeypatch)
    with (tmp_path / "out.partial.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="is in use by another lungjax process"):
            prepare(tree, tmp_path / "out", workers=1)
    assert (tmp_path / "out.partial.lock").exists(), "it is the other run's"


@pytest.mark.parametrize("url", ["gs://bucket/data", "s3://bucket/data"])
def test_a_bucket_is_to_be_mounted(tree, tmp_path, monkeypatch, url):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r":/+bucket/data is an address; mount the bucket"):
        prepare(tree, Path(url))  # A path loses the second slash.
    with pytest.raises(InputError, match="mount the bucket"):
        prepare(url, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_what_is_no_data_set_is_never_touched(tree, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter-1.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(InputError, match="thesis exists and is not a lungjax data set"):
            prepare(tree, tmp_path / "thesis", workers=1, overwrite=overwrite)
    with pytest.raises(InputError, match="exists and is not a lungjax data set"):
        prepare(tree, tmp_path / "thesis/chapter-1.tex", workers=1, overwrite=True)
    assert (tmp_path / "thesis/chapter-1.tex").read_text() == "years of work"
    (tmp_path / "empty").mkdir()
    assert prepare(tree, tmp_path / "empty", workers=1).scans == 4
