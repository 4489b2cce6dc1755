"""Sentences quote what stands in files of others, and stay one line that commands no terminal."""

from __future__ import annotations

import pickle

import pytest

from lungjax import cli
from lungjax.ct.faults import Note
from lungjax.ct.source import Quarantined
from lungjax.errors import Fault, InputError, NothingDone, plain

HOSTILE = "a\nlungjax: done\r\x1b[2J\x7f\x85\u2028é"
SPELT = r"a\nlungjax: done\r\x1b[2J\x7f\x85\u2028é"


def test_controls_are_spelt_out_once_and_nothing_else_changes():
    assert plain(HOSTILE) == plain(plain(HOSTILE)) == SPELT
    assert plain("12 µm, 日本語, C:\\name, a\u00a0b") == "12 µm, 日本語, C:\\name, a\u00a0b"


@pytest.mark.parametrize("kind", [InputError, NothingDone])
def test_only_the_lines_of_a_list_begin_anew(kind: type[InputError]):
    error = kind(HOSTILE, "  1", f"  {HOSTILE}")
    assert str(error) == f"{SPELT}\n  1\n  {SPELT}"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_a_fault_a_note_and_what_is_quarantined_are_one_line():
    fault = Fault("not_ct", HOSTILE)
    assert (str(fault), fault.message) == (f"not_ct: {SPELT}", SPELT)
    assert Note("link", HOSTILE).message == Quarantined("k", "w", "n", HOSTILE).message == SPELT


def test_a_file_adds_no_line_of_its_own_to_what_a_verb_prints(tmp_path, capsys):
    name = "x\nlungjax: done \x1b[2J"
    start = pickle.dumps({"image": 0, "masks": 0, "series_uid": 0}, 4)[:-1]
    strings = b"".join(b"\x8c" + bytes([len(text)]) + text.encode() for text in ("os", name))
    (tmp_path / "x.pickle").write_bytes(start + strings + b"\x93.")
    assert cli.main(["doctor", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert r"asks for os.x\nlungjax: done \x1b[2J, which is neither" in line
