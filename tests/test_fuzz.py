"""`scripts/fuzz.py`: each reader reads its own sound files, and reads or refuses damaged ones. Needs no atheris."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
import runs

from lungjax.ct import nifti
from lungjax.errors import InputError

fuzz = runs.load(runs.ROOT / "scripts" / "fuzz.py")
SLOW = ("model", "weights", "run", "index", "manifest")
"""A data set or a network is opened each time."""


def damaged(content: bytes, rng: random.Random) -> bytes:
    spoiled = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        spoiled[rng.randrange(len(spoiled))] = rng.choice([0, 1, 127, 128, 255, rng.randrange(256)])
    return bytes(spoiled[: rng.choice([len(spoiled), len(spoiled), rng.randrange(len(spoiled))])])


@pytest.mark.parametrize("name", fuzz.READERS)
def test_sound_files_are_read_and_damaged_ones_read_or_refused(name: str, tmp_path: Path):
    reader, rng = fuzz.READERS[name](tmp_path), random.Random(0)
    read = fuzz.checked(reader, tmp_path)
    assert [read(seed) for seed in reader.seeds] == [""] * len(reader.seeds)
    said = set()
    for number in range(8 if name in SLOW else 60):
        seed = reader.seeds[number % len(reader.seeds)]
        changed = reader.mutated(seed, rng) if number % 2 else None
        said.add(bool(read(damaged(seed, rng) if changed is None else changed)))
    assert True in said, "nothing that was damaged was refused"


def test_findings_are_what_is_neither_read_nor_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fuzz, "MOST_MIB", 16)

    def opens(content: bytes) -> str:
        Path("/etc/hostname").open().close()
        return ""

    def allocates(content: bytes) -> str:
        return "" if b"x" * 2**26 else "x"

    def breaks_the_line(content: bytes) -> str:
        def refuse() -> None:
            raise InputError("one", "two")

        return fuzz.strange_files.refusal(refuse)

    for read, problem in ((opens, "opened"), (allocates, "MiB"), (breaks_the_line, "two")):
        with pytest.raises(AssertionError, match=problem):
            fuzz.checked(fuzz.Reader([], read), tmp_path)(b"")


def test_an_input_is_read_again_without_atheris(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    (tmp_path / "input").write_bytes(b"no NIfTI")
    assert fuzz.main(["nifti", "--input", str(tmp_path / "input")]) == 0
    assert capsys.readouterr().out == "unreadable_file\n"

    def broken(path: Path) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(nifti, "read_header", broken)
    with pytest.raises(ZeroDivisionError):
        fuzz.main(["nifti", "--input", str(tmp_path / "input")])


def test_without_atheris_one_sentence_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fuzz, "atheris", None)
    assert fuzz.main(["nifti"]) == 2
    assert "pip install -e '.[dev,fuzz]'" in capsys.readouterr().err
    assert os.listdir() == []
