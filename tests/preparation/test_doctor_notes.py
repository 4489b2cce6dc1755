"""What `doctor` tells of scans that are prepared all the same, of other formats, and the one list of names."""

from __future__ import annotations

import ast
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from source_files import write_luna16

import lungjax
from lungjax import cli
from lungjax.ct import faults
from lungjax.data.manifest import read_manifest
from lungjax.lidc import annotations
from lungjax.lidc.annotations import ScanRow
from lungjax.preparation import doctor
from lungjax.preparation.run import prepare

LEFT = (66, 100, 140, 205, 252, 334, 342, 370, 408, 613, 713, 790, 792, 840)
"""Scans with a cluster that pylidc gives up on splitting: tests/lidc/test_annotations.py holds it against pylidc."""
MATRIX = 16


def row_of(rows: list[ScanRow], patient_id: str) -> ScanRow:
    return next(row for row in rows if row.patient_id == patient_id)


def readers() -> Iterator[Path]:
    """The rooms that read what users have."""
    for room in ("ct", "lidc", "preparation"):
        yield from Path(lungjax.__path__[0], room).rglob("*.py")


def raised() -> Iterator[tuple[str, str]]:
    """Every name in the sources that makes a fault or a note, with what it makes."""
    for path in readers():
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            makes = {
                "Fault": "fault",
                "Quarantined": "either",
                "quarantine": "fault",
                "Note": "note",
                "Finding": "note",
            }
            for argument in node.args:
                value = argument.value if isinstance(argument, ast.Constant) else None
                if called in makes and isinstance(value, str) and re.fullmatch(r"[a-z0-9_]+", value):
                    yield makes[called], value


def test_the_list_has_every_name_and_no_other():
    found = {(kind, name) for kind, name in raised()}
    either = {name for kind, name in found if kind == "either"}
    named = {name for kind, name in found if kind == "fault"} | either
    skipped = {"x_ray", "derived", "left_out", "several_reconstructions"}
    assert named - skipped == faults.FAULTS.keys()
    assert {name for kind, name in found if kind == "note"} | (named & skipped) == faults.NOTES.keys()
    assert not faults.FAULTS.keys() & faults.NOTES.keys()
    assert {*faults.IN_VOXELS} <= faults.FAULTS.keys()


def test_every_fault_is_made_by_its_name():
    """A name in a variable would slip past the list."""
    for path in readers():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("Fault", "Note"):
                name = node.args[0]
                assert isinstance(name, ast.Constant), f"{path}:{node.lineno}"


