"""`lungjax gather`: what predict found becomes patches with the readers' word, and every patient a label."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import chests
import numpy as np
import pytest

from lungjax import cli
from lungjax.ct.scan import Nodule, Reading, Scan
from lungjax.data import bags, nodules
from lungjax.data.shards import open_dataset
from lungjax.errors import Fault
from lungjax.prediction import patches
from lungjax.preparation import from_predictions, prediction_rows, sources
from lungjax.preparation.run import prepare

BOX = np.ones((1, 1, 1), bool)
MARGIN_PX = patches.SIDE_PX // 2
"""Patches reach so far beyond a slice."""


@pytest.fixture
def predicted(told: chests.Told, dicom: Path, tmp_path: Path) -> Path:
    """Where every nodule that two readers marked was found, and nothing else."""
    chests.run(dicom, tmp_path / "predicted")
    return tmp_path / "predicted"


def rated(*malignancy: int) -> Nodule:
    readings = (Reading(slot, -1, (0,) * 8 + (one,), BOX, (0, 0, 0)) for slot, one in enumerate(malignancy))
    return Nodule(0, tuple(readings))


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        ([], 0.0),  # A scan without a nodule.
        ([rated(1, 2, 5)], 0.0),
        ([rated(1), rated(3, 4)], 1.0),
        ([rated(1), rated(2, 3, 4)], np.nan),  # A median of 3 is neither.
        ([rated(5), rated(2, 3, 4)], 1.0),
        ([rated(0, 0)], np.nan),  # Nobody rated it.
        ([rated(0, 2)], 0.0),
    ],
)
def test_the_answer_of_a_scan(found: list[Nodule], wanted: float):
    np.testing.assert_equal(from_predictions.malignancy_label(found), wanted)


def test_findings_become_patches_with_the_readers_word(
    predicted: Path, dicom: Path, read: dict[str, Scan], tmp_path: Path, capsys: pytest.CaptureFixture
):
    out = tmp_path / "found.npz"
    assert cli.main(["gather", str(predicted), "--source", str(dicom), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    with np.load(out, allow_pickle=False) as stored:
        columns = {name: stored[name] for name in stored.files}
    count = len(columns["hu"])
    assert f"{out}: {count} predicted nodules, {count} of them rated by readers" in said
    assert count > 1
    for row in range(count):
        scan = read[str(columns["series_uid"][row])]
        place = scan.sop_uids.index(str(columns["sop_uid"][row]))
        assert (columns["z_mm"][row], columns["patient_id"][row]) == (scan.z_mm[place], scan.patient_id)
        # The patch lies in the slice once; there the outlines are those of one nodule.
        image = np.pad(scan.voxels[place], MARGIN_PX, constant_values=scan.voxels[place].min())
        windows = np.lib.stride_tricks.sliding_window_view(image, (patches.SIDE_PX,) * 2)
        ((top, left),) = np.argwhere((windows == columns["hu"][row]).all(axis=(2, 3)))
        box = slice(top, top + patches.SIDE_PX), slice(left, left + patches.SIDE_PX)
        bits = columns["reader_outlines"][row]
        assert bits[patches.SIDE_PX // 2, patches.SIDE_PX // 2]
        assert not (bits & ~np.pad(scan.slice_reader_bits(place), MARGIN_PX)[box]).any()
        (nodule,) = [
            one
            for one in scan.nodules
            if [reading.ratings for reading in one.readings[:4]]
            == [tuple(ratings) for ratings in columns["reader_ratings"][row].tolist() if any(ratings)]
        ]
        for reader, reading in enumerate(nodule.readings[:4]):  # Touching nodules are one, of more than four outlines.
            alone = dataclasses.replace(scan, nodules=(Nodule(0, (dataclasses.replace(reading, slot=0),)),))
            np.testing.assert_array_equal((bits >> reader) & 1, np.pad(alone.slice_reader_bits(place), MARGIN_PX)[box])


def test_prepared_they_are_bags_with_labels(predicted: Path, dicom: Path, read: dict[str, Scan], tmp_path: Path):
    summary = from_predictions.gather(predicted, source=dicom, out=tmp_path / "found.npz")
    known = bags.read_labels(summary.labels)
    assert known == {scan.patient_id: from_predictions.malignancy_label(scan.nodules) for scan in read.values()}
    prepare(summary.patches, tmp_path / "data", workers=1)
    dataset = open_dataset(tmp_path / "data")
    read_back = bags.Bags(dataset, nodules=3, labels=str(summary.labels))
    np.testing.assert_array_equal(read_back.patient_label, [known[patient] for patient in read_back.patients])
    with np.load(summary.patches) as stored:
        order = np.lexsort((stored["z_mm"], stored["series_uid"], stored["patient_id"]))  # That of an index.
        batch = nodules.Patches(dataset).batch(np.arange(len(order)))
        for name, column in (("image", "hu"), ("readers", "reader_outlines"), ("ratings", "reader_ratings")):
            np.testing.assert_array_equal(batch[name], stored[column][order])


def test_a_patient_without_a_nodule_is_negative_and_false_findings_are_nobodys(
    predicted: Path, dicom: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    module = sources.FORMATS["lidc"]
    original = module.read
    monkeypatch.setattr(module, "read", lambda entry: dataclasses.replace(original(entry), nodules=()))
    summary = from_predictions.gather(predicted, source=dicom, out=tmp_path / "found.npz")
    assert (summary.rated, summary.label_counts) == (0, (0, 2, 0))
    prepare(summary.patches, tmp_path / "data", workers=1)
    read_back = bags.Bags(open_dataset(tmp_path / "data"), nodules=3, labels=str(summary.labels))
    assert (read_back.patient_label == 0).all()
    batch = read_back.batch(np.arange(len(read_back.patients)))
    assert np.isnan(batch["nodule_label"]).all()
    assert not batch["ratings"].any()


def test_what_is_kept_of_a_scan_is_small(predicted: Path, read: dict[str, Scan]):
    """No patch is a view of its scan: a thousand scans would fill the memory."""
    for key, scan in read.items():
        for row in prediction_rows.rows(scan, predicted / key):
            kept = [value for value in vars(row).values() if isinstance(value, np.ndarray)]
            assert len(kept) == 3
            assert all(one.base is None for one in kept)
            assert not any(np.shares_memory(one, scan.voxels) for one in kept)


def test_a_scan_that_was_not_predicted_is_left_out(predicted: Path, dicom: Path, tmp_path: Path):
    first, second = sorted(path for path in predicted.iterdir() if path.is_dir())
    (second / "report.json").write_text((first / "report.json").read_text())
    summary = from_predictions.gather(predicted, source=dicom, out=tmp_path / "found.npz")
    assert list(summary.left_out) == [second.name]
    assert f"left out: {second.name}: not_predicted: {second} is of {first.name}" in summary.text()
    assert (sum(summary.label_counts), summary.without) == (2, 1)  # What its readers said is known all the same.


def test_of_a_scan_that_cannot_be_read_nothing_is_known(predicted: Path, dicom: Path, monkeypatch, tmp_path: Path):
    module = sources.FORMATS["lidc"]
    original = module.read
    first, second = sorted(chests.folders(dicom))

    def read(entry: Any) -> Scan:
        if entry.key == first:
            raise Fault("broken", "it is broken")
        return dataclasses.replace(original(entry), patient_id=entry.patient_id, nodules=())

    entries, _ = module.find(dicom)
    patient = next(entry.patient_id for entry in entries if entry.key == second)
    for both, wanted in ((False, (0, 1, 1)), (True, (0, 0, 1))):
        changed = [dataclasses.replace(entry, patient_id=patient) if both else entry for entry in entries]
        monkeypatch.setattr(module, "find", lambda _, changed=changed: (changed, []))
        monkeypatch.setattr(module, "read", read)
        assert from_predictions.gather(predicted, source=dicom, out=tmp_path / "found.npz").label_counts == wanted


def test_mistakes_of_gather(predicted: Path, dicom: Path, kaggle_tree: Path, tmp_path: Path, capsys: Any):
    def refused(folder: Path, source: Path, out: str, code: int = 2) -> str:
        assert cli.main(["gather", str(folder), "--source", str(source), "--out", str(tmp_path / out)]) == code
        return capsys.readouterr().err

    assert "must end in .npz" in refused(predicted, dicom, "found.csv")
    assert "has the format slices" in refused(predicted, kaggle_tree, "found.npz")
    assert "has no report of this scan" in refused(tmp_path / "nothing", dicom, "found.npz", 1)
    assert not list(tmp_path.glob("found*"))
