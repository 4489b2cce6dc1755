"""`lungjax mine`: a detector's candidates as a data set, with what the readers said of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import chests
import numpy as np
import preparing
import pytest

from lungjax.ct.scan import Scan
from lungjax.data import candidates as stacks
from lungjax.data import loader, scans, shards
from lungjax.errors import InputError
from lungjax.prediction import candidates, opening, patches
from lungjax.prediction.sliding_window import Segmenter
from lungjax.preparation import mine
from lungjax.train.trained import Trained


class Bright(Segmenter):
    """Stands for a detector: whatever is brighter than lung is a nodule to it."""

    def __init__(self, trained: Trained):
        super().__init__(trained, forward=lambda hu: [np.where(np.asarray(hu) > -300, 0.9, 0.0).astype(np.float32)])


@pytest.fixture
def bright(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bright:
    segmenter = Bright(chests.untrained(tmp_path / "model"))
    monkeypatch.setattr(opening, "open_model", lambda model: segmenter)
    return segmenter


def test_candidates_of_crops_are_true_or_false_by_the_readers(bright: Bright, slices_dataset: Path, tmp_path: Path):
    summary = mine.mine("model", [slices_dataset], tmp_path / "out")
    dataset = shards.open_dataset(tmp_path / "out")
    reader = stacks.Stacks(dataset)
    assert summary.nodules == np.count_nonzero(reader.label == 1) > 5
    assert summary.false + summary.neither + summary.nodules == len(dataset)
    assert dataset.intensity == "hu"
    assert dataset.planes == len(patches.STACK_MM)
    original = shards.open_dataset(slices_dataset)
    for patient, split in dataset.manifest["split"]["patients"].items():
        assert original.manifest["split"]["patients"][patient] == split


def test_a_stack_shows_the_candidate_between_its_neighbours(bright: Bright, phantom_dataset: Path, tmp_path: Path):
    mine.mine("model", [phantom_dataset], tmp_path / "out")
    dataset = shards.open_dataset(tmp_path / "out")
    reader = stacks.Stacks(dataset)
    rows = np.arange(len(dataset))
    batch = reader.batch(rows)
    side = patches.STACK_PX
    assert batch["image"].shape == (len(rows), 3, side, side)
    original = shards.open_dataset(phantom_dataset)
    index = original.index
    for row in rows[:20]:
        line = dataset.index.iloc[row]
        own = np.flatnonzero(index["series_uid"].to_numpy() == line["series_uid"])  # In the order of its slices.
        number = int(np.argmin(np.abs(index["z_mm"].to_numpy()[own] - line["z_mm"])))
        step = round(2.5 / float(index["slice_spacing_mm"].to_numpy()[own[0]]))
        places = np.clip([number - step, number, number + step], 0, len(own) - 1)
        images, _ = original.pixels(own[places])
        wanted = np.stack([window_of(image, batch["image"][row, 1], images[1]) for image in images])
        np.testing.assert_array_equal(batch["image"][row], wanted)
    middle = loader.Slices(dataset, crop_px=0, crop_at="random").batch(rows)
    np.testing.assert_array_equal(middle["image"], batch["image"][:, 1])
    marked = middle["readers"].any(axis=(1, 2))
    np.testing.assert_array_equal(marked, dataset.index["readers_marked"] > 0)


def window_of(image: np.ndarray, shown: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """The part of a slice where `shown` lies in `middle`."""
    side = len(shown)
    padded, other = (np.pad(part, side, constant_values=part.min()) for part in (middle, image))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (side, side))
    at = np.argwhere(windows[:, :, side // 2, side // 2] == shown[side // 2, side // 2])
    (place,) = [p for p in at if np.array_equal(windows[tuple(p)], shown)]
    return other[place[0] : place[0] + side, place[1] : place[1] + side]


def scan_and_marks() -> tuple[Scan, np.ndarray]:
    scan = chests.scan()
    marks = np.zeros(scan.voxels.shape, np.uint8)
    marks[chests.ball(*chests.BALLS[0])] = 0b1011
    return scan, marks


def test_what_only_touches_marks_is_neither(bright: Bright):
    scan, marks = scan_and_marks()
    first, second = sorted(mine.candidates_of(scan, bright), key=lambda one: -one.volume_mm3)[:2]
    made = mine.stack_scan(scan, marks, [first, second])
    assert [len(nodule.readings) for nodule in made.nodules] == [3]
    touched = np.zeros_like(marks)
    touched[tuple(first.voxels[:3].T)] = 0b1111
    made = mine.stack_scan(scan, touched, [first, second])
    assert [len(nodule.readings) for nodule in made.nodules] == [1]
    assert made.nodules[0].readings[0].mask.sum() == 1


def test_marks_of_another_nodule_in_the_stack_are_left_out(bright: Bright):
    scan, marks = scan_and_marks()
    candidate = max(mine.candidates_of(scan, bright), key=lambda one: one.volume_mm3)
    row, column = (int(x) for x in candidate.centre_voxel[1:])
    marks[candidate.widest, row + 12 : row + 20, column : column + 8] = 0b1111
    (nodule,) = mine.stack_scan(scan, marks, [candidate]).nodules
    own = np.count_nonzero(chests.ball(*chests.BALLS[0])[candidate.widest])
    assert nodule.readings[0].mask.sum() == own


def test_a_second_call_goes_on(bright: Bright, slices_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    whole = tmp_path / "whole"
    mine.mine("model", [slices_dataset], whole)
    calls: list[Any] = []
    original = mine.candidates_of

    def stopping(scan: Scan, segmenter: Segmenter) -> list[candidates.Candidate]:
        calls.append(scan.series_uid)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return original(scan, segmenter)

    monkeypatch.setattr(mine, "candidates_of", stopping)
    with pytest.raises(KeyboardInterrupt):
        mine.mine("model", [slices_dataset], tmp_path / "again")
    stopped = len(calls)
    mine.mine("model", [slices_dataset], tmp_path / "again")
    assert len(calls) - stopped == len(scans.find(slices_dataset)[0]) - (stopped - 1)
    first, second = preparing.contents(whole), preparing.contents(tmp_path / "again")
    assert {name for name in first if first[name] != second.get(name)} <= {"manifest.json"}  # It names the folder.


def test_mistakes(bright: Bright, slices_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(InputError, match="exists already"):
        mine.mine("model", [slices_dataset], tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        mine.mine("model", [tmp_path / "nowhere"], tmp_path / "out")
    monkeypatch.setattr(mine, "candidates_of", lambda scan, segmenter: [])
    with pytest.raises(InputError, match="no scan of --data holds a candidate"):
        mine.mine("model", [slices_dataset], tmp_path / "out")
    with pytest.raises(InputError, match="holds no candidates; make such a folder"):
        stacks.Stacks(shards.open_dataset(slices_dataset))