def test_notes_do_not_count_as_faults(rows, write_scan, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Two series in one folder, padding declared, a patient on the belly, a second scan that is not here."""
    row = row_of(rows, "LIDC-IDRI-0957")
    orientation = [-1, 0, 0, 0, -1, 0]
    tags = {"PixelPaddingValue": -2000, "ImageOrientationPatient": orientation}
    for path in write_scan(tmp_path / "source", row, matrix=MATRIX, **tags):
        path.rename(path.with_suffix(""))
    write_scan(tmp_path / "source", row_of(rows, "LIDC-IDRI-0365"), matrix=MATRIX)
    assert cli.main(["doctor", str(tmp_path / "source"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["faults"], found["patients"], found["scans"], len(found["missing_patients"])) == ([], 2, 2, 1008)
    notes = {note["name"]: note["message"] for note in found["notes"]}
    assert sorted(notes) == ["flipped_orientation", "missing_scan", "mixed_series", "padding"]
    assert "-3024 HU" in notes["padding"]
    assert "LIDC-IDRI-0957" in notes["flipped_orientation"]
    assert "LIDC-IDRI-0365" in notes["missing_scan"]
    assert "2 series" in notes["mixed_series"]


def test_ambiguous_clusters_are_those_of_the_database(rows: list[ScanRow]):
    """pylidc's first clustering, found here again for the scans it leaves crowded, and for some that it does not."""
    for scan_id in LEFT:
        before, after = annotations.oversized_clusters(rows[scan_id - 1])
        kept = [len(nodule.readings) for nodule in annotations.nodules(rows[scan_id - 1], matrix=8)]
        assert before
        assert sorted(after) == sorted(count for count in kept if count > 4) != []
        assert sum(before) >= sum(after)
    assert annotations.oversized_clusters(row_of(rows, "LIDC-IDRI-0003")) == ((5,), ())
    assert annotations.oversized_clusters(row_of(rows, "LIDC-IDRI-0001")) == ((), ())


@pytest.mark.slow
def test_scans_with_ambiguous_clusters(rows: list[ScanRow]):
    found = {row.scan_id: annotations.oversized_clusters(row) for row in rows}
    assert sum(before != () for before, _ in found.values()) == 23
    assert tuple(sorted(scan_id for scan_id, (_, after) in found.items() if after)) == LEFT


def test_an_ambiguous_cluster_is_noted_and_listed_in_the_manifest(rows, write_scan, tmp_path: Path):
    source, row = tmp_path / "source", rows[LEFT[0] - 1]
    write_scan(source / "a", row, matrix=MATRIX)
    write_scan(source / "b", row_of(rows, "LIDC-IDRI-0957"), matrix=MATRIX)
    (note,) = (note for note in doctor.examine(source).notes if note.name == "ambiguous_cluster")
    before, after = annotations.oversized_clusters(rows[LEFT[0] - 1])
    assert f"clusters of {before[0]} readings" in note.message
    assert f"{after[0]} readings stay together" in note.message
    prepare(source, tmp_path / "out", workers=1)
    (listed,) = read_manifest(tmp_path / "out")["ambiguous_nodules"]
    assert (listed["series_uid"], listed["readings"]) == (row.series_uid, after[0])
    assert len(annotations.nodules(row, matrix=MATRIX)[listed["nodule"]].readings) == after[0]


def test_crops(kaggle_tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Names alone tell of masks that are missing; patients that are not LIDC-IDRI's miss nobody."""
    report = doctor.examine(kaggle_tree)
    assert (report.format, report.patients, report.scans, report.slices) == ("slices", 12, 18, 72)
    assert (report.faults, report.notes, report.missing_patients) == ((), (), ())
    shutil.copytree(kaggle_tree, tmp_path / "source")
    next((tmp_path / "source").rglob("mask-1/slice-2.png")).unlink()
    assert cli.main(["doctor", str(tmp_path / "source")]) == 1
    assert "missing_mask (1): " in capsys.readouterr().out


def test_a_format_that_only_finds(tmp_path: Path):
    """No `check`: what `find` tells, and no word of slices."""
    for name in ("Image/0003_NI001_slice001", "Image/0005_NI001_slice001", "again/Image/0005_NI001_slice001"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{name}.npy").touch()
    report = doctor.examine(tmp_path)
    assert (report.format, report.patients, report.slices) == ("jaeho-npy", 1, None)
    assert [one.name for one in report.faults] == ["duplicate_positions"]
    assert "format jaeho-npy, 1 patient, 1 scan\n" in report.text()
    assert report.text().endswith("only names were checked; prepare may find any fault in the files.")


def test_volumes_tell_by_their_headers(rows, tmp_path: Path):
    """NIfTI and LUNA16: slices are counted, and what headers tell is told."""
    image = sitk.GetImageFromArray(np.linspace(-1000, 400, 48).astype(np.int16).reshape(3, 4, 4))
    for name in ("a", "a_label", "b", "c_label"):
        sitk.WriteImage(image, str(tmp_path / f"{name}.nii"))
    sitk.WriteImage(image[:, :, 1:], str(tmp_path / "b_label.nii"))
    report = doctor.examine(tmp_path)
    assert (report.format, report.patients, report.slices) == ("nifti", 2, 3)
    assert [one.name for one in report.faults] == ["missing_image", "mask_shape"]
    assert "Only prepare reads voxels and may find more faults: " in report.text()
    row = rows[0]
    field_mm = row.pixel_spacing_mm * 512
    ramp = np.linspace(-1000, 400, len(row.z_mm) * 16 * 16).astype(np.int16)
    series = sitk.GetImageFromArray(ramp.reshape(-1, 16, 16))
    series.SetSpacing((field_mm / 16, field_mm / 16, float(row.z_mm[-1] - row.z_mm[0]) / (len(row.z_mm) - 1)))
    series.SetOrigin((0.0, 0.0, float(row.z_mm[0])))
    for number, (uid, held) in enumerate(((row.series_uid, series), (rows[1].series_uid, series[:, :, :9]))):
        write_luna16(tmp_path / f"luna16/{number}", uid, held)
    report = doctor.examine(tmp_path / "luna16")
    assert (report.format, report.patients, report.slices) == ("luna16", 2, len(row.z_mm))
    assert [one.name for one in report.faults] == ["incomplete_series"]


def test_mistakes_are_one_line_and_code_2(kaggle_tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "empty").mkdir()
    for arguments, says in (
        ([str(tmp_path / "nowhere")], "nowhere: no such file or folder"),
        ([str(tmp_path / "empty")], "empty holds neither DICOM files nor"),
        ([str(tmp_path / "empty"), "--format", "slices"], "holds no scans of this format"),
        ([str(kaggle_tree), "--format", "nrrd"], "unknown format 'nrrd'"),
    ):
        assert cli.main(["doctor", *arguments]) == 2
        out, err = capsys.readouterr()
        assert (out, says in err, err.count("\n")) == ("", True, 1)


def test_long_lists_of_notes_are_cut_short_and_faults_are_not():
    def findings(name: str) -> tuple[doctor.Finding, ...]:
        return tuple(doctor.Finding(name, str(number), f"{name} number {number}") for number in range(9))

    report = doctor.Report(Path("x"), "lidc", 9, 9, 9, (), findings("not_ct"), findings("padding"))
    text = report.text()
    assert [text.count(f"{name} number") for name in ("not_ct", "padding")] == [9, 5]
    assert "and 4 more; --json lists all" in text
    assert len(report.as_json()["notes"]) == 9


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [((2,), "0002"), ((2, 3, 4, 7, 9, 10), "0002 to 0004, 0007, 0009 to 0010"), ((1, 3), "0001, 0003")],
)
def test_missing_patients_are_told_as_ranges(numbers: tuple[int, ...], expected: str):
    missing = tuple(f"LIDC-IDRI-{number:04}" for number in numbers)
    report = doctor.Report(Path("x"), "lidc", 1, 1, 1, missing, (), ())
    assert report.text().splitlines()[1].endswith(f"missing: LIDC-IDRI-{expected}")
