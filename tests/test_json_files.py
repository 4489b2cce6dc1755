"""JSON of others, before anything walks through it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lungjax import json_files


@pytest.mark.parametrize(("opens", "closes"), [('{"a": ', "}"), ("[0, ", "]")])
def test_what_walks_through_it_never_goes_too_deep(tmp_path: Path, opens: str, closes: str):
    path = tmp_path / "x.json"
    for depth in (0, 1, 64):
        path.write_text(opens * depth + "1" + closes * depth)
        assert json_files.read(path) == json.loads(path.read_text())
    for depth in (65, 900, 990, 10**5):  # Python's own limit is 1000 calls, some of which are the reader's.
        path.write_text(opens * depth + "1" + closes * depth)
        with pytest.raises(ValueError, match="it is nested too deeply"):
            json_files.read(path)
