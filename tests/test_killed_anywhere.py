"""`kill -9` at random moments of every verb that writes: run again, the result is that of an undisturbed run."""

from __future__ import annotations

import random
import time
from pathlib import Path

import forked
import pytest
import verbs
from verbs import Verb

MANY = 30
BUDGET_S = 600
"""For the kills of one verb in the exhaustive test."""
every_verb = pytest.mark.parametrize("verb", verbs.NAMES, indirect=True)


def finish(verb: Verb, folder: Path) -> float:
    """Runs a command to its end; returns how many seconds it took."""
    folder.mkdir(exist_ok=True)
    said, began = folder.with_suffix(".txt"), time.monotonic()
    with forked.started(verb.command(folder), said) as process:
        process.join(300)
        assert process.exitcode == 0, said.read_text()
    return time.monotonic() - began


def kill_at_random(verb: Verb, folder: Path, kills: int) -> None:
    """Kills a command again and again, until it has finished or died so often; each time it goes on from there."""
    finish(verb, folder / "whole")
    seconds = finish(verb, folder / "again")  # By now its programs are compiled.
    expected = verb.result(folder / "whole")
    assert verb.result(folder / "again") == expected, "two undisturbed runs differ"
    chance, began, killed, broken = random.Random(0), time.monotonic(), 0, folder / "broken-0"
    for number in range(kills):
        broken.mkdir(exist_ok=True)
        with forked.started(verb.command(broken), folder / "said.txt") as process:
            process.join(chance.uniform(0.1, 1.0) * seconds)
            at_work = forked.kill(process)
        killed += at_work
        if not at_work:  # It was faster, and finished.
            assert process.exitcode == 0, (folder / "said.txt").read_text()
            assert verb.result(broken) == expected
            broken = folder / f"broken-{number + 1}"
        if time.monotonic() - began > BUDGET_S:
            break
    assert killed, "nothing was killed"
    if verb.name not in ("mine", "export") or not (broken / verb.out).exists():  # These refuse what is there.
        finish(verb, broken)
    assert verb.result(broken) == expected
    left = {path.name for path in broken.iterdir()} - {path.name for path in (folder / "whole").iterdir()}
    assert not left


@verbs.some_verbs("prepare", slow=("predict",))
def test_three_kills(verb: Verb, tmp_path: Path):
    kill_at_random(verb, tmp_path, 3)


@pytest.mark.exhaustive
@every_verb
def test_thirty_kills(verb: Verb, tmp_path: Path):
    kill_at_random(verb, tmp_path, MANY)
