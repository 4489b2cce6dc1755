"""Whatever write a full disk stops: one sentence, nothing half-written, and with room the bytes of an undisturbed run.

A tmpfs gives out pages and files one by one. So every number of pages below what a command needs, and every number of
files, stops it at another place, be it in a write of Python's or of a library's in C++.
"""

from __future__ import annotations

import gc
import itertools

import disks
import pytest
import verbs
from disks import PAGE_KB, Disk
from verbs import Verb

from lungjax.train import checkpoint

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
every_verb = pytest.mark.parametrize("verb", verbs.NAMES, indirect=True)
Room = dict[str, int]
PLACES = 12
"""A trial runs a command twice, half a minute each: every one of a thousand pages would take a day."""


class Trial:
    """A verb on a small disk, beside what it writes undisturbed.

    Attributes:
      pages, files: how many its result takes.
    """

    def __init__(self, verb: Verb, disk: Disk, capfd: pytest.CaptureFixture[str]):
        self.verb, self.disk, self._capfd = verb, disk, capfd
        assert verbs.run(verb.command(disk.folder)) == 0, capfd.readouterr().err
        self.expected = verb.result(disk.folder)
        assert self.expected
        written = list(disk.folder.rglob("*"))
        self.files = len(written) + 1
        self.pages = sum(-(-path.stat().st_size // (1024 * PAGE_KB)) for path in written if path.is_file())

    def fails(self, room: Room) -> bool:
        """Whether so little room stops it; then all that is promised has been checked, and the disk is empty again."""
        self.disk.clear()
        self.disk.resize(room.get("kilobytes", disks.ROOMY[0]), room.get("files", disks.ROOMY[1]))
        self._capfd.readouterr()
        code = verbs.run(self.verb.command(self.disk.folder))
        said = self._capfd.readouterr().err
        stopped = code != 0
        if stopped:
            self._check_stopped(code, said, room)
        self.disk.resize()
        if stopped:
            assert verbs.run(self.verb.command(self.disk.folder)) == 0, (room, self._capfd.readouterr().err)
        assert self.verb.result(self.disk.folder) == self.expected, room
        left = {path.name for path in self.disk.folder.iterdir()} - {self.verb.out, "found.csv"}
        assert not left, room
        self.disk.clear()
        gc.collect()  # What Orbax leaves behind of a checkpoint that it could not write warns now, not in another test.
        return stopped

    def _check_stopped(self, code: int, said: str, room: Room) -> None:
        assert code == 2, room
        errors = [line for line in said.splitlines() if line.startswith("lungjax: error: ")]
        assert len(errors) == 1, (room, said)
        assert said.splitlines()[-1] == errors[0], (room, said)
        assert "No space left on device" in errors[0], room
        assert "Traceback" not in said, (room, said)
        out = self.disk.folder / self.verb.out
        if self.verb.name == "train":
            if checkpoint.has_checkpoint(out):
                checkpoint.load_best(out)
            return
        for name, content in self.verb.result(self.disk.folder).items():
            if name == self.verb.out or name.startswith(f"{self.verb.out}/"):  # Final names: whole, or not there.
                assert content == self.expected[name], (room, name)
        if self.verb.name in ("prepare", "mine", "export"):
            assert not out.exists(), room


@verbs.some_verbs("prepare", slow=("export",))
def test_some_writes(verb: Verb, disk: Disk, capfd: pytest.CaptureFixture[str]):
    """Early ones, some in the middle, and those at the end: as much room as the result takes is too little or just
    enough."""
    trial = Trial(verb, disk, capfd)
    assert all(trial.fails({"kilobytes": max(int(share * trial.pages), 1) * PAGE_KB}) for share in (0.05, 0.5))
    trial.fails({"kilobytes": trial.pages * PAGE_KB})
    assert all(trial.fails({"files": files}) for files in (2, max(trial.files // 2, 2)))


@pytest.mark.exhaustive
@every_verb
@pytest.mark.parametrize("what", ["kilobytes", "files"])
def test_every_write(verb: Verb, disk: Disk, capfd: pytest.CaptureFixture[str], what: str):
    """Every page and file of what takes few or is made quickly; else places all the way."""
    trial = Trial(verb, disk, capfd)
    needed, unit = (trial.pages, PAGE_KB) if what == "kilobytes" else (trial.files, 1)
    stride = 1 if verb.name in ("prepare", "export") else max(needed // PLACES, 1)
    rooms = itertools.count(1 if what == "kilobytes" else 2, stride)
    stopped = list(itertools.takewhile(lambda room: trial.fails({what: room * unit}), rooms))
    assert stopped
